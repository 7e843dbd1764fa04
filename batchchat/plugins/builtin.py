"""Recipes, templates of prompts, and samples that come along: `builtin:NAME`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from batchchat.errors import UsageError

BUILTIN = "builtin:"
"""What a name begins with that means something that comes with batchchat."""

Kind = Literal["recipe", "template", "sample"]

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS: dict[Kind, tuple[Path, Path]] = {
    "recipe": (_PACKAGE / "_recipes", _PACKAGE.parent / "recipes"),
    "template": (_PACKAGE / "_recipes" / "templates", _PACKAGE.parent / "recipes" / "templates"),
    "sample": (_PACKAGE / "_samples", _PACKAGE.parent / "data" / "samples"),
}
"""Where they lie: inside an installed package, and in a checkout."""

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "recipe": (".yaml",),
    "template": (".txt",),
    "sample": (".jsonl", ".json", ".parquet", ".gz", ".bz2", ".xz", ".zst"),
}


def builtin_recipe(name: str) -> Path:
    """The file of a recipe: `quickstart` or `quickstart.yaml`. Raises UsageError for an unknown name."""
    return _find("recipe", name)


def builtin_template(name: str) -> Path:
    """The text file of a template: `user` or `user.txt`. Raises UsageError for an unknown name."""
    return _find("template", name)


def builtin_sample(name: str) -> Path:
    """The file of a sample: `chats` or `chats.jsonl`. Raises UsageError for an unknown name."""
    return _find("sample", name)


def builtin_names(kind: Kind) -> list[str]:
    """File names, sorted."""
    return [path.name for path in _files(kind)]


def _files(kind: Kind) -> list[Path]:
    folder = next((folder for folder in _FOLDERS[kind] if folder.is_dir()), None)
    if folder is None:
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES[kind])


def _find(kind: Kind, name: str) -> Path:
    files = _files(kind)
    found = [path for path in files if path.name == name] or [path for path in files if path.stem == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{BUILTIN}{name} may be {' or '.join(path.name for path in found)}; write the whole name")
    names = [path.name for path in files]
    near = difflib.get_close_matches(name, [*names, *(path.stem for path in files)], n=1)
    advice = f"did you mean {BUILTIN}{near[0]}? " if near else ""
    raise UsageError(
        f"no {kind} {BUILTIN}{name} comes with batchchat; {advice}There are: {', '.join(names) or '(none)'}"
    )
