"""Runs of words that a sample shares with texts on which models are tested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchchat.chats import RowError
from batchchat.errors import UsageError
from batchchat.recipe.keeping import Contaminated
from batchchat.results.sample import Sample
from batchchat.scoring.base import column
from batchchat.selection.texts import text_of, words
from batchchat.sources import open_source


class Benchmarks:
    """The runs of words in the named files, by their hash of 64 bits: some 100 bytes each. Raises UsageError for files
    that cannot be read, that hold no text, or that lack the named columns."""

    def __init__(self, step: Contaminated):
        self._step = step
        self._text = text_of(step.of)
        self._places: list[str] = []
        self._runs: dict[int, int] = {}
        self._whole: dict[int, int] = {}
        with open_source(list(step.by)) as source:
            for item in source.rows():
                if isinstance(item, RowError):
                    raise UsageError(f"keep.contaminated.by: {item.place} cannot be read: {item.reason}")
                self._add(item.data, str(item.place))
        if not self._runs and not self._whole:
            where = f" in the columns {', '.join(step.columns)}" if step.columns else ""
            raise UsageError(f"keep.contaminated.by: {', '.join(step.by)} hold no text{where}; name others")

    def __call__(self, sample: Sample) -> str | None:
        """Why the sample is removed: the words that it shares, and with what. None for one that shares none."""
        said = words(self._text(sample))
        for run, key in self._keys(said):
            if key in self._runs:
                return f"these words of its {self._step.of} stand in {self._places[self._runs[key]]}: {run}"
        place = self._whole.get(hash(" ".join(said))) if said else None
        return None if place is None else f"its {self._step.of} is a text of {self._places[place]}"

    def _add(self, row: Mapping[str, Any], place: str) -> None:
        values = [column(row, name) for name in self._step.columns] or [row]
        for text in (text for value in values for text in _texts(value)):
            said = words(text)
            known = self._whole if len(said) < self._step.words else self._runs
            keys = [hash(" ".join(said))] if known is self._whole else [key for _, key in self._keys(said)]
            if said:
                for key in keys:
                    known.setdefault(key, len(self._places))
        self._places.append(place)

    def _keys(self, said: list[str]) -> Iterator[tuple[str, int]]:
        for start in range(len(said) - self._step.words + 1):
            run = " ".join(said[start : start + self._step.words])
            yield run, hash(run)


def _texts(value: Any) -> Iterator[str]:
    """All texts inside of a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inside in value.values():
            yield from _texts(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _texts(inside)
