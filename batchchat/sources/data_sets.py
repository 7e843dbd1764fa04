"""Data sets of the `datasets` library: folders that it saved, and data sets of the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchchat.errors import EnvironmentFault, UsageError
from batchchat.hub import is_out_of_reach
from batchchat.sources.arrow_rows import ArrowRows
from batchchat.sources.records import Item

_BATCH_ROWS = 256


class DatasetRows:
    """Rows of one split; a row's line is its number in the split, from 1. `about` is part of the fingerprint."""

    def __init__(self, name: str, dataset: Any, about: dict[str, Any], columns: Sequence[str] | None):
        self.name = name
        self._about = about
        if columns is not None:
            dataset = dataset.select_columns(list(columns))
        self._dataset = dataset
        self._features = dataset.features

    def rows(self, number: int) -> Iterator[Item]:
        line = 1
        try:
            # As Arrow has them: images and sounds stay the bytes that they are, JSON its text.
            for table in self._dataset.with_format("arrow").iter(_BATCH_ROWS):
                rows = ArrowRows(self.name, table.schema)
                for batch in table.to_batches():
                    yield from rows.items(batch, number, self.name, line)
                    number, line = number + batch.num_rows, line + batch.num_rows
        except (OSError, ConnectionError) as error:
            raise EnvironmentFault(
                f"{self.name} cannot be read beyond row {line - 1}: {error}; run it again"
            ) from error

    def fingerprint(self) -> dict[str, Any]:
        found = getattr(self._dataset, "_fingerprint", None)
        return {"path": self.name, **self._about, **({} if found is None else {"fingerprint": found})}

    def types(self) -> Mapping[str, Any] | None:
        return None if self._features is None else ArrowRows(self.name, self._features.arrow_schema).types

    def count(self) -> int | None:
        return getattr(self._dataset, "num_rows", None)


def is_saved(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote this folder."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def open_saved(name: str, folder: Path, *, split: str | None, columns: Sequence[str] | None) -> DatasetRows:
    """A folder that `datasets.save_to_disk` wrote. Raises UsageError."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{name} is a data set's folder that cannot be loaded: {error}") from None
    if not isinstance(found, dict) and split is not None and str(found.split) != split:
        has = "no splits" if found.split is None else f"the split {found.split}"
        raise UsageError(f"{name} has {has}, so remove source.split={split}")
    found, split = _split_of(name, found, split)
    return DatasetRows(name if split is None else f"{name}[{split}]", found, {"split": split}, columns)


def open_hub(
    name: str,
    *,
    split: str | None,
    subset: str | None,
    revision: str | None,
    streaming: bool,
    columns: Sequence[str] | None,
) -> DatasetRows:
    """A data set of the hub, read as it arrives (`streaming`) or downloaded first.

    Raises UsageError where there is no such data set, split or subset, EnvironmentFault where it cannot be reached.
    """
    import datasets

    with _explained(name):
        found = datasets.load_dataset(name, name=subset, split=split, revision=revision, streaming=streaming)
    found, split = _split_of(name, found, split)
    about = {"subset": subset, "split": split, "revision": revision}
    return DatasetRows(f"{name}[{split}]", found, about, columns)


def hub_splits(name: str, subset: str | None) -> list[str]:
    """The splits of a data set of the hub. Raises as `open_hub` does."""
    import datasets

    with _explained(name):
        return list(datasets.get_dataset_split_names(name, subset))


def require_in_reach(name: str, revision: str | None) -> None:
    """Raises EnvironmentFault where the hub cannot be asked for the data set `name`: the library alone would ask again
    for half a minute."""
    if is_out_of_reach(name, "README.md", revision, kind="dataset"):
        raise EnvironmentFault(
            f"{name} is no file here, and the hub cannot be asked for a data set of that name; set source.path to "
            "files, or connect (no HF_HUB_OFFLINE)"
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Within, what the library raises of the data set of the hub becomes one sentence."""
    import datasets

    try:
        yield
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UsageError(f"{name} is no file here and no data set of the hub: {error}") from None
    except (OSError, ConnectionError) as error:
        raise EnvironmentFault(
            f"{name} is no file here, and the hub cannot be asked for a data set of that name: {error}"
        ) from error
    except ValueError as error:  # an unknown split, subset or format, in the library's words
        raise UsageError(f"{name} cannot be loaded from the hub: {error}") from None


def _split_of(name: str, found: Any, split: str | None) -> tuple[Any, str | None]:
    """The data set of one split and its name: the one that was asked for, or the only one."""
    if not isinstance(found, dict):
        return found, split
    if split is None and len(found) == 1:
        split = next(iter(found))
    if split not in found:
        wrong = "has several splits" if split is None else f"has no split {split}"
        raise UsageError(f"{name} {wrong}: set source.split to one of {', '.join(found)}")
    return found[split], split
