"""The `source` section: which rows are read, and what their columns mean."""

from __future__ import annotations

import os
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


def _slurm_task() -> tuple[int, int]:
    """This task's number from 0, and the number of tasks, of a Slurm array job."""
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    found = [os.environ.get(name, "") for name in names]
    if not all(value.isdigit() for value in found):
        raise ValueError(
            f"is slurm, but {names[0]} and {names[1]} are not set: this is no task of an array job; start it with "
            "sbatch --array=0-7, or write source.shard: 0/8"
        )
    first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
    step = int(os.environ.get("SLURM_ARRAY_TASK_STEP", "1"))
    return (int(found[0]) - first) // step, int(found[1])


class SourceSection(OpenSection):
    """The chats that are to be answered."""

    tables = (FORMATS, SOURCES)

    path: Annotated[Texts, Field(min_length=1)] = Field(
        description='Input files: a path or glob, or a list of them; "-" is standard input, "builtin:NAME" a sample '
        'that comes with batchchat; "s3://…" and other addresses that fsspec knows are copied first; '
        "anything else is a datasets folder or a data set's hub id. A source before it says "
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
    prompt_files: Texts = Field(
        default=(),
        description="Text files with such a template each, in place of prompt_template: rows get them by turns. "
        "{prompt} is the column that plays this role. `builtin:NAME` comes along: evolve-deepen, evolve-broaden, "
        "evolve-constrain, questions.",
        examples=[["builtin:evolve-deepen", "mine.txt"]],
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

    shard: Annotated[str, Field(pattern=r"^(slurm|[0-9]{1,9}/[0-9]{1,9})$")] | None = Field(
        default=None,
        description="Only every n-th row from the i-th on, counted from 0: i/n is one of n runs that share the input, "
        "each in a folder of its own, which batchchat merge joins. slurm takes i and n from the array job that the run "
        "is a task of. Scores and gates are of the whole: merge computes them.",
        examples=["0/8"],
    )

    @field_validator("shard")
    @classmethod
    def _is_one_of_several(cls, shard: str | None) -> str | None:
        if shard is None:
            return None
        number, count = _slurm_task() if shard == "slurm" else map(int, shard.split("/"))
        if number >= count:
            raise ValueError(
                f"is {number}/{count}, but shards are counted from 0; write one of 0/{count} to {count - 1}/{count}"
                if count
                else f"is {number}/0, which is no part of anything; write 0/1 for the whole"
            )
        return f"{number}/{count}"

    @property
    def part(self) -> tuple[int, int]:
        """Which part of how many of the rows is read: `(0, 1)` is the whole."""
        if self.shard is None:
            return 0, 1
        number, count = self.shard.split("/")
        return int(number), int(count)

    @classmethod
    def entries(cls, data: Mapping[str, Any]) -> Iterator[Any]:
        paths = data.get("path")
        for path in paths if isinstance(paths, list | tuple) else (paths,):
            if isinstance(path, str) and ":" in path:
                yield path.partition(":")[0]
        if data.get("format") != "auto":
            yield data.get("format")

    @field_validator("prompt_files")
    @classmethod
    def _are_the_only_prompts(cls, files: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if files and info.data.get("format") not in (None, "auto", "prompt"):
            raise ValueError(
                f"make prompts from columns, but source.format is {info.data['format']}; write source.format: prompt"
            )
        if files and info.data.get("prompt_template") is not None:
            raise ValueError("make the user turn, and so does source.prompt_template; leave one of them out")
        return files

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
