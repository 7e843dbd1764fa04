"""From what the recipe calls a path to files and data sets."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from batchchat.errors import UsageError
from batchchat.plugins.tables import SOURCES
from batchchat.sources.data_sets import is_saved
from batchchat.sources.files import DataFile

CSV_SUFFIXES = (".csv", ".tsv")
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", *CSV_SUFFIXES)
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BUILTIN = "builtin:"


def data_suffix(name: str) -> str:
    """A file name's suffix without that of its compression: ".jsonl" for "chats.jsonl.gz"."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSED_SUFFIXES else path.suffix


def find(path: str) -> list[DataFile | Path | str]:
    """What a path stands for: data files, a folder that `datasets` saved (a Path), or a hub id (a str).

    Raises UsageError, saying what was looked for and what is there instead.
    """
    if path.startswith(_BUILTIN):
        from batchchat.plugins.builtin import builtin_sample

        return [DataFile(path, builtin_sample(path.removeprefix(_BUILTIN)))]
    if _shown(path) != path:
        raise UsageError(f"the name {_shown(path)} is not UTF-8: rename the file, or use a pattern such as *.jsonl")
    try:
        return _find(path, Path(path).expanduser())
    except PermissionError as error:
        raise UsageError(f"{error.filename or path} may not be read by this user: change its permissions") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be looked for: {error.strerror}") from None


def _find(path: str, here: Path) -> list[DataFile | Path | str]:
    if here.is_dir():
        return [here] if is_saved(here) else [*_in_folder(path, here)]
    if os.path.lexists(here):
        return [DataFile(path, here)]
    if glob.has_magic(path):
        matches = glob.glob(str(here), recursive=True)  # noqa: PTH207 - a pattern may begin at the root
        names = sorted(name for name in matches if not Path(name).is_dir())
        if not names:
            raise UsageError(f"no file matches {path}{_neighbours(here)}")
        return [DataFile(_shown(name), Path(name)) for name in names]
    if _HUB_ID.fullmatch(path) and data_suffix(path) not in DATA_SUFFIXES and not here.parent.exists():
        return [path]
    name, colon, rest = path.partition(":")
    near = SOURCES.nearest(name) if colon else None
    raise UsageError(f"there is no file {path}{_neighbours(here)}" + (f"; did you mean {near}:{rest}?" if near else ""))


def _in_folder(name: str, folder: Path) -> Iterator[DataFile]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    found = [file for file in files if data_suffix(file.name) in DATA_SUFFIXES]
    if not found:
        deeper = any(data_suffix(file.name) in DATA_SUFFIXES for file in folder.rglob("*"))
        hint = f'; name them as "{name.rstrip("/")}/**/*"' if deeper else ""
        raise UsageError(f"{name} is a folder without data files ({', '.join(DATA_SUFFIXES)}) directly in it{hint}")
    return (DataFile(_shown(str(Path(name) / file.name)), file) for file in found)


def _shown(name: str) -> str:
    """A file's name in messages and results: bytes of it that are not UTF-8 stand as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _neighbours(missing: Path) -> str:
    """What is there instead of a missing file: the names most like it, or the folder that is missing already."""
    folder = missing.parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        while not folder.parent.is_dir():
            folder = folder.parent
        return f": there is no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = get_close_matches(missing.name, names, 3, cutoff=0.5)
    where = "the current folder" if str(folder) == "." else str(folder)
    if near:
        return f"; {where} has {', '.join(near)}"
    shown = [name for name in names if data_suffix(name) in DATA_SUFFIXES][:5] or names[:5]
    return f"; {where} has {', '.join(shown)}" if shown else f"; {where} is empty"
