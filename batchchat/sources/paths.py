"""From what the recipe calls a path to files and data sets."""

from __future__ import annotations

import glob
import os
import re
from difflib import get_close_matches
from pathlib import Path

from batchchat.errors import UsageError
from batchchat.plugins.tables import SOURCES
from batchchat.sources.data_sets import is_saved
from batchchat.sources.files import DataFile
from batchchat.sources.splits import choose_split, files_by_split

CSV_SUFFIXES = (".csv", ".tsv")
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", *CSV_SUFFIXES)
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

_NO_DATA = ("dataset_info.json", "dataset_infos.json")
"""What the hub keeps beside the data."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BUILTIN = "builtin:"


def data_suffix(name: str) -> str:
    """A file name's suffix without that of its compression: ".jsonl" for "chats.jsonl.gz"."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSED_SUFFIXES else path.suffix


def find(path: str, split: str | None = None) -> list[DataFile | Path | str]:
    """What a path stands for: data files, a folder that `datasets` saved (a Path), or a hub id (a str). Of a folder
    whose files are of several splits those of `split`.

    Raises UsageError, saying what was looked for and what is there instead.
    """
    if path.startswith(_BUILTIN):
        from batchchat.plugins.builtin import builtin_sample

        return [DataFile(path, builtin_sample(path.removeprefix(_BUILTIN)))]
    try:
        return _find(path, Path(path).expanduser(), split)
    except PermissionError as error:
        raise UsageError(f"{error.filename or path} may not be read by this user: change its permissions") from None


def _find(path: str, here: Path, split: str | None) -> list[DataFile | Path | str]:
    if here.is_dir():
        if is_saved(here):
            return [here]
        chosen = choose_split(path, files_in(path, here), split)
        return [DataFile(str(Path(path) / file), here / file) for file in chosen]
    if os.path.lexists(here):
        return [DataFile(path, here)]
    if glob.has_magic(path):
        matches = glob.glob(str(here), recursive=True)  # noqa: PTH207 - a pattern may begin at the root
        names = sorted(name for name in matches if not Path(name).is_dir())
        if not names:
            raise UsageError(f"no file matches {path}{_neighbours(here)}")
        return [DataFile(name, Path(name)) for name in names]
    if _HUB_ID.fullmatch(path) and data_suffix(path) not in DATA_SUFFIXES and not here.parent.exists():
        return [path]
    name, colon, rest = path.partition(":")
    near = SOURCES.nearest(name) if colon else None
    raise UsageError(f"there is no file {path}{_neighbours(here)}" + (f"; did you mean {near}:{rest}?" if near else ""))


def files_in(name: str, folder: Path) -> list[Path]:
    """The data files of a folder, as paths within it: those directly in it, or else, where their names tell splits,
    those deeper in it. Raises UsageError where there are none."""
    found = sorted(file for file in folder.iterdir() if _is_data(file))
    if found:
        return [file.relative_to(folder) for file in found]
    deeper = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if _is_data(file)]
    deeper = [file for file in deeper if not any(part.startswith(".") for part in file.parts)]
    if files_by_split(deeper):
        return deeper
    hint = f'; name them as "{name.rstrip("/")}/**/*"' if deeper else ""
    raise UsageError(f"{name} is a folder without data files ({', '.join(DATA_SUFFIXES)}) directly in it{hint}")


def _is_data(file: Path) -> bool:
    named = data_suffix(file.name) in DATA_SUFFIXES and file.name not in _NO_DATA and not file.name.startswith(".")
    return named and file.is_file()


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
