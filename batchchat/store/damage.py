"""What is said where a run store cannot be used: what is wrong, what is safe, and how to go on."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from batchchat.errors import BatchchatError, EnvironmentFault, UsageError

_DAMAGED = ("malformed", "not a database", "no such table", "no such column", "Could not decode")


def fault(error: sqlite3.Error, path: Path) -> BatchchatError:
    """What SQLite says of the store at `path`, in our words."""
    text, name = str(error), getattr(error, "sqlite_errorname", "")
    if any(sign in text for sign in _DAMAGED) or name.startswith("SQLITE_CORRUPT"):
        return damaged(path, text.partition(" with text")[0])
    if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and _is_full(path.parent)):
        return EnvironmentFault(
            f"the disk is full at {path.parent}: what was finished is kept; free some space and run the same command "
            "again"
        )
    if name.startswith("SQLITE_IOERR"):
        return EnvironmentFault(
            f"the run store {path} cannot be written ({text}): the disk, a quota or a limit on the size of files "
            "(ulimit -f) ends there; what was finished is kept, so make room and run the same command again"
        )
    return EnvironmentFault(f"the run store {path} cannot be used: {text}; check the disk and the permissions")


def damaged(path: Path, why: str) -> UsageError:
    """The store holds what it never wrote, or lacks what it wrote."""
    return UsageError(
        f"the run store {path} is damaged ({why}); files that were exported beside it are as they were, "
        f"`sqlite3 {path} .recover` shows what can be read; {_anew(path)}"
    )


def foreign(path: Path) -> UsageError:
    return UsageError(f"{path} is not a run store of batchchat, and is left as it is; {_anew(path)}")


def of_another_version(path: Path, theirs: int, ours: int) -> UsageError:
    return UsageError(
        f"the run store {path} has format {theirs}, and this batchchat reads format {ours}: finish the run with the "
        f"version that the manifest beside it names; files that were exported are as they were; {_anew(path)}"
    )


def lost(path: Path) -> UsageError:
    """There is a manifest and no store."""
    return UsageError(
        f"{path.parent} holds a run whose store {path.name} is gone or empty, so there is nothing to continue; files "
        f"that were exported are as they were; {_anew(path)}"
    )


def _anew(path: Path) -> str:
    if path.parent.parent.name == "judges":
        return f"to ask this judge anew, move {path.parent} away and run the same command again"
    return "begin anew with --restart, which keeps this directory under another name"


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free == 0
    except OSError:
        return False
