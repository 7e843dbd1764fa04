"""Outputs in parts: folders of files that `datasets.load_dataset` reads as one, written at the end or on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from batchchat.plugins.tables import WRITERS
from batchchat.recipe import Recipe
from batchchat.recipe.dumping import to_yaml
from batchchat.store.database import RunStore
from batchchat.store.directory import RunDirectory, replacing
from batchchat.store.writers import Outputs, Writer

OutputsOf = Callable[[int, int], Iterator[dict[str, Any]]]
"""The output rows of the rows from one place in the input to another, both included."""

_CARD = """---
{head}---
Outputs of `{name}`, in the order of the input. `datasets.load_dataset` reads this folder as one.
"""


class Parts:
    """Files `outputs-FORMAT/part-NNNNN.FORMAT`, each whole from the moment that it is there.

    With `sink.every` a part is written as soon as all its rows, and those before them, are done, and once more at the
    end only where late rows have other columns; with `sink.shards` all are written at the end. A part of which no row
    was answered has no file.
    """

    def __init__(
        self,
        store: RunStore,
        directory: RunDirectory,
        recipe: Recipe,
        outputs_of: OutputsOf,
        types: Callable[[], Mapping[str, Any]],
        on_part: Callable[[Path], None],
    ):
        self._store = store
        self._directory = directory
        self._sink = recipe.sink
        self._name = recipe.name
        self._outputs_of = outputs_of
        self._types = types
        self._on_part = on_part
        self._mark = {"every": self._sink.every, "formats": sorted(self._sink.formats), "timings": self._sink.timings}
        self._looked_at = -1
        """How many rows were done when it was last looked whether a part is complete."""
        self._columns: dict[str, dict[str, Any]] = {}
        """By format, of all parts that are there."""
        self._number = self._resumed()

    def advance(self) -> None:
        """Write the parts whose rows are all done by now."""
        every = self._sink.every
        if every is None or self._store.num_done == self._looked_at:
            return
        self._looked_at = self._store.num_done
        while self._store.done_before() >= self._end(every):
            self._store.commit()  # what is on the disk is in the store
            for part in self._write(self._number, self._number * every, self._end(every) - 1):
                self._on_part(part)
            self._number += 1
            self._store.set_meta("parts", {**self._mark, "number": self._number})

    def begin_anew(self) -> None:
        """What earlier processes wrote counts no more."""
        self._clear()
        self._number = 0

    def finish(self) -> None:
        """Write what is left, when all rows are done."""
        rows = self._store.next_index()
        if self._sink.every is not None:
            self.advance()
            if self._number * self._sink.every < rows:
                self._write(self._number, self._number * self._sink.every, rows - 1)
            if not self._agree():
                self._write_all(rows, -(-rows // self._sink.every), self._sink.every)
        else:
            assert self._sink.shards is not None, "outputs in one file have no parts"
            self._write_all(rows, self._sink.shards, None)

    def _end(self, every: int) -> int:
        return (self._number + 1) * every

    def _resumed(self) -> int:
        """The number of the first part that an earlier process did not write."""
        earlier = self._store.meta("parts")
        if earlier is not None and {**earlier, "number": 0} == {**self._mark, "number": 0}:
            return int(earlier["number"])
        self._clear()
        return 0

    def _clear(self) -> None:
        for format_ in self._sink.formats:
            shutil.rmtree(self._directory.parts(format_), ignore_errors=True)
            self._columns.pop(format_, None)

    def _write_all(self, rows: int, count: int, every: int | None) -> None:
        """All parts, of one shape."""
        self._clear()
        whole = Outputs(lambda: self._outputs_of(0, rows - 1), self._types())
        shapes = {format_: WRITERS[format_].learn(whole) for format_ in self._sink.formats}
        for number in range(count):
            if every is None:
                first, last = number * rows // count, (number + 1) * rows // count - 1
            else:
                first, last = number * every, min(rows, (number + 1) * every) - 1
            self._write(number, first, last, shapes)

    def _write(self, number: int, first: int, last: int, shapes: Mapping[str, Mapping[str, Any]] = {}) -> list[Path]:
        """One part in every format; without `shapes` like the first part, where its rows fit in there. Returns the
        files that are there."""
        written = []
        for format_ in self._sink.formats:
            folder = self._directory.parts(format_)
            folder.mkdir(parents=True, exist_ok=True)
            if not self._card(format_).exists():
                self._write_card(format_)
            if next(self._outputs_of(first, last), None) is None:
                continue
            writer: Writer = WRITERS[format_]
            shape = shapes.get(format_)
            if shape is None:
                earlier = self._parts(format_)
                shape = writer.shape_of(earlier[0]) if earlier else {}
            outputs = Outputs(lambda: self._outputs_of(first, last), self._types(), shape)
            part = folder / f"part-{number:05}.{format_}"
            with replacing(part) as file:
                writer.write(file, outputs, self._sink.options_of(format_))
            self._name_columns(format_, part)
            written.append(part)
        return written

    def _name_columns(self, format_: str, part: Path) -> None:
        """Readers take the columns of the first part for those of all: where later ones have more, the card names
        them."""
        writer, known = WRITERS[format_], self._columns.get(format_)
        if writer.features is None:
            return
        shapes = [writer.shape_of(one) for one in (self._parts(format_) if known is None else [part])]
        known = dict(shapes[0] if known is None else known)
        columns = dict(known)
        for shape in shapes:
            columns |= {name: kind for name, kind in shape.items() if str(columns.get(name, "null")) == "null"}
        self._columns[format_] = columns
        if columns != known:
            self._write_card(format_, {"dataset_info": {"features": writer.features(columns)}})

    def _write_card(self, format_: str, more: Mapping[str, Any] = {}) -> None:
        files = [{"split": "train", "path": f"part-*.{format_}"}]
        head = {"configs": [{"config_name": "default", "data_files": files}], **more}
        self._directory.write(self._card(format_), _CARD.format(head=to_yaml(head), name=self._name))

    def _card(self, format_: str) -> Path:
        return self._directory.parts(format_) / "README.md"

    def _parts(self, format_: str) -> list[Path]:
        return sorted(self._directory.parts(format_).glob(f"part-*.{format_}"))

    def _agree(self) -> bool:
        """Whether the parts of each format have one and the same types: a late row may have had other values."""
        for format_ in self._sink.formats:
            shapes = [list(WRITERS[format_].shape_of(part).items()) for part in self._parts(format_)]
            if any(other != shapes[0] for other in shapes[1:]):
                return False
        return True
