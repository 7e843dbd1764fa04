"""Output rows as Parquet: the types of the input's columns where it has some, else those that hold every value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from batchchat.chats.arrow import FREE_FORM, build_array, from_json
from batchchat.store.shapes import Shape

_CHUNK = 1000

OURS = "batchchat"
"""The column of what is known of the answers, whose type is the same in every file."""

Rows = Callable[[], Iterator[dict[str, Any]]]


def write_parquet(
    file: IO[bytes], rows: Rows, types: Mapping[str, Any], shape: Mapping[str, Any] = {}, facts: bool = True
) -> int:
    """Write `rows()` (called anew to learn the types and to write) to `file`; returns the count. Of a part of several,
    `shape` are the columns and types of the others, all of which it gets, as they are where its values fit.

    `types` are those of the input's columns, which are kept where their values still fit. Free-form objects, and
    whatever has no type that holds it exactly, are JSON text of the type `arrow.json`. Without `facts` there is no
    column of what is known of the answers.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(list(column_types(rows, shape or types, every=bool(shape), facts=facts).items()))
    converts = {field.name: from_json(field.type) for field in schema}
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in _chunks(rows()):
            arrays = [
                build_array([row.get(field.name) for row in chunk], field.type, converts[field.name])
                for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(chunk)
    return count


def facts_type() -> Any:
    """The type of `batchchat`, of which every part stands in every file: what is not known is null."""
    import pyarrow as pa

    whole = pa.int64()
    spelled = ("bytes", pa.list_(pa.uint8()))
    chosen = [("token_id", whole), ("token", pa.string()), spelled, ("logprob", pa.float64())]
    turn = [
        ("finish_reason", pa.string()),
        ("prompt_tokens", whole),
        ("completion_tokens", whole),
        ("seed", whole),
        ("raw", pa.string()),
        ("token_ids", pa.list_(whole)),
        ("cached_tokens", whole),
        ("reasoning_tokens", whole),
        ("structure", pa.string()),
        ("note", pa.string()),
        ("logprobs", pa.list_(pa.struct([*chosen, ("top", pa.list_(pa.struct(chosen)))]))),
        ("cut", pa.struct([("messages", whole), ("prompt_tokens", whole), ("new_tokens", whole)])),
        ("reference", pa.string()),
        ("seconds", pa.struct([("queued", pa.float64()), ("working", pa.float64())])),
    ]
    return pa.struct(
        [
            ("id", pa.string()),
            ("index", whole),
            ("sample", whole),
            ("turns", pa.list_(pa.struct(turn))),
            ("previous", pa.json_()),
        ]
    )


def types_in(path: Path) -> dict[str, Any]:
    """The columns of a file and their types."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    return dict(zip(schema.names, schema.types, strict=True))


def features_of(types: Mapping[str, Any]) -> list[Any]:
    """Columns and their types as `dataset_info.features` of a dataset's card."""
    import pyarrow as pa
    from datasets import DatasetInfo, Features
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    card = DatasetCardData()
    info = DatasetInfo(features=Features.from_arrow_schema(pa.schema(list(types.items()))))
    DatasetInfosDict(default=info).to_dataset_card_data(card)
    named: list[Any] = card["dataset_info"]["features"]
    return named


def column_types(rows: Rows, known: Mapping[str, Any], every: bool = False, facts: bool = True) -> dict[str, Any]:
    """The type of each column, `batchchat` last, the others in the order in which they appear; with `every` the known
    ones first, whether they appear or not. A first pass finds out which known types still fit; where one does not, a
    second one learns that column's type anew."""
    known = {**known, OURS: facts_type()} if facts else known
    shapes = {OURS: Shape()} if facts else {}
    if every:
        shapes |= {name: Shape(name in FREE_FORM) for name in known if name != OURS}
    misfits: set[str] = set()
    converts = {name: from_json(kind) for name, kind in known.items()}
    for chunk in _chunks(rows()):
        for name in _names(chunk):
            shape = shapes.setdefault(name, Shape(name in FREE_FORM))
            if name in known and name not in misfits:
                values = [row.get(name) for row in chunk]
                if not _fits(values, known[name], converts[name]):
                    misfits.add(name)
            elif name not in known:
                _add(shape, chunk, name)
    if misfits:
        for chunk in _chunks(rows()):
            for name in misfits:
                _add(shapes[name], chunk, name)
    kept = known.keys() - misfits
    if OURS in known:
        assert OURS in kept, "the type of batchchat knows every fact of a turn"
        shapes[OURS] = shapes.pop(OURS)
    return {name: known[name] if name in kept else shape.type() for name, shape in shapes.items()}


def _add(shape: Shape, chunk: list[dict[str, Any]], name: str) -> None:
    for row in chunk:
        shape.add(row.get(name))


def _fits(values: list[Any], kind: Any, convert: Any) -> bool:
    try:
        build_array(values, kind, convert)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return False
    return True


def _names(chunk: list[dict[str, Any]]) -> Iterable[str]:
    return dict.fromkeys(name for row in chunk for name in row)


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
