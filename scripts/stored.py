"""What a run holds durably by now, read while it goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def num_turns(run: Path) -> int:
    """Answers in the store of a run directory; 0 where it is not there or being made."""
    try:
        with closing(sqlite3.connect(f"{(run.absolute() / 'run.sqlite').as_uri()}?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT count(*) FROM turns").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
