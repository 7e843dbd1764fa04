"""What the viewer's table shows and filters: a few figures of every chat, by column, in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.results import Sample
from batchchat.viewer.aligned import Aligned, same_answer, same_question

PREVIEW = 140
"""Characters of a text in the table."""
_LOOKED_AT = 4 * PREVIEW
_MOST_COLUMNS = 24
_RUN = ("state", "finish", "answer", "tokens", "prompt_tokens", "characters", "tool_calls", "changed", "asked_else")


class Block:
    """The table's figures of some chats, one list for each column. All lists are of equal length."""

    def __init__(self, num_runs: int):
        self.count = 0
        self.open = 0
        self._common: dict[str, list[Any]] = {"id": [], "sample": [], "index": [], "question": [], "chunk": []}
        self._columns: dict[str, list[Any]] = {}
        self._runs: list[dict[str, list[Any]]] = [{name: [] for name in _RUN} for _ in range(num_runs)]
        self._scores: list[dict[str, list[Any]]] = [{} for _ in range(num_runs)]

    def add(self, found: Aligned, chunk: int) -> None:
        """One chat, whose body lies in the chunk of this number."""
        leading = next(sample for sample in found if sample is not None)
        answered = leading.answered
        common = (answered.id, answered.sample, answered.index, preview(leading.question), chunk)
        for values, value in zip(self._common.values(), common, strict=True):
            values.append(value)
        self._put(self._columns, scalars(answered.columns))
        for place, sample in enumerate(found):
            for name, value in zip(_RUN, _figures(sample, found, leading), strict=True):
                self._runs[place][name].append(value)
            self._put(self._scores[place], {} if sample is None else sample.means)
        self.count += 1
        self.open += any(sample is not None and sample.state == "open" for sample in found)

    def as_dict(self) -> dict[str, Any]:
        runs = [{**run, "scores": scores} for run, scores in zip(self._runs, self._scores, strict=True)]
        return {"count": self.count, "open": self.open, **self._common, "columns": self._columns, "runs": runs}

    def _put(self, columns: dict[str, list[Any]], values: Mapping[str, Any]) -> None:
        """Append a value to each column; columns that are new, or that this chat lacks, get nulls."""
        for name, value in values.items():
            columns.setdefault(name, [None] * self.count).append(value)
        for name in columns.keys() - values.keys():
            columns[name].append(None)


def preview(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[:_LOOKED_AT].split())
    return line if len(line) <= PREVIEW and len(text) <= _LOOKED_AT else line[:PREVIEW] + "…"


def scalars(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The row's own columns that hold one short value each."""
    found: dict[str, Any] = {}
    for name, value in columns.items():
        if isinstance(value, str):
            found[name] = preview(value)
        elif isinstance(value, bool | int | float) and name != "batchchat":
            found[name] = value if abs(value) < 2**53 else str(value)
        if len(found) == _MOST_COLUMNS:
            break
    return found


def _figures(sample: Sample | None, found: Aligned, leading: Sample) -> tuple[Any, ...]:
    if sample is None:
        return ("absent", None, "", None, None, None, None, 1, 0)
    text = sample.answer
    said = text or (sample.reason or "")
    changed = 0 if sample is found[0] else int(not same_answer(found[0], sample))
    return (
        sample.state,
        sample.finish_reason if sample.state != "failed" else "error",
        preview(said),
        sample.tokens("completion_tokens"),
        sample.tokens("prompt_tokens"),
        len(text) if sample.answered.answers else None,
        sample.num_tool_calls,
        changed,
        int(not same_question(leading, sample)),
    )
