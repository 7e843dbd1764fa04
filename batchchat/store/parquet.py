"""Output rows as Parquet: one schema for rows that were never asked to agree on one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO, Any

from batchchat.store.text import json_text

_CHUNK = 1000
_MOST_FIELDS = 64
"""A struct with more fields than this (tool schemas, say) holds mostly nulls: JSON text says more in less space."""

JSON_COLUMN = {b"batchchat": b"json"}
"""The field metadata of a column whose values could not share one Arrow type and are stored as JSON text."""

Rows = Callable[[], Iterator[dict[str, Any]]]


def write_parquet(file: IO[bytes], rows: Rows) -> int:
    """Write `rows()` (called twice: once to learn the types, once to write) to `file`; returns the count.

    Keys that a struct's value lacks become null. Columns whose values do not fit one Arrow type are written as JSON
    text and say so in the field's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(rows())
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in _chunks(rows()):
            columns = {field.name: _values(chunk, field) for field in schema}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(chunk)
    return count


def _values(chunk: list[dict[str, Any]], field: Any) -> list[Any]:
    if field.metadata == JSON_COLUMN:
        return [json_text(row[field.name]) if field.name in row else None for row in chunk]
    return [row.get(field.name) for row in chunk]


def _schema(rows: Iterable[dict[str, Any]]) -> Any:
    import pyarrow as pa

    types: dict[str, Any] = {}
    for chunk in _chunks(rows):
        for name in dict.fromkeys(name for row in chunk for name in row):
            types[name] = _merged(types.get(name, pa.null()), [row.get(name) for row in chunk])
    return pa.schema(
        [
            pa.field(name, pa.string(), metadata=JSON_COLUMN) if found is None else pa.field(name, found)
            for name, found in types.items()
        ]
    )


def _merged(so_far: Any, values: list[Any]) -> Any:
    """The Arrow type that holds `values` and whatever had the type `so_far`; None where there is no such type."""
    import pyarrow as pa

    if so_far is None:
        return None
    try:
        found = pa.array(values).type
        both = [pa.schema([("column", so_far)]), pa.schema([("column", found)])]
        merged = pa.unify_schemas(both, promote_options="permissive").field(0).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError, TypeError):
        return None
    return merged if _writable(merged) else None


def _writable(kind: Any) -> bool:
    """Parquet has no struct without fields, and a wide one is mostly holes."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return 0 < kind.num_fields <= _MOST_FIELDS and all(
            _writable(kind.field(n).type) for n in range(kind.num_fields)
        )
    if pa.types.is_list(kind):
        return _writable(kind.value_type)
    return True


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
