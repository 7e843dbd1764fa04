"""From source rows to chats: every row is kept in the store before anything is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from batchchat.chats import Chat, RowError, SourceRow
from batchchat.chats.formats import FORMATS, ReadOptions, detect_format
from batchchat.errors import BadRow
from batchchat.recipe import Recipe
from batchchat.sources import Source, open_source, select
from batchchat.store import RunStore, StoredRow
from batchchat.store.text import json_text

NumSamples = Callable[[Chat], int]
"""How many answers a chat asks for; raises BadRow where its own settings are wrong."""


class Intake:
    """Reads the rows of a run, once: what the store already holds is passed over.

    `failed_rows` is told of each row that cannot become a chat.
    """

    def __init__(self, source: Source, recipe: Recipe, store: RunStore, num_samples: NumSamples):
        self._source = source
        self._recipe = recipe
        self._store = store
        self._num_samples = num_samples
        self.options = read_options(recipe)
        self._formats: dict[str, str] = store.meta("formats") or {}

    def chats(self) -> Iterator[tuple[StoredRow, Chat]]:
        """The chats that still need answers: first those that the store holds, then those not yet read."""
        for row in self._store.open_rows():
            yield row, self.chat(row)
        known = self._store.num_rows()
        chosen = select(
            self._source.rows(),
            limit=self._recipe.source.limit,
            sample=self._recipe.source.sample,
            shuffle=self._recipe.source.shuffle,
            seed=self._recipe.source.seed,
        )
        for index, item in enumerate(islice(chosen, known, None), start=known):
            found = self._take_in(index, item)
            if found is not None:
                yield found

    def chat(self, row: StoredRow) -> Chat:
        """The chat of a row that was read before."""
        assert row.format is not None, "a row that could not be read has no chat"
        return FORMATS[row.format].read(SourceRow(row.number, row.place, row.data), row.index, self.options)

    def _take_in(self, index: int, item: SourceRow | RowError) -> tuple[StoredRow, Chat] | None:
        if isinstance(item, RowError):
            self._refuse(index, item, item.raw, item.reason)
            return None
        raw = json_text(item.data)
        try:
            format_ = self._format(item)
            chat = FORMATS[format_].read(item, index, self.options)
            row = StoredRow(index, item.number, item.place, chat.id, format_, raw, self._num_samples(chat))
        except BadRow as error:
            self._refuse(index, item, raw, str(error))
            return None
        earlier = self._store.add_row(row)
        if earlier is not None:
            self._refuse(index, item, raw, f"the id {chat.id!r} was given before, at {earlier}")
            return None
        return row, chat

    def _refuse(self, index: int, item: SourceRow | RowError, raw: str, reason: str) -> None:
        samples = self._recipe.generation.samples
        self._store.add_row(StoredRow(index, item.number, item.place, None, None, raw, samples))
        self._store.add_error(index, -1, None, reason)
        self._store.finish_row(index)

    def _format(self, item: SourceRow) -> str:
        """The recipe's format, or the one detected on the file's first row that shows one."""
        named = self._recipe.source.format
        if named != "auto":
            return named
        if item.place.file not in self._formats:
            self._formats[item.place.file] = detect_format(item.data, self.options)
            self._store.set_meta("formats", self._formats)
        return self._formats[item.place.file]


def read_options(recipe: Recipe) -> ReadOptions:
    """What the recipe says about reading rows, in the words of the formats."""
    columns = recipe.source.columns.model_dump(exclude_none=True)
    return ReadOptions(
        turns=recipe.chat.turns,
        prefill=recipe.chat.prefill,
        system=recipe.chat.system,
        columns=columns,
        prompt_template=recipe.source.prompt_template,
        own=recipe.source.options_of(recipe.source.format),
    )


def open_recipe_source(recipe: Recipe) -> Source:
    """The input that a recipe names. Raises UsageError where it cannot be read at all."""
    section = recipe.source
    return open_source(
        section.path,
        split=section.split,
        subset=section.subset,
        revision=section.revision,
        streaming=section.streaming,
        options=section.options_of,
    )
