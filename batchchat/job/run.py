"""The composition root: from a recipe to a finished run directory. The loop is `_answer`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from batchchat.chats import Request
from batchchat.engines import Engine, EngineContext, FollowingEngine, PaidEngine, build_engine
from batchchat.engines.facts import AnyEngineFacts, EngineFacts
from batchchat.engines.together import EnginesTogether
from batchchat.errors import UsageError
from batchchat.evaluation import is_evaluated
from batchchat.job.files import published_files
from batchchat.job.finished import RunResult, finished_report, finished_run, say_finished, wanted_export, what_it_reads
from batchchat.job.mending import mend, write_outputs
from batchchat.job.opening import OwnEngine, Parts, open_engines, open_parts
from batchchat.job.reading import ChatReader
from batchchat.job.references import check_references
from batchchat.job.selecting import finish_run, select_run
from batchchat.job.sides import keep_tools
from batchchat.job.turns import OpenChats, min_known
from batchchat.models import group, load_text_side
from batchchat.models.loaded import LoadedModel
from batchchat.prompts import row_samples
from batchchat.recipe import Recipe
from batchchat.recipe.expansion import num_runs
from batchchat.reporting.build import build_report
from batchchat.reporting.keeping import keep_report
from batchchat.reporting.log import log_to
from batchchat.reporting.meters import Meters
from batchchat.reporting.progress import OnProgress, ProgressDisplay
from batchchat.reporting.report import Report
from batchchat.reporting.speeds import remember_speed
from batchchat.reporting.watch import Watcher
from batchchat.schedule import Feed
from batchchat.selection.mark import is_selected
from batchchat.store import RunDirectory, RunStore
from batchchat.store.export import Export
from batchchat.store.manifest import open_store, settle_manifest
from batchchat.store.publication import Publication

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("batchchat")


@dataclass(frozen=True)
class _Job:
    """A run whose chats are answered."""

    recipe: Recipe
    parts: Parts
    reader: ChatReader
    store: RunStore
    directory: RunDirectory
    exporting: Export
    meters: Meters
    watcher: Watcher
    progress: ProgressDisplay
    engine: OwnEngine | None


def run(
    recipe: Recipe,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    command: Sequence[str] = (),
    quiet: bool = True,
    on_progress: OnProgress | None = None,
    engine: OwnEngine | None = None,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> RunResult:
    """Answer every chat of the recipe's input and score the answers; goes on where an earlier run of the same recipe
    stopped, and scores anew where the recipe now asks for other scores.

    `restart` moves an existing run directory aside and begins anew; `retry_failed` tries the rows of errors.jsonl
    again, those apart that could not be read, and keeps everything else; `command` is kept in the manifest; without
    `quiet` progress is drawn on standard error where that is a terminal, and elsewhere it is logged; `on_progress` is
    told of it, too. `engine` is an engine of your own, or makes one, in the place of the one that the recipe names; the
    tokenizer is still that of the recipe's model. `model` is a model of transformers that you have loaded, with its
    `tokenizer`, in the place of the one that the recipe names: it may lie on any device, is the same afterwards, and is
    told from others by a hash of its weights. Raises `UsageError`, with nothing written, where recipe, input and model
    cannot be used, and `EnvironmentFault` where the machine fails. After an interrupt everything that was finished is
    kept, and the same call goes on.
    """
    if recipe.matrix:
        raise UsageError(
            f"the recipe has a matrix, and is {num_runs(recipe):,} runs; run them with batchchat.job.matrix.run_matrix"
        )
    loaded = LoadedModel.of(model, tokenizer)
    if loaded is not None:
        if engine is not None:
            raise UsageError("run() takes a model or an engine of your own; leave one of them out")
        recipe = loaded.named_in(recipe)
    directory = RunDirectory(recipe.run_directory)
    if retry_failed and not directory.database.exists():
        raise UsageError(
            f"{directory.path} holds no run whose failed rows could be tried again; leave --retry-failed out"
        )
    found = None if restart or retry_failed or loaded is not None else finished_run(recipe)
    if found is not None:
        return found
    if recipe.reads_model and loaded is None:
        log.info("loading %s …", recipe.model.name)
    seen = what_it_reads(recipe) if loaded is None else None
    meters = Meters()
    watcher = Watcher(counts=meters.counts)
    with ExitStack() as stack:
        stack.enter_context(watcher)
        if loaded is not None:
            stack.enter_context(loaded.evaluating())
        with meters.phase("load"):
            parts = open_parts(recipe, command, quiet, stack, loaded)
            is_new = restart or not directory.database.exists()
            if is_new:
                check_references(parts.evaluator, parts.source, recipe)
        with meters.phase("store"):
            store = _begin(directory, recipe, parts.manifest, restart, stack)
            if retry_failed:
                _reopen_failed(store)
        publication = stack.enter_context(Publication(recipe.published_at, directory, store))
        publication.begin(replace=restart)
        source = parts.source
        keep_tools(store, parts.sides)
        reader = ChatReader(source, recipe, store, lambda chat: row_samples(recipe.generation, chat.settings))
        exporting = Export(store, directory, recipe, reader.chat, reader.options, source.types, publication.soon)
        report = finished_report(store, recipe)
        if report is not None:
            whole = mend(report, store, directory, recipe, exporting)
            if whole and is_evaluated(store, recipe):
                if not is_selected(store, recipe):
                    report = select_run(recipe, store, directory, report, meters)
                publication.finish(published_files(directory, recipe))
                store.set_meta("seen", seen)
                say_finished(directory)
                return RunResult.of(report, directory, recipe)
        else:
            if not is_new:
                check_references(parts.evaluator, source, recipe)
            store.begin_session(parts.manifest["started"])
            progress = ProgressDisplay(recipe.name, _expected(source.count(), recipe), quiet, on_progress)
            job = _Job(
                recipe,
                parts,
                reader,
                store,
                directory,
                exporting,
                meters,
                watcher,
                progress,
                engine,
            )
            report = _answer_all(job)
        if recipe.source.shard is None:  # scores are of the whole: `merging`
            judge = partial(run, quiet=quiet, on_progress=on_progress)
            report = finish_run(parts.evaluator, recipe, store, directory, report, meters, judge)
        publication.finish(published_files(directory, recipe))
        store.set_meta("seen", seen)
    return RunResult.of(report, directory, recipe)


def _begin(
    directory: RunDirectory, recipe: Recipe, manifest: Mapping[str, Any], restart: bool, stack: ExitStack
) -> RunStore:
    """The store of the run, in a directory that is locked until `stack` closes."""
    if restart:
        directory.set_aside()
    directory.lock()
    stack.callback(directory.release)
    store = open_store(directory)
    stack.callback(store.close)
    stack.enter_context(log_to(directory.log))
    settle_manifest(directory, store, manifest)
    directory.write(directory.recipe, recipe.dump_yaml())
    return store


def _reopen_failed(store: RunStore) -> None:
    again, unread = store.reopen_failed()
    log.info("%s", f"{again:,} failed rows are tried again" if again else "no row failed that can be tried again")
    if unread:
        log.info("%s", f"{unread:,} rows could not be read and stay in errors.jsonl: mend the input for another run")


def _answer_all(job: _Job) -> Report:
    """Answer what is open and export everything; returns the report."""
    recipe, store, directory = job.recipe, job.store, job.directory
    engine_facts, user_facts = _generate(job)
    with job.meters.phase("export"):
        write_outputs(job.exporting, store, directory, recipe)
        with store.together():
            store.set_meta("exported", wanted_export(recipe))
            store.set_meta("evaluated", None)
            if engine_facts.dtype is not None:
                store.set_meta("dtype", engine_facts.dtype)
    store.commit(job.meters.elapsed)
    files = result_files(directory, recipe)
    settings = job.parts.sides.assistant.resolver.resolve({})
    report = build_report(
        recipe, job.parts.manifest, store, job.meters, job.watcher, engine_facts, directory, files, settings, user_facts
    )
    keep_report(report, store, directory)
    store.commit()
    remember_speed(recipe.model.name, recipe.model.quantization, report.engine, report.session)
    return report


def follow(recipe: Recipe) -> None:
    """Help the leader of a group of processes to compute; writes nothing and ends when the leader is done."""
    text = load_text_side(recipe)
    group.require_group()
    if group.receive():
        engine = build_engine(recipe.engine.kind, EngineContext(recipe, text.codec, Meters()))
        assert isinstance(engine, FollowingEngine), "the recipe was checked for an engine that can be split"
        engine.follow()
    group.destroy()


def result_files(directory: RunDirectory, recipe: Recipe) -> list[str]:
    """Names of what a finished run leaves, the results first."""
    others = (directory.errors, *directory.reports, directory.recipe, directory.manifest)
    files = (*directory.results(recipe.sink), *others, directory.database, directory.log)
    return [file.name for file in files]


def _expected(rows: int | None, recipe: Recipe) -> int | None:
    """How many rows the run will have, where the input's length is known."""
    if rows is None:
        return None
    number, count = recipe.source.part
    chosen = min_known(rows, recipe.source.sample, recipe.source.limit) or 0
    return max(0, -(-(chosen - number) // count))


def _generate(job: _Job) -> tuple[AnyEngineFacts, AnyEngineFacts | None]:
    """Answer what is open. The model is loaded only where something is. Returns the facts of its engine, and of the one
    that plays the user, where that is another."""
    recipe, store, meters = job.recipe, job.store, job.meters
    open_chats = OpenChats(recipe, store, job.parts.sides, meters)
    requests = _requests(job.reader, open_chats, meters)
    first = next(requests, None)
    if recipe.model.parallel != "none":
        group.require_group()
        group.broadcast(first is not None)
    if first is None:
        nothing = "nothing was left to generate, so no model was loaded"
        return EngineFacts(engine=recipe.engine.kind, note=nothing), None
    with meters.phase("load"):
        engine, look_ahead = open_engines(recipe, job.parts, store, meters, job.engine)

    def hand_out(count: int) -> None:
        with meters.phase("store"):
            store.hand_out(count)

    feed = Feed(chain([first], requests), look_ahead, on_take=hand_out)
    with closing(engine):  # a judge's model finds its memory free
        with meters.phase("generate"):
            _answer(engine, feed, open_chats, job)
        facts = engine.describe()
        user_facts = engine.describe_user() if isinstance(engine, EnginesTogether) else None
    totals = store.totals()
    if totals.rows_done != totals.rows:
        raise RuntimeError(f"the engine returned with {totals.rows - totals.rows_done} rows unanswered")
    return facts, user_facts


def _answer(engine: Engine, feed: Feed, open_chats: OpenChats, job: _Job) -> None:
    """The loop: the engine drains the feed; each completion is stored, and the chat's next turn goes into the feed."""
    store, meters, progress = job.store, job.meters, job.progress
    paid = engine if isinstance(engine, PaidEngine) else None
    progress.watch(getattr(engine, "standing", None))
    with progress.shown(store.num_done):
        try:
            for completion in engine.run(feed):
                with meters.phase("store"), store.together():
                    following = open_chats.record(completion)
                    if following is not None:
                        feed.put(following)
                    spent = None if paid is None else paid.spent
                    progress.update(store.num_done, completion.completion_tokens, spent)
                with meters.phase("export"):
                    job.exporting.advance()
        finally:
            store.commit(meters.elapsed)


def _requests(reader: ChatReader, open_chats: OpenChats, meters: Meters) -> Iterator[Request]:
    """The first request of each open chat and sample, as the feed asks for them."""
    chats = reader.chats()
    while True:
        with meters.phase("read"):
            found = next(chats, None)
            if found is None:
                return
            opened = list(open_chats.open(*found))
        yield from opened
