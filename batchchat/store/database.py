"""The run store: one SQLite file with one writer that holds every row, every written turn and every error.

A transaction is committed before more work is handed to the engine, and the file is synchronized at each commit, so
a kill, a full disk or a power cut costs at most what was in flight.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from batchchat.chats import Chat, Place, SourceRow
from batchchat.chats.formats import FORMATS, ReadOptions
from batchchat.chats.json_text import encodable, loose_text
from batchchat.credentials import without_credentials
from batchchat.errors import BatchchatError
from batchchat.store.damage import damaged, fault
from batchchat.store.tables import checksum, open_reader, open_writer
from batchchat.store.totals import ToolTotals, Totals, UserTotals, tool_totals, user_totals

_WHOLE_ROW = -1

_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between reasons of one kind."""

_BY_MODELS = "finish_reason <> 'tool_result'"
"""Turns that a model wrote, and no tool."""

LAST = 2**62
"""Beyond every place in an input."""


@dataclass(frozen=True)
class StoredRow:
    """A row of the input as the store holds it. `data` is None where it could not be read (`raw` is its text)."""

    index: int
    number: int
    place: Place
    id: str | None
    format: str | None
    raw: str
    samples: int

    @cached_property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.raw)
        return data

    @property
    def source(self) -> SourceRow:
        """The row as it was read from its source."""
        return SourceRow(self.number, self.place, self.data, self.raw)

    def chat(self, options: ReadOptions) -> Chat:
        """The chat of the row, under the id that it got when it was read first."""
        assert self.format is not None, "a row that could not be read has no chat"
        chat = FORMATS[self.format].read(self.source, self.index, options)
        return chat if self.id is None or chat.id == self.id else replace(chat, id=self.id)


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One written turn: counts and seconds as columns, everything else (message, token ids, …) in `record`."""

    index: int
    sample: int
    turn: int
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    queued: float
    started: float
    finished: float
    record: Mapping[str, Any]


class RunStore:
    """Reads and writes one run's SQLite file. Not for use by two threads at once."""

    def __init__(self, path: Path, read_only: bool = False):
        """`read_only` neither makes the file nor changes it, even where another process writes to it meanwhile."""
        self.path = path
        self._session = 0
        self._handed_out = 0
        self._completed = 0
        self._fault: BatchchatError | None = None
        try:
            self._db = open_reader(path) if read_only else open_writer(path)
            self.num_done = self._num_done()
        except sqlite3.Error as error:
            raise fault(error, path) from error

    # --- what a run is about -------------------------------------------------------------------------------------

    def meta(self, key: str) -> Any:
        """The value last written under `key`, or None."""
        found = self._first("SELECT value FROM meta WHERE key = ?", (key,))
        try:
            return json.loads(found[0]) if found else None
        except ValueError as error:
            raise damaged(self.path, f"its entry '{key}' cannot be read: {error}") from error

    def set_meta(self, key: str, value: Any) -> None:
        self._write("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, loose_text(value)))

    def begin_session(self, started: str) -> None:
        """Count what this process does apart from those before it."""
        self._session = self._write("INSERT INTO sessions(started) VALUES(?)", (started,))
        self.commit()

    @property
    def started(self) -> int:
        """When the run began, in seconds since 1970; 0 before that."""
        found = self._one("SELECT min(started) FROM sessions")
        return int(datetime.fromisoformat(found).timestamp()) if found else 0

    # --- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written within is kept as a whole, or, where an interrupt or an error comes before its end, not at
        all: who is interrupted commits what there is."""
        counts = self.num_done, self._completed
        try:
            self._write("SAVEPOINT together")
            yield
            self._write("RELEASE together")
        except BaseException:
            self.num_done, self._completed = counts
            with suppress(sqlite3.Error):  # a fault ended the transaction
                self._db.execute("ROLLBACK TO together")
                self._db.execute("RELEASE together")
            raise

    def add_row(self, row: StoredRow) -> Place | None:
        """Keep a source row, not done yet. Returns the place of an earlier row with the same id, in which case nothing
        is written, or None."""
        values = (
            row.index, row.number, row.place.file, row.place.line, row.id, row.format, row.raw, row.samples,
            checksum(row.id, row.format, row.raw),
        )  # fmt: skip
        with self.together():
            try:
                self._write("INSERT INTO rows VALUES(?,?,?,?,?,?,?,?,?)", values)
            except sqlite3.IntegrityError:
                found = self._first("SELECT file, line FROM rows WHERE id = ?", (row.id,))
                if found is None:
                    raise
                return Place(*found)
            self._write("INSERT INTO pending VALUES(?)", (row.index,))
        return None

    def add_turn(self, turn: TurnRecord) -> None:
        self._completed += 1
        record = loose_text(turn.record)
        self._write(
            "INSERT INTO turns VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            (
                turn.index, turn.sample, turn.turn, turn.prompt_tokens, turn.completion_tokens, turn.finish_reason,
                turn.queued, turn.started, turn.finished, record, checksum(turn.finish_reason, record),
            ),
        )  # fmt: skip

    def add_error(self, index: int, sample: int, turn: int, reason: str) -> None:
        """A sample of the row failed at this turn."""
        self._write("INSERT INTO errors VALUES(?,?,?,?)", (index, sample, turn, _said(reason)))

    def fail_row(self, index: int, reason: str) -> None:
        """The row failed as a whole, before any sample of it was asked for; it is finished."""
        with self.together():
            self._write("INSERT INTO errors VALUES(?,?,NULL,?)", (index, _WHOLE_ROW, _said(reason)))
            self.finish_row(index)

    def finish_row(self, index: int) -> None:
        """Every sample of the row is answered or failed."""
        self._write("DELETE FROM pending WHERE idx = ?", (index,))
        self.num_done += 1

    def reopen_failed(self) -> tuple[int, int]:
        """Forget, in one transaction, the errors of all rows that could be read, and which parts are written, and open
        these rows again: their answers stay. Returns how many there are, and how many failed rows stay because they
        could not be read: their input has not changed."""
        self.commit()
        failed = "SELECT DISTINCT idx FROM errors JOIN rows USING(idx) WHERE format IS"
        count = [self._one(f"SELECT count(*) FROM ({failed} {what} NULL)") for what in ("NOT", "")]
        if count[0]:
            with self.together():
                self._write(f"INSERT OR IGNORE INTO pending {failed} NOT NULL")
                self._write(f"DELETE FROM errors WHERE idx IN ({failed} NOT NULL)")
                self._write("DELETE FROM meta WHERE key IN ('exported', 'evaluated', 'seen', 'parts')")
            self.commit()
            self.num_done = self._num_done()
        return count[0], count[1]

    def hand_out(self, count: int) -> None:
        """`count` requests are about to be given to the engine: what was done before is made durable first."""
        self._handed_out += count
        if self._db.in_transaction:
            self.commit()

    def commit(self, seconds: float | None = None) -> None:
        """Make everything written so far durable. `seconds` is how long this session has worked so far. Does nothing
        after a fault, which was raised when it came up."""
        if self._fault is not None:
            return
        try:
            if self._session:
                self._write(
                    "UPDATE sessions SET handed_out = ?, completed = ?, seconds = coalesce(?, seconds) "
                    "WHERE number = ?",
                    (self._handed_out, self._completed, seconds, self._session),
                )
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._broken(error) from error

    # --- reading -------------------------------------------------------------------------------------------------

    def next_index(self) -> int:
        """The place in the input where reading goes on."""
        return int(self._one("SELECT coalesce(max(idx) + 1, 0) FROM rows"))

    def done_before(self) -> int:
        """The place in the input before which every row that was to be read is done."""
        pending = self._one("SELECT min(idx) FROM pending")
        return self.next_index() if pending is None else int(pending)

    def num_rows(self) -> int:
        """How many rows of the input the store holds, good and bad."""
        return int(self._one("SELECT count(*) FROM rows"))

    def open_rows(self) -> Iterator[StoredRow]:
        """The rows whose answers are not complete, in input order."""
        ids = [found[0] for found in self._select("SELECT idx FROM pending ORDER BY idx")]
        for index in ids:
            yield from self.rows(index, index)

    def rows(self, first: int = 0, last: int = LAST) -> Iterator[StoredRow]:
        """The rows from `first` to `last` in input order."""
        query = (
            "SELECT idx, number, file, line, id, format, data, samples, checksum FROM rows "
            "WHERE idx BETWEEN ? AND ? ORDER BY idx"
        )
        for index, number, file, line, id_, format_, data, samples, sum_ in self._select(query, (first, last)):
            if sum_ != checksum(id_, format_, data):
                raise damaged(self.path, f"row {index} is not what was written")
            yield StoredRow(index, number, Place(file, line), id_, format_, data, samples)

    def row_by_id(self, id_: str) -> StoredRow | None:
        """The row of the chat with this id, if it is here."""
        found = self._first("SELECT idx FROM rows WHERE id = ?", (id_,))
        return next(self.rows(found[0], found[0])) if found else None

    def turns(self, index: int) -> dict[int, list[TurnRecord]]:
        """The written turns of a row, by sample, in order."""
        found: dict[int, list[TurnRecord]] = {}
        query = (
            "SELECT idx, sample, turn, prompt_tokens, completion_tokens, finish_reason, queued, started, finished, "
            "record, checksum FROM turns WHERE idx = ? ORDER BY sample, turn"
        )
        for *values, record, sum_ in self._select(query, (index,)):
            if sum_ != checksum(values[5], record):
                raise damaged(self.path, f"an answer of row {index} is not what was written")
            columns: tuple[Any, ...] = (*values, json.loads(record))
            turn = TurnRecord(*columns)
            found.setdefault(turn.sample, []).append(turn)
        return found

    def errors(self, index: int) -> dict[int | None, tuple[int | None, str]]:
        """The failed samples of a row: sample to turn and reason, all None but the reason where the row failed as a
        whole."""
        query = "SELECT sample, turn, reason FROM errors WHERE idx = ? ORDER BY sample"
        found = self._select(query, (index,))
        return {None if sample == _WHOLE_ROW else sample: (turn, reason) for sample, turn, reason in found}

    def failures(self, most: int) -> list[tuple[int, str, Place]]:
        """The commonest reasons of failure, alike but for numbers and quoted texts: (errors, reason and place of the
        first one)."""
        kinds: dict[str, tuple[int, int, str]] = {}
        for count, first, reason in self._select("SELECT count(*), min(idx), reason FROM errors GROUP BY reason"):
            kind = _VARYING.sub("#", reason)
            known, *earliest = kinds.get(kind, (0, first, reason))
            kinds[kind] = (known + count, *min(earliest, [first, reason]))
        commonest = sorted(kinds.values(), key=lambda found: (-found[0], found[1]))[:most]
        return [(count, reason, next(self.rows(first, first)).place) for count, first, reason in commonest]

    def latencies(self, percentiles: tuple[float, ...]) -> dict[float, float] | None:
        """Seconds from entering the engine to the end of the answer, by percentile; None before the first turn."""
        count = self._one(f"SELECT count(*) FROM turns WHERE {_BY_MODELS}")
        if not count:
            return None
        query = f"SELECT finished - queued FROM turns WHERE {_BY_MODELS} ORDER BY 1 LIMIT 1 OFFSET ?"
        return {p: self._one(query, (min(count - 1, int(p / 100 * count)),)) for p in percentiles}

    def lengths(self) -> tuple[dict[int, int], dict[int, int]]:
        """By number of tokens, how many prompts and how many answers have that length."""
        query = f"SELECT {{}}, count(*) FROM turns WHERE {_BY_MODELS} GROUP BY 1"
        prompts = self._db.execute(query.format("prompt_tokens")).fetchall()
        answers = self._db.execute(query.format("completion_tokens")).fetchall()
        return dict(prompts), dict(answers)

    def totals(self) -> Totals:
        """Counts over all sessions."""
        rows = self.num_rows()
        turns, prompt, completion = self._first(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM turns"
        )
        failed = self._one("SELECT count(DISTINCT idx) FROM errors")
        failed_samples = self._one(
            "SELECT coalesce(sum(CASE sample WHEN ? THEN rows.samples ELSE 1 END), 0) FROM errors JOIN rows USING(idx)",
            (_WHOLE_ROW,),
        )
        wanted = self._one("SELECT coalesce(sum(samples), 0) FROM rows WHERE idx NOT IN (SELECT idx FROM pending)")
        return Totals(
            rows=rows,
            rows_done=self.num_done,
            rows_failed=failed,
            samples_answered=wanted - failed_samples,
            samples_failed=failed_samples,
            turns=turns,
            prompt_tokens=prompt,
            completion_tokens=completion,
            finish_reasons=dict(self._select("SELECT finish_reason, count(*) FROM turns GROUP BY 1 ORDER BY 1")),
            sessions=[
                {"started": started, "handed_out": handed, "completed": completed, "seconds": round(seconds, 3)}
                for started, handed, completed, seconds in self._select(
                    "SELECT started, handed_out, completed, seconds FROM sessions ORDER BY number"
                )
            ],
        )

    def user_totals(self) -> UserTotals:
        """Counts of a simulated user's turns."""
        return user_totals(self._select)

    def tool_totals(self) -> Mapping[str, ToolTotals]:
        """By name, counts of the tools that were run."""
        return tool_totals(self._select)

    def close(self) -> None:
        """Commit and close; the write-ahead file is folded in."""
        try:
            self.commit()
        finally:
            self._db.close()

    def _select(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[Any]:
        try:
            for row in self._db.execute(query, values):  # noqa: UP028 - which closes the cursor, in a closed store too
                yield row
        except sqlite3.Error as error:
            raise fault(error, self.path) from error

    def _first(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        return next(self._select(query, values), None)

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        return self._first(query, values)[0]

    def _num_done(self) -> int:
        return self.num_rows() - int(self._one("SELECT count(*) FROM pending"))

    def _write(self, statement: str, values: tuple[Any, ...] = ()) -> int:
        try:
            # SQLite itself knows whether a transaction is open, also where an interrupt came between two statements
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            return self._db.execute(statement, values).lastrowid or 0
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> BatchchatError:
        """The first fault of writing, which is what went wrong; those that follow from it say something else."""
        if self._fault is None:
            self._fault = fault(error, self.path)
        return self._fault


def _said(reason: str) -> str:
    """A reason as it may be kept."""
    return encodable(without_credentials(reason))
