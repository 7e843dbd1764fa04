"""The runs of a recipe's matrix, and the table that compares them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchchat.errors import UsageError
from batchchat.evaluation.comparing import RunComparison, compare_runs, load_run
from batchchat.job.finished import RunResult
from batchchat.recipe import Recipe
from batchchat.recipe.expansion import MOST_RUNS, Cell, expand
from batchchat.reporting.report import Report
from batchchat.store import RunDirectory

log = logging.getLogger("batchchat")

Row = Mapping[str, str]
"""A line of the table: column -> what stands there."""


@dataclass(frozen=True)
class MatrixResult:
    """The runs in their order. `comparison` is of all against the first; a text where they cannot be compared: why.
    `exit_code` is the first of theirs that is not 0."""

    cells: tuple[Cell, ...]
    results: tuple[RunResult, ...]
    comparison: RunComparison | str | None

    @property
    def exit_code(self) -> int:
        return next((result.exit_code for result in self.results if result.exit_code), 0)

    def table(self) -> list[Row]:
        """One line a run: its settings, what it answered, each metric with its interval and, from the second run on,
        the paired difference to the first, and its speed."""
        return [self._row(cell, result.report) for cell, result in zip(self.cells, self.results, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        comparison = self.comparison
        return {
            "runs": [
                {
                    "name": cell.recipe.name,
                    "settings": dict(cell.labels),
                    "directory": str(result.directory),
                    "rows": result.report.rows.as_dict(),
                    "metrics": {name: found.as_dict() for name, found in _metrics(result.report).items()},
                }
                for cell, result in zip(self.cells, self.results, strict=True)
            ],
            "table": [dict(row) for row in self.table()],
            "comparison": comparison.as_dict() if isinstance(comparison, RunComparison) else comparison,
        }

    def markdown(self) -> str:
        """The table as Markdown."""
        from batchchat.reporting.escape import markdown

        rows = self.table()
        lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        escaped = [[cell if cell == "---" else markdown(cell) for cell in line] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in escaped)

    def _row(self, cell: Cell, report: Report) -> dict[str, str]:
        row = {"run": cell.recipe.name, **cell.labels}
        row["answered"] = f"{report.rows.answered:,} of {report.rows.in_:,}"
        for name, found in _metrics(report).items():
            mean = "–" if found.mean is None else f"{found.mean:.4g}"
            interval = "" if found.low is None else f" [{found.low:.4g}, {found.high:.4g}]"
            row[name] = f"{mean}{interval}{self._against_first(cell.recipe.name, name)}"
        speed = report.session.generated_tokens_per_second
        row["tokens/s"] = "–" if speed is None else f"{speed:,.1f}"
        return row

    def _against_first(self, run: str, metric: str) -> str:
        if not isinstance(self.comparison, RunComparison):
            return ""
        one = next((one for one in self.comparison.against_first.get(run, ()) if one.metric == metric), None)
        if one is None:
            return ""
        gap = one.difference
        interval = "" if gap.low is None else f" [{gap.low:+.4g}, {gap.high:+.4g}]"
        return f", Δ {gap.value:+.4g}{interval}"


def run_matrix(recipe: Recipe, run: Callable[[Recipe], RunResult], most: int = MOST_RUNS) -> MatrixResult:
    """Run every combination one after the other, by `run`, and compare them. What is finished is not run again, so the
    same call goes on after a kill. The table lies as `NAME-matrix.md` and `.json` where the runs' directories are.

    Raises UsageError for more than `most` runs, before the first.
    """
    cells = expand(recipe, most)
    results = []
    for number, cell in enumerate(cells, start=1):
        log.info("run %d of %d: %s", number, len(cells), cell.recipe.name)
        results.append(run(cell.recipe))
    found = MatrixResult(tuple(cells), tuple(results), _compared(recipe, cells, results))
    place = RunDirectory(results[0].directory.parent)
    place.write(place.path / f"{recipe.name}-matrix.json", json.dumps(found.as_dict(), indent=2) + "\n")
    place.write(place.path / f"{recipe.name}-matrix.md", found.markdown())
    return found


def _compared(recipe: Recipe, cells: list[Cell], results: list[RunResult]) -> RunComparison | str | None:
    if not recipe.metrics or len(cells) < 2:
        return None
    try:
        runs = [load_run(cell.recipe.name, str(result.directory)) for cell, result in zip(cells, results, strict=True)]
        return compare_runs(runs, force=True)
    except UsageError as error:
        return f"the runs are not compared: {error}"


def _metrics(report: Report) -> Mapping[str, Any]:
    return {} if report.scoring is None else report.scoring.metrics
