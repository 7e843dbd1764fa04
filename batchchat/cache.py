"""What is found out once and kept for later processes, in files of the user's cache folder."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

_PATIENCE = 60.0
"""Seconds for which a process waits for what another one measures."""


def cache_file(name: str) -> Path:
    """A file of batchchat's in the user's cache folder (`XDG_CACHE_HOME`, or ~/.cache)."""
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "batchchat" / name


def read_cache(name: str) -> dict[str, Any]:
    """What a cache file holds; nothing where it is missing or broken: it is measured anew then."""
    try:
        found = json.loads(cache_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def changing_cache(name: str) -> Iterator[dict[str, Any]]:
    """What a cache file holds, to be changed and written while no other process changes it so. Where the system has no
    locks, the folder cannot be written, or another one stands still with the lock, it is as if there were no others."""
    path = cache_file(name)
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _lock(stack.enter_context(path.with_suffix(".lock").open("w")))
        except (ImportError, OSError):
            pass
        values = read_cache(name)
        yield values
        write_cache(name, values)


def _lock(file: IO[str]) -> None:
    """Wait for the lock of a file. Raises OSError after a minute, and ImportError where there are no locks."""
    import fcntl

    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def write_cache(name: str, values: dict[str, Any]) -> None:
    """Replace a cache file, whole or not at all. A folder that cannot be written costs the cache, never the run."""
    path = cache_file(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump(values, file, ensure_ascii=False, indent=1)
        Path(file.name).replace(path)
    except OSError:
        return
