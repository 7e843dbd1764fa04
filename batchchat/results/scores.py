"""The lines of a scores.jsonl by the sample that they are of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError

_AT_ONCE = 10_000


class ScoreLines:
    """Found by sample, in a database on the disk: a run may have more scores than memory holds."""

    def __init__(self, file: Path):
        """`file` need not exist: then nothing is scored. Raises UsageError where it cannot be read."""
        self._database = sqlite3.connect("", check_same_thread=False)  # a file that is gone when it is closed
        self._database.execute("CREATE TABLE lines (id BLOB, sample INTEGER, line TEXT)")
        if file.is_file():
            self._read(file)
        self._database.execute("CREATE INDEX by_sample ON lines (id, sample)")

    def of(self, chat_id: str, sample: int) -> tuple[Mapping[str, Any], ...]:
        """The lines of a sample, in their order."""
        query = "SELECT line FROM lines WHERE id = ? AND sample = ? ORDER BY rowid"
        return tuple(json.loads(line) for (line,) in self._database.execute(query, (_key(chat_id), sample)))

    def close(self) -> None:
        self._database.close()

    def _read(self, file: Path) -> None:
        with open(file, encoding="utf-8", newline="\n") as lines:
            rows = _rows(file, lines)
            while some := list(islice(rows, _AT_ONCE)):
                self._database.executemany("INSERT INTO lines VALUES (?, ?, ?)", some)


def _rows(file: Path, lines: Iterator[str]) -> Iterator[tuple[bytes, int, str]]:
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            yield _key(line["id"]), line["sample"], text
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file}:{number} is no score ({error}); score the run again: batchchat score") from error


def _key(chat_id: str) -> bytes:
    return chat_id.encode("utf-8", "surrogatepass")
