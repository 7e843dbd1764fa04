"""The results in a run directory, as Python and notebooks want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchchat.results.exporting import Export
from batchchat.results.files import collected
from batchchat.results.forms import flat
from batchchat.results.opening import open_results

if TYPE_CHECKING:
    import datasets
    import pandas  # type: ignore[import-untyped]


class SavedResults:
    """What a run left in its directory. Everything is read from there when it is asked for."""

    directory: Path

    def rows(
        self, form: str = "rows", *, where: str | Sequence[str] = (), best_by: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """The answered samples in input order, as `batchchat export --form` gives them: whole `rows`, a flat `table`,
        `messages`, `prompt-completion`, or `preference` pairs. `where` are conditions on them; `best_by` is the metric
        by which one sample of each chat is kept, or pairs are made. Memory is bounded by a row.

        Raises UsageError for a form, condition or metric that the run does not have.
        """
        conditions = (where,) if isinstance(where, str) else where
        samples = "all" if best_by is None or form == "preference" else "best"
        with open_results(self.directory) as results:
            yield from Export(results, form, conditions, samples, best_by).rows()  # type: ignore[arg-type]

    def scores(self) -> Iterator[Mapping[str, Any]]:
        """The lines of scores.jsonl: one per answer and metric, with value and reason."""
        with open_results(self.directory) as results:
            for sample in results:
                yield from sample.scores

    def to_pandas(self) -> pandas.DataFrame:
        """One row per sample, failed ones too: question, answer, figures, `score.METRIC`, and the input's columns."""
        import pandas

        with open_results(self.directory) as results:
            return pandas.DataFrame(list(map(flat, results)))

    def dataset(
        self, form: str = "messages", *, where: str | Sequence[str] = (), best_by: str | None = None
    ) -> datasets.Dataset:
        """The same rows as a data set of the `datasets` library, ready for a trainer."""
        return collected(self.rows(form, where=where, best_by=best_by))
