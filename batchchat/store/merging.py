"""Run stores of shards, copied into one as if one run had written it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain, count
from pathlib import Path
from typing import Any

from batchchat.chats import Place
from batchchat.chats.formats.columns import made_up_id
from batchchat.errors import UsageError
from batchchat.store.database import RunStore, StoredRow
from batchchat.store.tables import checksum

NamesItself = Callable[[StoredRow], bool]
"""Whether a row says its own id, which then may not be another's."""


def merge_stores(target: Path, shards: Sequence[Path], names_itself: NamesItself) -> None:
    """Copy the rows, turns, errors and sessions of finished shards into a new store at `target`.

    An id that two shards gave is, as in one run, an error of the row that comes later in the input, where both rows say
    it of themselves; else that row gets another. Its answers were drawn by the seed of the id that it had in its shard.
    Raises UsageError where rows are missing.
    """
    RunStore(target).close()
    with closing(sqlite3.connect(target, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")  # a merge that is cut short is begun anew
        formats: dict[str, str] = {}
        twice: list[tuple[str, int]] = []
        for shard in shards:
            db.execute("ATTACH ? AS shard", (str(shard),))
            db.execute("BEGIN")
            db.execute("INSERT OR IGNORE INTO rows SELECT * FROM shard.rows ORDER BY idx")
            missed = "SELECT id, idx FROM shard.rows WHERE idx NOT IN (SELECT idx FROM main.rows)"
            twice += db.execute(missed).fetchall()
            db.execute(
                "INSERT INTO rows SELECT idx, number, file, line, NULL, format, data, samples, checksum "
                "FROM shard.rows WHERE idx NOT IN (SELECT idx FROM main.rows)"
            )
            db.execute("INSERT INTO turns SELECT * FROM shard.turns")
            db.execute("INSERT INTO errors SELECT * FROM shard.errors")
            db.execute(
                "INSERT INTO sessions(started, handed_out, completed, seconds) "
                "SELECT started, handed_out, completed, seconds FROM shard.sessions ORDER BY number"
            )
            db.execute("INSERT OR IGNORE INTO meta SELECT * FROM shard.meta WHERE key = 'tools'")
            told = db.execute("SELECT value FROM shard.meta WHERE key = 'formats'").fetchone()
            formats = {**(json.loads(told[0]) if told else {}), **formats}
            db.execute("COMMIT")
            db.execute("DETACH shard")
        db.execute("BEGIN")
        db.execute("INSERT OR REPLACE INTO meta VALUES('formats', ?)", (json.dumps(formats),))
        changed: set[int] = set()
        for id_, index in sorted(twice, key=lambda entry: entry[1]):
            changed |= _settle(db, id_, index, names_itself)
        for index in changed:
            row = _row(db, index)
            sum_ = checksum(row.id, row.format, row.raw)
            db.execute("UPDATE rows SET checksum = ? WHERE idx = ?", (sum_, index))
        found, last = db.execute("SELECT count(*), coalesce(max(idx) + 1, 0) FROM rows").fetchone()
        db.execute("COMMIT")
    if found != last:
        raise UsageError(
            f"the shards hold {found:,} rows, but the last of them is row {last:,} of the input: they were not all "
            "read from the same input to its end"
        )


def _settle(db: sqlite3.Connection, id_: str, index: int, names_itself: NamesItself) -> set[int]:
    """A row (`index`, stored without its id) and another have the same id: the later one is an error. Returns the
    rows that were changed."""
    other = db.execute("SELECT idx FROM rows WHERE id = ?", (id_,)).fetchone()[0]
    one, two = (_row(db, number) for number in sorted((other, index)))
    if not (names_itself(one) and names_itself(two)):
        other_id = _free_id(db, id_, two, names_itself)
        db.execute("UPDATE rows SET id = ? WHERE idx = ?", (other_id, two.index))
        db.execute("UPDATE rows SET id = ? WHERE idx = ?", (id_, one.index))
        return {one.index, two.index}
    db.execute("DELETE FROM turns WHERE idx = ?", (two.index,))
    db.execute("DELETE FROM errors WHERE idx = ?", (two.index,))
    db.execute("UPDATE rows SET id = NULL, format = NULL WHERE idx = ?", (two.index,))
    db.execute("UPDATE rows SET id = ? WHERE idx = ?", (id_, one.index))
    reason = "the id {!r} was given before, at {}"
    db.execute("INSERT INTO errors VALUES(?, -1, NULL, ?)", (two.index, reason.format(id_, one.place)))
    stale = (reason.format(id_, one.place), reason.format(id_, two.place))
    db.execute("UPDATE errors SET reason = ? WHERE reason = ?", stale)
    return {one.index, two.index}


def _free_id(db: sqlite3.Connection, taken: str, row: StoredRow, names_itself: NamesItself) -> str:
    """What a row is called whose id is another's by chance, as when rows are read."""
    id_ = taken if names_itself(row) else made_up_id(row.number)
    others = chain([id_], (f"{id_}-{number}" for number in count(2)))
    return next(one for one in others if not db.execute("SELECT 1 FROM rows WHERE id = ?", (one,)).fetchone())


def _row(db: sqlite3.Connection, index: int) -> StoredRow:
    query = "SELECT idx, number, file, line, id, format, data, samples FROM rows WHERE idx = ?"
    values: tuple[Any, ...] = db.execute(query, (index,)).fetchone()
    number, file, line, *rest = values[1:]
    return StoredRow(index, number, Place(file, line), *rest)
