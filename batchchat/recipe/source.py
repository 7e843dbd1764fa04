"""The `source` section: which rows are read, and what their columns mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from batchchat.plugins.tables import FORMATS, SOURCES
from batchchat.recipe.open_section import OneOf, OpenSection
from batchchat.recipe.section import MAY_CHANGE, Section, Text, Texts


class Columns(Section):
    """Names of the input's columns, where they differ from the usual ones of its format."""

    id: Text | None = Field(default=None, description="Column with the chat's id.", examples=["question_id"])
    messages: Text | None = Field(default=None, description="Column with the list of messages or turns.")
    prompt: Text | None = Field(default=None, description="Column with the one user turn.", examples=["question"])
    tools: Text | None = Field(default=None, description="Column with the list of tools.")
    system: Text | None = Field(default=None, description="Column with the system turn.")
    reference: Text | None = Field(default=None, description="Column with the reference answer.", examples=["answer"])


class SourceSection(OpenSection):
    """The chats that are to be answered."""

    tables = (FORMATS, SOURCES)

    path: Annotated[Texts, Field(min_length=1)] = Field(
        description='Input files: a path or glob, or a list of them; "-" is standard input, "builtin:NAME" a sample '
        "that comes with batchchat, anything else a datasets folder or a data set's hub id. A source before it says "
        'how it is read, where its name and content do not: "csv:-", or "NAME:ADDRESS" for one that a package adds.',
        examples=["chats.jsonl", ["data/*.jsonl.gz", "more.parquet"]],
    )
    format: Annotated[str, OneOf(FORMATS, besides=("auto",))] = Field(
        default="auto",
        description="The row format; auto is detected from each file's first row, among those that come along.",
    )
    columns: Columns = Columns()
    prompt_template: Text | None = Field(
        default=None,
        description="The user turn as a text with {column} placeholders; a brace itself is written twice.",
        examples=["Question: {question}\nAnswer:"],
    )
    split: Text | None = Field(
        default=None,
        description="Split of a data set, or of a folder whose files are named after splits.",
        examples=["test"],
    )
    subset: Text | None = Field(default=None, description="Configuration name of a hub data set.", examples=["main"])
    revision: Text | None = Field(default=None, description="Branch, tag or commit of a hub data set.")
    streaming: bool = Field(
        default=True,
        description="Read a hub data set as it arrives instead of downloading it first.",
        json_schema_extra=MAY_CHANGE,
    )
    limit: int | None = Field(
        default=None, ge=1, description="Only the first rows, counted after sample and shuffle.", examples=[100]
    )
    sample: int | None = Field(default=None, ge=1, description="Only this many rows, drawn by seed.", examples=[1000])
    shuffle: bool = Field(default=False, description="Take the rows in an order drawn by seed.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seed of sample and shuffle.")

    @classmethod
    def entries(cls, data: Mapping[str, Any]) -> Iterator[Any]:
        paths = data.get("path")
        for path in paths if isinstance(paths, list | tuple) else (paths,):
            if isinstance(path, str) and ":" in path:
                yield path.partition(":")[0]
        if data.get("format") != "auto":
            yield data.get("format")

    @field_validator("prompt_template")
    @classmethod
    def _agrees_with_format(cls, template: str | None, info: ValidationInfo) -> str | None:
        if template is None:
            return template
        if info.data.get("format") not in (None, "auto", "prompt"):
            raise ValueError(
                f"makes prompts from columns, but source.format is {info.data['format']}; write source.format: prompt"
            )
        columns = info.data.get("columns")
        if columns is not None and columns.prompt is not None:
            raise ValueError(
                f"makes the user turn, and so does source.columns.prompt ({columns.prompt}); leave one of them out"
            )
        return template
