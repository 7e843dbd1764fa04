"""`batchchat export`: the answers of a run as files that other tools read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    run: Annotated[str, typer.Argument(help="A run directory, finished or not, or a JSONL file of finished chats.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, or a folder for datasets (default: export.jsonl in the run)."),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="jsonl, parquet, csv or datasets; default by the output's ending.")
    ] = None,
    form: Annotated[
        str,
        typer.Option("--form", help="rows, table (one value a column), messages, prompt-completion, or preference."),
    ] = "rows",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="Only such samples: 'numeric < 0.5 and finish_reason != \"length\"'."),
    ] = None,
    samples: Annotated[
        Literal["all", "best"],
        typer.Option("--samples", help="Of several samples of a chat: all, or the best by --by."),
    ] = "all",
    by: Annotated[str | None, typer.Option("--by", help="The metric that tells best and worst.")] = None,
    columns: Annotated[str, typer.Option("--columns", help="Columns, comma-separated, with new=old to rename.")] = "",
    shard_rows: Annotated[int | None, typer.Option("--shard-rows", min=1, help="Rows of a file, at most.")] = None,
) -> None:
    """Write the answered samples of a run to JSON lines, Parquet, CSV or a datasets folder.

    An interrupted run gives what is done so far. `messages`, `prompt-completion` and `preference` are what TRL and
    axolotl read.
    """
    from batchchat.results import open_results
    from batchchat.results.exporting import Export
    from batchchat.results.files import kind_of, write_rows

    with open_results(run) as results:
        place = Path(run).expanduser()
        path = output or (place if place.is_dir() else place.parent) / f"export.{_ending(format_)}".rstrip(".")
        kind = kind_of(path, format_)
        named = [name.strip() for name in columns.split(",") if name.strip()]
        wanted = Export(results, "table" if kind == "csv" and form == "rows" else form, where or (), samples, by, named)
        count, files = write_rows(wanted.rows(), path, kind, shard_rows)
        for file in files:
            print(file)
        left = ", ".join(f"{number:,} {_STATES[state]}" for state, number in wanted.left_out.items())
        said = f"batchchat: {count:,} rows{f'; left out: {left} samples' if left else ''}"
        print(said, file=sys.stderr)
        if wanted.left_out["open"]:
            print(
                f"batchchat: the run is not finished; go on with: batchchat run {place / 'recipe.yaml'}",
                file=sys.stderr,
            )


_STATES = {"open": "not answered yet", "failed": "failed", "not wanted": "not wanted by --where"}


def _ending(format_: str | None) -> str:
    return "" if format_ == "datasets" else format_ or "jsonl"
