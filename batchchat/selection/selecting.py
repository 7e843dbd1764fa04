"""The pass over the samples of a run: each goes through the steps of `keep` until one removes it, or none does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from batchchat.chats.json_text import json_text
from batchchat.recipe.dumping import to_inline_yaml
from batchchat.recipe.keeping import Keep, KeepStep
from batchchat.reporting.scores import KeepStage
from batchchat.reporting.scores import Kept as KeptReport
from batchchat.results.handing import handed
from batchchat.results.sample import Sample
from batchchat.results.where import parse_where, refuse_unknown
from batchchat.selection.best import BestOf, score_by
from batchchat.selection.contamination import Benchmarks
from batchchat.selection.duplicates import Deduplication
from batchchat.selection.files import KEPT, PAIRS, REMOVED
from batchchat.selection.filters import by_condition, by_function, filtering
from batchchat.selection.stage import Stage
from batchchat.store.directory import replacing


class Selector:
    """The steps of a recipe's `keep`, checked and ready before the first answer is written.

    Raises UsageError for a condition, function or file that cannot be used, EnvironmentFault where a library is
    missing.
    """

    def __init__(self, keep: Keep, metrics: tuple[str, ...]):
        self._keep = keep
        self._metrics = metrics
        self._pairs: list[IO[bytes]] = []
        self._num_pairs = 0
        self._stages = [self._stage(step) for step in keep]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that `select` writes."""
        pairs = any(step.best is not None and step.best.pairs != "none" for step in self._keep)
        return (KEPT, REMOVED, PAIRS) if pairs else (KEPT, REMOVED)

    def select(self, samples: Iterable[Sample], directory: Path) -> KeptReport:
        """Write what is kept, what is not, and the pairs into `directory`, in the order of the input; returns the
        counts. Memory grows only with what the steps compare."""
        counted = [_Counted(stage) for stage in self._stages]
        failed = _Counted(None)
        with ExitStack() as stack:
            kept, removed = (stack.enter_context(replacing(directory / name)) for name in (KEPT, REMOVED))
            self._pairs = [stack.enter_context(replacing(directory / name)) for name in self.files[2:]]
            self._num_pairs = 0
            left: Iterator[Sample] = _whole(samples, failed)
            for number, stage in enumerate(counted, start=1):
                left = stage.passed(left, removed, number)
            count = 0
            for sample in left:
                _write(kept, handed(sample))
                count += 1
        for name in {KEPT, REMOVED, PAIRS}.difference(self.files):
            (directory / name).unlink(missing_ok=True)
        return KeptReport(
            samples=failed.samples,
            failed=failed.removed,
            stages=tuple(stage.report() for stage in counted),
            kept=count,
            pairs=self._num_pairs,
        )

    def _stage(self, step: KeepStep) -> Stage:
        options: Any = getattr(step, step.kind)
        plain = options if isinstance(options, str) else to_inline_yaml(options.model_dump(exclude_defaults=True))
        if step.where is not None:
            apply = filtering(by_condition(step.where, parse_where(step.where, self._metrics, "keep:")))
        elif step.function is not None:
            apply = filtering(by_function(step.function))
        elif step.duplicates is not None:
            apply = Deduplication(step.duplicates).apply
        elif step.contaminated is not None:
            apply = filtering(Benchmarks(step.contaminated))
        else:
            assert step.best is not None, "a step is one of these"
            apply = BestOf(step.best, score_by(step.best.by, self._metrics), self._write_pair).apply
        return Stage(step.kind, plain, apply)

    def _write_pair(self, pair: dict[str, Any]) -> None:
        for file in self._pairs:
            _write(file, pair)
            self._num_pairs += 1


def refuse_unknown_names(keep: Keep, known: Iterable[str]) -> None:
    """Raises UsageError for a name in a condition that is no figure, and none of the known metrics and columns."""
    for step in keep:
        if step.where is not None:
            refuse_unknown(step.where, set(known), "keep:")


@dataclass
class _Counted:
    """A stage, and what it did; without one, what cannot go to any."""

    stage: Stage | None
    samples: int = 0
    removed: int = 0
    example: str | None = None

    def passed(self, samples: Iterable[Sample], file: IO[bytes], number: int) -> Iterator[Sample]:
        """What the stage lets through; the others are written with their reasons."""
        assert self.stage is not None, "samples pass through a stage"

        def remove(sample: Sample, reason: str) -> None:
            self.removed += 1
            self.example = self.example or reason
            place = {"id": sample.id, "index": sample.answered.index, "sample": sample.answered.sample}
            _write(file, {**place, "step": number, "kind": kind, "reason": reason, "row": handed(sample)})

        kind = self.stage.kind
        return self.stage.apply(self._counted(samples), remove)

    def report(self) -> KeepStage:
        assert self.stage is not None, "what is reported is a stage"
        example = {} if self.example is None else {"example": self.example}
        return KeepStage(
            kind=self.stage.kind, condition=self.stage.condition, samples=self.samples, removed=self.removed, **example
        )

    def _counted(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            self.samples += 1
            yield sample


def _whole(samples: Iterable[Sample], failed: _Counted) -> Iterator[Sample]:
    """The samples that were answered whole."""
    for sample in samples:
        failed.samples += 1
        if sample.state == "answered":
            yield sample
        else:
            failed.removed += 1


def _write(file: IO[bytes], row: dict[str, Any]) -> None:
    file.write(json_text(row).encode("utf-8") + b"\n")
