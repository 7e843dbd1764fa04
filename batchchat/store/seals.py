"""What a finished run knows of its files: the hash of each, so that one that was changed is found and made anew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batchchat.store.database import RunStore

_KEY = "files"


def seal(store: RunStore, files: Iterable[Path], anew: str | None = None) -> None:
    """Remember the files as they are now, and forget earlier ones whose names begin with `anew`."""
    known = {name: facts for name, facts in sealed(store).items() if anew is None or not name.startswith(anew)}
    place = store.path.parent
    made = {file.relative_to(place).as_posix(): {**_stamp(file), "sha256": _hash(file)} for file in files}
    store.set_meta(_KEY, {**known, **made})


def sealed(store: RunStore) -> dict[str, Any]:
    """The files that are known, by their names in the run directory."""
    return store.meta(_KEY) or {}


def broken_seals(store: RunStore, files: Iterable[Path]) -> dict[Path, str]:
    """The files that are not as they were sealed, and what became of each. Only those that were written since are
    read."""
    known, place = sealed(store), store.path.parent
    found = {file: _fate(file, known.get(file.relative_to(place).as_posix())) for file in files}
    return {file: fate for file, fate in found.items() if fate is not None}


def _fate(file: Path, sealed: dict[str, Any] | None) -> str | None:
    if not file.is_file():
        return "is missing"
    stamp = _stamp(file)
    if sealed is None:
        return "is not known"
    if all(sealed[name] == value for name, value in stamp.items()):
        return None
    if stamp["bytes"] == sealed["bytes"] and _hash(file) == sealed["sha256"]:
        return None
    return "was changed" if stamp["bytes"] else "was emptied"


def _stamp(file: Path) -> dict[str, int]:
    """What every change of a file changes: a time of change cannot be set, unlike that of the last writing."""
    found = file.stat()
    return {"bytes": found.st_size, "written": found.st_mtime_ns, "changed": found.st_ctime_ns}


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
