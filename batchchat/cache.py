"""What is found out once and kept for later processes, in files of the user's cache folder."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


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
