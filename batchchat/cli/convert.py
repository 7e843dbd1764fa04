"""`batchchat convert`: a file of chats in another format, or of another kind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_MORE = "Overrides such as source.columns.id=key source.limit=10; values are YAML."


def convert(
    input_: Annotated[str, typer.Argument(metavar="IN", help="A file, glob or data set, as source.path names it.")],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="The file to write; its name says its kind: .jsonl, .json, .parquet, .csv."),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help=_MORE)] = None,
    to: Annotated[
        str,
        typer.Option("--to", help="Row format: openai, messages, sharegpt, turns, alpaca, prompt; same keeps it."),
    ] = "same",
    from_: Annotated[str, typer.Option("--from", help="Row format of the input; auto looks.")] = "auto",
) -> None:
    """Write chats in another row format or to another kind of file, and say what does not fit."""
    from batchchat.job.convert import check_target, errors_path
    from batchchat.job.convert import convert as convert_rows
    from batchchat.recipe import recipe_from_mapping

    check_target(output, to)
    recipe = recipe_from_mapping({"source": {"path": [input_], "format": from_}}, overrides or [])
    result = convert_rows(recipe, output, to)
    print(f"{result.written.rows:,} rows: {output}")
    if result.written.json_columns:
        names = ", ".join(result.written.json_columns)
        print(f"columns that hold JSON: {names}; they are read with source.csv.json_columns=[{names}]")
    if result.written.nulls:
        print(f"not kept in {result.written.nulls:,} values: null, which is an empty text now")
    for what, (count, place) in sorted(result.lost.items(), key=lambda item: -item[1][0]):
        print(f"not kept in {count:,} rows: {what} (first {place})")
    if result.first is not None:
        print(f"{result.refused:,} rows left out: {errors_path(output)}", file=sys.stderr)
        print(f"the first, {result.first.place}: {result.first.reason}", file=sys.stderr)
        raise typer.Exit(3)
