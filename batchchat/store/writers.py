"""The formats of a run's outputs (`sink.formats`): one file of output rows each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from batchchat.chats.json_text import json_text
from batchchat.store.parquet import column_types, features_of, types_in, write_parquet


@dataclass(frozen=True)
class Outputs:
    """The output rows of a run."""

    rows: Callable[[], Iterator[dict[str, Any]]]
    """Every row in input order, made anew by each call: JSON values under the names of columns."""
    types: Mapping[str, Any]
    """Arrow types of the input's columns, as far as it has such."""
    shape: Mapping[str, Any] = field(default_factory=dict)
    """Of one part of several: columns and types that other parts have, and this one as far as its rows fit."""


@dataclass(frozen=True)
class Writer:
    """A format of outputs, in the file `outputs.NAME`.

    `write(file, outputs, options)` writes all rows and returns how many there were. The file is new, and takes its name
    when `write` returns; where that raises, an earlier file stays. `options` is the model of the format's own options,
    which become the section `sink.NAME` of the recipe.
    """

    write: Callable[[IO[bytes], Outputs, Any], int]
    options: type[Any] | None = None
    learn: Callable[[Outputs], Mapping[str, Any]] = lambda outputs: {}
    """The columns and types that hold all rows (`Outputs.shape` of every part); none where rows need none."""
    shape_of: Callable[[Path], Mapping[str, Any]] = lambda path: {}
    """Those of a part that is written."""
    features: Callable[[Mapping[str, Any]], list[Any]] | None = None
    """How a dataset's card names them; None where readers find out for themselves."""


def write_lines(file: IO[bytes], outputs: Outputs) -> int:
    """One JSON object on each line."""
    count = 0
    for row in outputs.rows():
        file.write(json_text(row).encode("utf-8") + b"\n")
        count += 1
    return count


JSONL = Writer(lambda file, outputs, _: write_lines(file, outputs))
PARQUET = Writer(
    lambda file, outputs, _: write_parquet(file, outputs.rows, outputs.types, outputs.shape),
    learn=lambda outputs: column_types(outputs.rows, outputs.types),
    shape_of=types_in,
    features=features_of,
)
