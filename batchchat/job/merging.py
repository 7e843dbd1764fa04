"""Shards of one job to one result: a run directory as one run would have left it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchchat.chats.formats.columns import names_itself
from batchchat.errors import UsageError
from batchchat.evaluation import Evaluator
from batchchat.job.files import published_files
from batchchat.job.finished import RunResult, wanted_export
from batchchat.job.mending import write_outputs
from batchchat.job.run import result_files, run
from batchchat.job.selecting import finish_run
from batchchat.recipe import Recipe, load_recipe, recipe_from_mapping
from batchchat.recipe.identity import recipe_difference
from batchchat.reporting.build import build_report
from batchchat.reporting.keeping import keep_report, kept_report
from batchchat.reporting.meters import Meters
from batchchat.reporting.report import Report, Shard
from batchchat.reporting.watch import Watcher
from batchchat.sources.from_recipe import open_recipe_source, read_options
from batchchat.store import RunDirectory, RunStore, StoredRow
from batchchat.store.export import Export
from batchchat.store.manifest import settle_manifest
from batchchat.store.merging import merge_stores
from batchchat.store.publication import Publication


@dataclass(frozen=True)
class _Shard:
    """A finished run over a part of the input."""

    directory: RunDirectory
    recipe: Recipe
    manifest: Mapping[str, Any]
    report: Report


def merge(runs: Sequence[Path], output: Path, quiet: bool = True) -> RunResult:
    """One result of the shards in `runs`, in input order, with one report; scores, judges and gates are of the whole.

    Raises UsageError, with nothing written, where a run is not finished, is no shard, is of another job than the first,
    or where shards are missing or there twice.
    """
    meters, watcher = Meters(), Watcher()
    shards = _complete([_open(Path(run_).expanduser()) for run_ in runs])
    first = shards[0]
    plain = first.recipe.model_dump(exclude_none=True)
    plain["source"].pop("shard")
    recipe = recipe_from_mapping({**plain, "sink": {**plain["sink"], "directory": str(output)}})
    directory = RunDirectory(recipe.run_directory)
    if directory.report_json.exists():
        raise UsageError(f"{output} holds a run already: choose another with --output, or remove it")
    options = read_options(recipe)

    def has_own_id(row: StoredRow) -> bool:
        return names_itself(row.data, row.id or row.chat(options).id, options)

    with ExitStack() as stack:
        stack.enter_context(watcher)
        evaluator = Evaluator(recipe)
        types = stack.enter_context(open_recipe_source(recipe)).types() if recipe.sink.formats != ("jsonl",) else {}
        directory.lock()
        stack.callback(directory.release)
        directory.database.unlink(missing_ok=True)  # of a merge that was cut short
        manifest = {**first.manifest, "recipe": recipe.identity(), "recipe_digest": recipe.digest()}
        with meters.phase("store"):
            merge_stores(directory.database, [shard.directory.database for shard in shards], has_own_id)
        store = RunStore(directory.database)
        stack.callback(store.close)
        settle_manifest(directory, store, manifest)
        directory.write(directory.recipe, recipe.dump_yaml())
        publication = stack.enter_context(Publication(recipe.published_at, directory, store))
        publication.begin(replace=False)
        with meters.phase("export"):
            told = read_options(recipe, store.meta("tools"))
            exporting = Export(store, directory, recipe, lambda row: row.chat(told), told, lambda: types)
            write_outputs(exporting, store, directory, recipe)
        store.set_meta("exported", wanted_export(recipe))
        store.commit()
        report = build_report(
            recipe, manifest, store, meters, watcher, first.report.engine.model_copy(update={"work": None}), directory,
            result_files(directory, recipe), None, shards=[_facts(shard) for shard in shards],
        )  # fmt: skip
        report = report.model_copy(update={"about": first.report.about})
        keep_report(report, store, directory)
        report = finish_run(evaluator, recipe, store, directory, report, meters, lambda judge: run(judge, quiet=quiet))
        publication.finish(published_files(directory, recipe))
    return RunResult.of(report, directory, recipe)


def _open(path: Path) -> _Shard:
    """A shard's directory. Raises UsageError where it is none, or not finished."""
    directory = RunDirectory(path)
    if not (directory.database.exists() and directory.recipe.exists() and directory.manifest.exists()):
        raise UsageError(f"{path} is no run directory: it holds no run store; name the folders of the shards")
    recipe = load_recipe(directory.recipe)
    manifest = json.loads(directory.manifest.read_text(encoding="utf-8"))
    if recipe.source.shard is None:
        raise UsageError(f"{path} is no shard: it answers the whole input")
    store = RunStore(directory.database, read_only=True)
    report = kept_report(store)
    exported = store.meta("exported")
    store.close()
    if report is None or exported is None:
        raise UsageError(f"the shard in {path} is not finished; finish it with: batchchat run {directory.recipe}")
    return _Shard(directory, recipe, manifest, report)


def _complete(shards: Sequence[_Shard]) -> list[_Shard]:
    """The shards in order. Raises UsageError where they are not the whole of one job."""
    first = shards[0]
    count = first.recipe.source.part[1]
    by_number: dict[int, _Shard] = {}
    for shard in shards:
        differences = [
            *recipe_difference(_whole(first.manifest["recipe"]), _whole(shard.manifest["recipe"])),
            *(["input: another"] if shard.manifest["input"] != first.manifest["input"] else []),
            *(f"model: {line}" for line in recipe_difference(first.manifest["model"], shard.manifest["model"])),
        ]
        number, of = shard.recipe.source.part
        if of != count:
            differences.append(f"source.shard: {first.recipe.source.shard} -> {shard.recipe.source.shard}")
        if differences:
            raise UsageError(
                f"{shard.directory.path} is of another job than {first.directory.path} ({'; '.join(differences)}): "
                "merge shards of one job"
            )
        if number in by_number:
            raise UsageError(
                f"{by_number[number].directory.path} and {shard.directory.path} are both shard {number}/{count}: name "
                "each once"
            )
        by_number[number] = shard
    missing = [f"{number}/{count}" for number in range(count) if number not in by_number]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise UsageError(f"shards are missing: {', '.join(missing[:10])}{more}; name the folders of all {count}")
    return [by_number[number] for number in range(count)]


def _whole(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies the job of which a shard is a part."""
    return {**identity, "source": {name: value for name, value in identity["source"].items() if name != "shard"}}


def _facts(shard: _Shard) -> Shard:
    report = shard.report
    return Shard(
        shard=str(shard.recipe.source.shard),
        directory=str(shard.directory.path),
        rows=report.rows,
        generated_tokens=report.tokens.generated,
        generated_tokens_per_second=report.session.generated_tokens_per_second,
        wall_seconds=round(sum(session.seconds for session in report.sessions), 3),
    )
