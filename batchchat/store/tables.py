"""The tables of a run store, and whether a file holds just these."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from batchchat.store.damage import damaged, foreign, of_another_version

_APPLICATION = 0x62636874
_FORMAT = 2
"""Raised with every change of the tables or of what they hold."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
-- One source row. `format` is NULL where the row could not be read; `data` is then its raw text.
CREATE TABLE rows(
  idx INTEGER PRIMARY KEY, number INTEGER NOT NULL, file TEXT NOT NULL, line INTEGER NOT NULL,
  id TEXT UNIQUE, format TEXT, data TEXT NOT NULL, samples INTEGER NOT NULL, checksum INTEGER NOT NULL);
-- The rows whose answers are not complete.
CREATE TABLE pending(idx INTEGER PRIMARY KEY);
CREATE TABLE turns(
  idx INTEGER NOT NULL, sample INTEGER NOT NULL, turn INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL,
  queued REAL NOT NULL, started REAL NOT NULL, finished REAL NOT NULL, record TEXT NOT NULL,
  checksum INTEGER NOT NULL,
  PRIMARY KEY(idx, sample, turn));
-- The sample of a row that failed as a whole is -1, as a part of the key cannot be NULL.
CREATE TABLE errors(
  idx INTEGER NOT NULL, sample INTEGER NOT NULL, turn INTEGER, reason TEXT NOT NULL,
  PRIMARY KEY(idx, sample)) WITHOUT ROWID;
-- One process that worked on the run: how many requests it handed out and how many turns came back.
CREATE TABLE sessions(
  number INTEGER PRIMARY KEY, started TEXT NOT NULL, handed_out INTEGER NOT NULL DEFAULT 0,
  completed INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0);
COMMIT;
"""


_CHECKPOINT_PAGES = 8192
"""The write-ahead file is folded in every 32 MiB: each time costs two more synchronizations."""


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that makes the file and its tables where they are not there, and syncs each commit."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    is_new = check_tables(db, path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    if is_new:
        make_tables(db)
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also beside a process that writes."""
    # SQLite reads beside a writer by files next to the database; where none can be made, nobody writes either
    still = "" if os.access(path.parent, os.W_OK) else "&immutable=1"
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{still}", uri=True, isolation_level=None)
    check_tables(db, path)
    return db


def make_tables(db: sqlite3.Connection) -> None:
    """All of them in one step."""
    db.executescript(_SCHEMA)


def check_tables(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the database is new, without tables. Raises UsageError where it is no store of this format, whole."""
    found = _tables(db)
    if not found:
        return True
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    format_: int = db.execute("PRAGMA user_version").fetchone()[0]
    with closing(sqlite3.connect(":memory:")) as sound:
        make_tables(sound)
        expected = _tables(sound)
    if application != _APPLICATION:
        raise of_another_version(path, 1, _FORMAT) if expected.keys() <= found.keys() else foreign(path)
    if format_ != _FORMAT:
        raise of_another_version(path, format_, _FORMAT)
    unlike = [name for name, made in expected.items() if found.get(name) != made]
    if unlike:
        raise damaged(path, f"its table {unlike[0]} is gone or was changed")
    return False


def checksum(*texts: str | None) -> int:
    """Of texts that stand in one row: SQLite does not notice where a byte of them was changed."""
    return zlib.crc32("\0".join(text or "" for text in texts).encode("utf-8", "surrogatepass"))


def _tables(db: sqlite3.Connection) -> Mapping[str, str]:
    """The tables of a database, each with the statement that made it."""
    return dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
