"""The `sink` section: where the results go, and in which form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from batchchat.plugins.tables import WRITERS
from batchchat.recipe.open_section import OneOf, OpenSection
from batchchat.recipe.section import MAY_CHANGE, AsTuple, Text


class SinkSection(OpenSection):
    """Where the results go."""

    tables = (WRITERS,)
    options_may_change = True

    directory: Text = Field(
        default="runs/{name}",
        description="The run directory; {name} stands for the recipe's name.",
        json_schema_extra=MAY_CHANGE,
    )
    formats: Annotated[tuple[Annotated[str, OneOf(WRITERS)], ...], AsTuple, Field(min_length=1)] = Field(
        default=("jsonl",), description="Files that the answers are exported to.", json_schema_extra=MAY_CHANGE
    )
    timings: bool = Field(
        default=False,
        description="Add seconds per turn to each output row; off, so that equal runs give equal files byte for byte.",
        json_schema_extra=MAY_CHANGE,
    )

    publish: Text | None = Field(
        default=None,
        description="Copy the results to an address that fsspec knows, report.json last, and parts of sink.every as "
        "soon as they are there; {name} stands for the recipe's name. The run still lives in its directory. An address "
        "where another run's results lie is refused, unless the run is begun anew with --restart.",
        examples=["s3://bucket/runs/{name}"],
        json_schema_extra=MAY_CHANGE,
    )
    shards: int | None = Field(
        default=None,
        ge=1,
        description="Write the outputs in so many parts of like numbers of rows, in a folder outputs-FORMAT that "
        "datasets.load_dataset reads as one (Parquet has the same columns in all parts; of JSON lines, columns that "
        "are missing or null in a whole part may keep it from that); null is one file.",
        examples=[16],
        json_schema_extra=MAY_CHANGE,
    )
    every: int | None = Field(
        default=None,
        ge=1,
        description="Write a part of the outputs for every so many rows of the input, as soon as they and all before "
        "them are done: in a folder as with shards, in order. They are final, but are written once more at the end "
        "where late rows have other columns or types.",
        examples=[10000],
        json_schema_extra=MAY_CHANGE,
    )

    @classmethod
    def entries(cls, data: Mapping[str, Any]) -> Iterator[Any]:
        formats = data.get("formats")
        return iter(formats if isinstance(formats, list | tuple) else ())

    @field_validator("directory", "publish")
    @classmethod
    def _knows_its_placeholders(cls, place: str | None) -> str | None:
        unknown = [text for text in re.findall(r"\{[^{}]*\}?|\}", place or "") if text != "{name}"]
        if unknown:
            raise ValueError(f"holds {unknown[0]}, but {{name}} is the only placeholder; write runs/{{name}}")
        return place

    @field_validator("publish")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is not None and re.match(r"[a-z][a-z0-9+.-]*://.", address) is None:
            raise ValueError(f"is {address}, no address; write s3://bucket/{{name}}, or file:///folder/{{name}}")
        return address

    @field_validator("every")
    @classmethod
    def _is_one_way_to_make_parts(cls, every: int | None, info: ValidationInfo) -> int | None:
        if every is not None and info.data.get("shards") is not None:
            raise ValueError("makes parts of so many rows, and sink.shards so many parts; leave one of them out")
        return every

    @field_validator("formats")
    @classmethod
    def _names_each_once(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(formats)) < len(formats):
            raise ValueError(f"names a format twice: {', '.join(formats)}; write each once")
        return formats
