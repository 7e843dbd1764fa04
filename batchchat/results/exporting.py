"""An export from the samples of a run: which, in which form, under which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from batchchat.errors import UsageError
from batchchat.results.forms import FORMS, best_samples, preferences
from batchchat.results.opening import Results, columns_of
from batchchat.results.sample import Sample
from batchchat.results.where import Wanted, parse_where, refuse_unknown


@dataclass
class Export:
    """What is wanted of a run. `left_out` counts, while `rows` is read, the samples that are not in it, by state."""

    results: Results
    form: str = "rows"
    where: Sequence[str] = ()
    samples: Literal["all", "best"] = "all"
    by: str | None = None
    columns: Sequence[str] = ()
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot be exported, before anything is written."""
        if self.form not in (*FORMS, "preference"):
            raise UsageError(f"{self.form!r} is no form; say --form {', '.join([*FORMS, 'preference'])}")
        metrics = tuple(self._metrics())
        if self.by is not None and self.by not in metrics:
            known = ", ".join(metrics) or "none: score the run first with batchchat score"
            raise UsageError(f"--by {self.by} is no metric of {self.results.name}; it has {known}")
        if self.by is None and (self.form == "preference" or self.samples == "best"):
            if len(metrics) != 1:
                known = ", ".join(metrics) or "there is none"
                raise UsageError(f"say with --by which metric tells the best sample: {known}")
            self.by = metrics[0]
        self._wanted: list[Wanted] = []
        for text in self.where:
            self._wanted.append(parse_where(text, metrics))
            refuse_unknown(text, {*metrics, *columns_of(self.results)})
        self._names = dict(_renamed(one) for one in self.columns)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, in the order of the input."""
        found = self._samples()
        if self.samples == "best":
            assert self.by is not None, "the metric is known since the export was made"
            found = best_samples(found, self.by)
        if self.form == "preference":
            assert self.by is not None, "the metric is known since the export was made"
            rows: Iterator[dict[str, Any]] = preferences(found, self.by)
        else:
            rows = map(FORMS[self.form], found)
        return map(self._chosen, rows) if self._names else rows

    def _samples(self) -> Iterator[Sample]:
        self.left_out.clear()
        for sample in self.results:
            if sample.state != "answered":
                self.left_out[sample.state] += 1
            elif not all(wanted(sample) for wanted in self._wanted):
                self.left_out["not wanted"] += 1
            else:
                yield sample

    def _chosen(self, row: dict[str, Any]) -> dict[str, Any]:
        unknown = [name for name in self._names.values() if name not in row]
        if len(unknown) == len(self._names):
            raise UsageError(f"--columns names nothing that a row has; there are {', '.join(row)}")
        return {new: row.get(old) for new, old in self._names.items()}

    def _metrics(self) -> list[str]:
        report = self.results.report
        return list(report.scoring.metrics) if report is not None and report.scoring is not None else []


def _renamed(text: str) -> tuple[str, str]:
    """`new=old`, or a name that stays."""
    new, equal, old = text.partition("=")
    if not new or (equal and not old):
        raise UsageError(f"--columns {text!r} is neither a column nor new=old")
    return new, old or new
