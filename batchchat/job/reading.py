"""From source rows to chats: every row is kept in the store before anything is done with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count, islice
from typing import Any

from batchchat.chats import Chat, RowError, SourceRow
from batchchat.chats.formats import FORMATS, detect_format
from batchchat.chats.formats.columns import made_up_id, names_itself
from batchchat.chats.json_text import loose_text
from batchchat.errors import BadRow, UsageError
from batchchat.recipe import Recipe
from batchchat.sources import Source, select
from batchchat.sources.from_recipe import read_options
from batchchat.store import RunStore, StoredRow

log = logging.getLogger("batchchat")

NumSamples = Callable[[Chat], int]
"""How many answers a chat asks for; raises BadRow where its own settings are wrong."""


def expect_rows(source: Source, recipe: Recipe) -> None:
    """Warns of an input without a row. Raises UsageError where the recipe has gates, which would hold of nothing."""
    if source.count() or next(source.rows(), None) is not None:
        return
    empty = f"{', '.join(source.files)} holds no rows"
    if recipe.gates:
        raise UsageError(f"{empty}, so there is nothing for the gates to hold of; set source.path to one with chats")
    log.warning("%s, so there is nothing to answer", empty)


class ChatReader:
    """Reads the rows of a run, once: what the store already holds is passed over.

    `failed_rows` is told of each row that cannot become a chat.
    """

    def __init__(self, source: Source, recipe: Recipe, store: RunStore, num_samples: NumSamples):
        self._source = source
        self._recipe = recipe
        self._store = store
        self._num_samples = num_samples
        self.options = read_options(recipe, store.meta("tools"))
        self._formats: dict[str, str] = store.meta("formats") or {}

    def chats(self) -> Iterator[tuple[StoredRow, Chat]]:
        """The chats that still need answers: first those that the store holds, then those not yet read."""
        for row in self._store.open_rows():
            yield row, self.chat(row)
        known = self._store.next_index()
        number, count = self._recipe.source.part
        chosen = select(
            self._source.rows(),
            limit=self._recipe.source.limit,
            sample=self._recipe.source.sample,
            shuffle=self._recipe.source.shuffle,
            seed=self._recipe.source.seed,
        )
        for index, item in enumerate(islice(chosen, known, None), start=known):
            if index % count != number:
                self._pass_over(item)
                continue
            found = self._read(index, item)
            if found is not None:
                yield found

    def _pass_over(self, item: SourceRow | RowError) -> None:
        """A row of another shard: a file's first row says its format to all of them."""
        if isinstance(item, SourceRow):
            with suppress(BadRow):
                self._format(item)

    def chat(self, row: StoredRow) -> Chat:
        """The chat of a row that was read before."""
        return row.chat(self.options)

    def _read(self, index: int, item: SourceRow | RowError) -> tuple[StoredRow, Chat] | None:
        if isinstance(item, RowError):
            self._refuse(index, item, item.raw, item.reason)
            return None
        raw = loose_text(item.data) if item.text is None else item.text
        try:
            format_ = self._format(item)
            chat = FORMATS[format_].read(item, index, self.options)
            row = StoredRow(index, item.number, item.place, chat.id, format_, raw, self._num_samples(chat))
        except BadRow as error:
            self._refuse(index, item, raw, str(error))
            return None
        earlier = self._store.add_row(row)
        if earlier is None:
            return row, chat
        if self._names_itself(item.data, chat.id) and self._names_itself(self._row(chat.id).data, chat.id):
            self._refuse(index, item, raw, f"the id {chat.id!r} was given before, at {earlier}")
            return None
        chat = replace(chat, id=self._free_id(item, chat.id))
        row = replace(row, id=chat.id)
        self._store.add_row(row)
        return row, chat

    def _names_itself(self, data: Mapping[str, Any], id_: str) -> bool:
        return names_itself(data, id_, self.options)

    def _row(self, id_: str) -> StoredRow:
        row = self._store.row_by_id(id_)
        assert row is not None, "the store has just found it"
        return row

    def _free_id(self, item: SourceRow, taken: str) -> str:
        """Another id for a row whose own is taken by chance: by a made-up one, or because its column holds no ids."""
        id_ = taken if self._names_itself(item.data, taken) else made_up_id(item.number)
        others = chain([id_], (f"{id_}-{number}" for number in count(2)))
        return next(other for other in others if self._store.row_by_id(other) is None)

    def _refuse(self, index: int, item: SourceRow | RowError, raw: str, reason: str) -> None:
        samples = self._recipe.generation.samples
        with self._store.together():
            self._store.add_row(StoredRow(index, item.number, item.place, None, None, raw, samples))
            self._store.fail_row(index, reason)

    def _format(self, item: SourceRow) -> str:
        """The recipe's format, or the one detected on the file's first row that shows one."""
        named = self._recipe.source.format
        if named != "auto":
            return named
        if item.place.file not in self._formats:
            self._formats[item.place.file] = detect_format(item.data, self.options)
            self._store.set_meta("formats", self._formats)
        return self._formats[item.place.file]
