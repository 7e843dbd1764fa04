"""From a file of chats to another: other row format, other kind of file, and a word on what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from batchchat.chats import RowError, SourceRow
from batchchat.chats.formats import detect_format
from batchchat.chats.formats.conversion import convertible, put_together, take_apart
from batchchat.chats.json_text import json_text, loose_text
from batchchat.errors import BadRow, UsageError
from batchchat.recipe import Recipe
from batchchat.sources import Source, select
from batchchat.sources.from_recipe import open_recipe_source, read_options
from batchchat.store.directory import replacing
from batchchat.store.export import raw_value
from batchchat.store.row_files import Written, suffixes, write_rows

SAME = "same"
"""The format that leaves rows as they are, so that only the kind of the file changes."""


@dataclass
class Conversion:
    """What came of it. `lost` counts what the rows that were written do not say any more, with the first place of
    each; `refused` rows could not be written, of which `first` is one."""

    written: Written = field(default_factory=lambda: Written(0))
    lost: dict[str, tuple[int, str]] = field(default_factory=dict)
    refused: int = 0
    first: RowError | None = None


def errors_path(output: Path) -> Path:
    """Where the rows go that could not be written."""
    return output.with_name(f"{output.name.partition('.')[0]}.errors.jsonl")


def check_target(output: Path, to: str) -> None:
    """Raises UsageError for a file or a format that cannot be written."""
    suffixes(output)
    if to not in (SAME, *convertible()):
        raise UsageError(f"rows cannot be written as {to!r}; choose one of: {SAME}, {', '.join(convertible())}")


def convert(recipe: Recipe, output: Path, to: str) -> Conversion:
    """Write the rows of the recipe's `source` to `output`, in order and in one step, in the format `to`. Memory is
    bounded by a few rows. Raises UsageError where the input cannot be read or would be overwritten."""
    check_target(output, to)
    with open_recipe_source(recipe) as source:
        if output.exists() and any(Path(name).exists() and output.samefile(name) for name in source.files):
            raise UsageError(f"{output} is the input itself; name another file")
        with replacing(output) as file, replacing(errors_path(output)) as errors:
            converter = _Converter(recipe, source, to, errors)
            written = write_rows(file, output, converter.rows, source.types() if to == SAME else {})
            result = converter.result
            result.written = written
    if not result.refused:
        errors_path(output).unlink()
    return result


class _Converter:
    """Makes the rows anew each time that they are asked for; what was found counts from the last time."""

    def __init__(self, recipe: Recipe, source: Source, to: str, errors: IO[bytes]):
        self.result = Conversion()
        self._source = source
        self._section = recipe.source
        self._options = read_options(recipe)
        self._named = recipe.source.format
        self._to = to
        self._errors = errors
        self._formats: dict[str, str] = {}

    def _chosen(self) -> Iterator[SourceRow | RowError]:
        wanted = self._section
        return select(
            self._source.rows(), limit=wanted.limit, sample=wanted.sample, shuffle=wanted.shuffle, seed=wanted.seed
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        self.result = Conversion()
        self._errors.seek(0)
        self._errors.truncate()
        for item in self._chosen():
            if isinstance(item, RowError):
                self._refuse(item)
                continue
            try:
                row, lost = self._converted(item)
            except BadRow as error:
                raw = loose_text(item.data) if item.text is None else item.text
                self._refuse(RowError(item.number, item.place, str(error), raw))
                continue
            for what in dict.fromkeys(lost):
                count, first = self.result.lost.get(what, (0, str(item.place)))
                self.result.lost[what] = (count + 1, first)
            yield row

    def _converted(self, item: SourceRow) -> tuple[dict[str, Any], Sequence[str]]:
        name = self._format(item)
        if self._to in (SAME, name):
            return dict(item.exact), ()
        whole = take_apart(item, name, self._options)
        row, lost = put_together(whole, self._to)
        return row, [*whole.lost, *lost]

    def _format(self, item: SourceRow) -> str:
        """The format that is named, or that the first row of a file shows."""
        if self._named != "auto" or self._to == SAME:
            return self._named
        if item.place.file not in self._formats:
            self._formats[item.place.file] = detect_format(item.data, self._options)
        return self._formats[item.place.file]

    def _refuse(self, row: RowError) -> None:
        where = {"id": row.id, "index": row.number, "file": row.place.file, "line": row.place.line}
        line = {**where, "reason": row.reason, "row": raw_value(row.raw)}
        self._errors.write(json_text(line).encode("utf-8") + b"\n")
        self.result.refused += 1
        self.result.first = self.result.first or row
