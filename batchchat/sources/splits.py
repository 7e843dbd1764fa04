"""Splits of a folder of data files, told by the names that data sets give them: `test.jsonl`, `train/rows.csv`,
`data/validation-00000-of-00002.parquet`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from batchchat.errors import UsageError

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What stands in a name, and the split that it means."""

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")

_PICKED = ("test", "validation", "train")


def split_name(word: str) -> str:
    """The split that a word means: `dev` is `validation`; words of other splits are their names."""
    return _WORDS.get(word.lower(), word)


def split_of(file: Path) -> str | None:
    """The split of a file, by its path within the folder; None where its name tells of none."""
    shard = _SHARD.match(file.name)
    if shard is not None:
        return split_name(shard[1])
    for part in reversed(file.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _WORDS:
                return _WORDS[word]
    return None


def files_by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files of a folder by their split; those without one are left out."""
    found: dict[str, list[Path]] = {}
    for file in files:
        split = split_of(file)
        if split is not None:
            found.setdefault(split, []).append(file)
    return dict(sorted(found.items()))


def choose_split(name: str, files: Sequence[Path], split: str | None) -> list[Path]:
    """The files of a folder that are read: all of them where no two splits are told apart. `files` are paths within
    the folder `name`. Raises UsageError where the choice is open, and for a split that is not there."""
    splits = files_by_split(files)
    folder = name.rstrip("/")
    if split is None:
        if len(splits) < 2:
            return list(files)
        raise UsageError(
            f"{name} holds the splits {', '.join(splits)}: set source.split to one of them, or read them all as "
            f'"{folder}/**/*"'
        )
    chosen = splits.get(split_name(split))
    if chosen is None:
        has = f"the splits {', '.join(splits)}" if splits else "no splits, by the names of its files"
        raise UsageError(f"{name} has {has}, and not {split}: change source.split, or leave it out")
    sets = sorted({_without_split(file) for file in chosen})
    if len(sets) > 1:
        raise UsageError(
            f"{name} holds several data sets with a split {split} ({', '.join(sets)}): name one of them, such as "
            f"{folder}/{sets[-1]}"
        )
    return chosen


def pick_split(splits: Sequence[str]) -> str:
    """Of several splits the one that models are tried on, where there is such a one."""
    return next((split for kind in _PICKED for split in splits if split_of(Path(split)) == kind), splits[0])


def _without_split(file: Path) -> str:
    """The folders of a file that are no split's: those of one data set are equal."""
    return "/".join(part for part in file.parent.parts if split_of(Path(part)) is None) or "."
