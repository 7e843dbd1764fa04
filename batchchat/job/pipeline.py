"""A pipeline: each step an ordinary run directory, resumed where an earlier process stopped, one manifest for all."""

from __future__ import annotations

import filecmp
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from batchchat.chats.json_text import json_text
from batchchat.credentials import without_credentials
from batchchat.errors import UsageError
from batchchat.evaluation import Evaluator
from batchchat.job.rescore import score_apart
from batchchat.job.run import run
from batchchat.job.selecting import make_selector
from batchchat.recipe.identity import sha256_of
from batchchat.recipe.pipeline import Form, Pipeline, Step, handed_file
from batchchat.reporting.reading import read_report
from batchchat.reporting.report import AnyReport, Report
from batchchat.results import open_results
from batchchat.results.handing import handed
from batchchat.selection.files import KEPT, REMOVED
from batchchat.sources import open_source
from batchchat.sources.from_recipe import open_recipe_source
from batchchat.store import RunDirectory
from batchchat.store.manifest import time_now
from batchchat.version import __version__

log = logging.getLogger("batchchat")

MANIFEST = "pipeline.json"


@dataclass(frozen=True)
class PlannedStep:
    """What a step will read: `rows` of them, or at most so many; None where that is not known before."""

    step: Step
    state: Literal["done", "begun", "open"]
    reads: tuple[str, ...]
    rows: int | None
    exact: bool

    @property
    def answers(self) -> int | None:
        """How many it will write or take, at most."""
        samples = self.step.recipe.generation.samples if self.step.kind == "run" else 1
        return None if self.rows is None else self.rows * samples


@dataclass(frozen=True)
class PipelineResult:
    """What the steps came to, as far as they went. `exit_code` is that of the last one."""

    manifest: dict[str, Any]
    directory: Path
    exit_code: int


def plan_pipeline(pipeline: Pipeline) -> list[PlannedStep]:
    """What each step will read. Raises UsageError where a step's scorers, filters or input cannot be used."""
    planned: dict[str, PlannedStep] = {}
    manifest = _Manifest(pipeline)
    for step in pipeline.steps:
        if not any(judge.against for judge in step.recipe.judges.values()):
            Evaluator(step.recipe)
        make_selector(step.recipe)
        rows: int | None = 0
        exact = True
        for name in step.reads:
            before = planned[name]
            known = manifest.kept(name) if before.state == "done" else None
            most = before.answers if known is None else known
            exact = exact and known is not None
            rows = None if rows is None or most is None else rows + most
        if not step.reads:
            with open_recipe_source(step.recipe) as source:
                source.fingerprint()  # which counts lines on the way
                rows = source.count()
        section = step.recipe.source
        chosen = [count for count in (rows, section.sample, section.limit) if count is not None]
        rows = min(chosen, default=None)
        planned[step.name] = PlannedStep(step, manifest.state(step), tuple(step.recipe.source.path), rows, exact)
    return list(planned.values())


def begin_from(pipeline: Pipeline, name: str) -> None:
    """Move a step and all behind it aside, so that they begin anew. Raises UsageError for a step that is not there."""
    names = [step.name for step in pipeline.steps]
    if name not in names:
        raise UsageError(f"--from {name} is no step of {pipeline.name}; it has {', '.join(names)}")
    manifest = _Manifest(pipeline)
    for step in pipeline.steps[names.index(name) :]:
        RunDirectory(pipeline.directory / step.name).set_aside()
        manifest.forget(step)


def run_pipeline(
    pipeline: Pipeline,
    command: Sequence[str] = (),
    quiet: bool = True,
    on_step: Callable[[Step, AnyReport], None] | None = None,
) -> PipelineResult:
    """Do what is left to do; the same call goes on after a kill. A step whose rows failed or whose gate failed is the
    last one. Raises UsageError where a step that was begun has another recipe or input now."""
    place = RunDirectory(pipeline.directory)
    place.lock()
    try:
        manifest = _Manifest(pipeline, command)
        for step in pipeline.steps:
            log.info("step %s", step.name)
            manifest.begin(step)
            try:
                report, code = _do(pipeline, step, manifest, command, quiet)
            except UsageError as error:
                advice = f"; begin it and what is behind it anew with --from {step.name}"
                begun = (pipeline.directory / step.name).exists()
                raise UsageError(f"the step {step.name}: {error}{advice if begun else ''}") from error
            if not code and not (manifest.is_done(step) and (pipeline.directory / step.name / KEPT).exists()):
                hand_over(pipeline.directory / step.name, "rows")
            manifest.end(step, report, code)
            if on_step is not None:
                on_step(step, report)
            if code:
                return PipelineResult(manifest.data, pipeline.directory, code)
        return PipelineResult(manifest.data, pipeline.directory, 0)
    finally:
        place.release()


def _do(
    pipeline: Pipeline, step: Step, manifest: _Manifest, command: Sequence[str], quiet: bool
) -> tuple[AnyReport, int]:
    for name in step.reads:
        file = hand_over(pipeline.directory / name, step.form)
        if not file.stat().st_size:
            raise UsageError(f"{name} kept no answer, so there is nothing to read; look at its removed.jsonl")
    directory = pipeline.directory / step.name
    if step.kind == "run":
        result = run(step.recipe, command=command, quiet=quiet)
        return result.report, result.exit_code
    if manifest.is_done(step) and (directory / "report.json").exists():
        log.info("%s was finished before", directory)
        return read_report(directory / "report.json"), 0
    (source,) = step.recipe.source.path if len(step.reads) == 1 else (_joined(pipeline, step),)
    scored = score_apart(source, step.recipe, directory, quiet, command)
    return scored.report, scored.exit_code


def _joined(pipeline: Pipeline, step: Step) -> str:
    """The files of several steps as one, since scores are of one file."""
    path = pipeline.directory / f"{step.name}.jsonl"
    _write(path, (Path(name).read_bytes() for name in step.recipe.source.path))
    return str(path)


def hand_over(directory: Path, form: Form) -> Path:
    """What a finished step keeps, as a file in this form: all its answers where it chooses none."""
    path = directory / handed_file(form)
    kept = directory / KEPT
    source = kept if kept.exists() and form != "rows" else directory
    if path == kept and kept.exists() and (directory / REMOVED).exists():
        return kept  # the step chose them itself
    with open_results(source) as results:
        whole = (sample for sample in results if sample.state == "answered")
        _write(path, (json_text(handed(sample, form)).encode("utf-8") + b"\n" for sample in whole))
    return path


def _write(path: Path, parts: Iterator[bytes]) -> None:
    """Write a file, or leave it untouched where it holds the same: what reads it has then seen it before."""
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "wb") as file:
        file.writelines(parts)
    if path.exists() and filecmp.cmp(fresh, path, shallow=False):
        fresh.unlink()
    else:
        fresh.replace(path)


class _Manifest:
    """pipeline.json: what each step is made from and came to, written whenever that changes."""

    def __init__(self, pipeline: Pipeline, command: Sequence[str] = ()):
        self._directory = RunDirectory(pipeline.directory)
        self._file = pipeline.directory / MANIFEST
        self.data: dict[str, Any] = {"batchchat": __version__, "name": pipeline.name, "steps": {}}
        if self._file.exists():
            try:
                self.data = json.loads(self._file.read_text(encoding="utf-8"))
                self.data["steps"] = dict(self.data["steps"])
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{self._file} is damaged ({error}); remove it: steps that are done stay so"
                ) from error
        self.data["command"] = [without_credentials(part) for part in command]
        names = [step.name for step in pipeline.steps]
        self.data["steps"] = {name: self.data["steps"][name] for name in names if name in self.data["steps"]}

    def state(self, step: Step) -> Literal["done", "begun", "open"]:
        if self.is_done(step):
            return "done"
        return "begun" if (self._directory.path / step.name).exists() else "open"

    def is_done(self, step: Step) -> bool:
        """Whether the step was finished with this recipe over this input."""
        known = self.data["steps"].get(step.name, {})
        return known.get("state") == "done" and known.get("made_from") == self._made_from(step)

    def kept(self, name: str) -> int | None:
        found = self.data["steps"].get(name, {}).get("kept")
        return found if isinstance(found, int) else None

    def forget(self, step: Step) -> None:
        if self.data["steps"].pop(step.name, None) is not None:
            self._write()

    def begin(self, step: Step) -> None:
        known = self.data["steps"].get(step.name, {})
        if not self.is_done(step):
            self.data["steps"][step.name] = {
                "kind": step.kind,
                "state": "begun",
                "directory": step.name,
                "reads": list(step.reads),
                "form": step.form,
                "started": known.get("started", time_now()),
            }
            self._write()

    def end(self, step: Step, report: AnyReport, code: int) -> None:
        entry = self.data["steps"][step.name]
        state = "done" if code == 0 else "failed"
        if entry["state"] != state:
            entry["finished"] = time_now()
        entry |= {"state": state, "exit_code": code, "recipe": step.recipe.identity(), "files": list(report.files)}
        entry["made_from"] = self._made_from(step)
        if isinstance(report, Report):
            entry |= {"rows": report.rows.as_dict(), "answers": report.samples.answered, "input": self._input(step)}
        elif report.input is not None:
            entry |= {"rows": report.input.as_dict(), "answers": report.input.rows - report.input.failed}
        entry["kept"] = entry["answers"] if report.keep is None else report.keep.kept
        if report.keep is not None:
            entry["keep"] = report.keep.as_dict()
        self._write()

    def _input(self, step: Step) -> Any:
        manifest = self._directory.path / step.name / "manifest.json"
        return json.loads(manifest.read_text(encoding="utf-8"))["input"]

    def _made_from(self, step: Step) -> str | None:
        """A digest of recipe and input; None where the input is not there yet."""
        plain = step.recipe.model_dump(mode="json", exclude_none=True)
        if not step.reads:
            return sha256_of(json.loads(json.dumps(plain)))
        if not all(Path(name).exists() for name in step.recipe.source.path):
            return None
        with closing(open_source(list(step.recipe.source.path))) as source:
            inputs = json.loads(json.dumps(source.fingerprint()))
        return sha256_of({"recipe": json.loads(json.dumps(plain)), "input": inputs})

    def _write(self) -> None:
        self._directory.path.mkdir(parents=True, exist_ok=True)
        self._directory.write(self._file, json.dumps(self.data, indent=2, ensure_ascii=False) + "\n")
