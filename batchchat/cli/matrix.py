"""What `batchchat run` does with a recipe that has a matrix."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from batchchat.job.matrix import MatrixResult
    from batchchat.recipe import Recipe


def run_all(
    recipe: Recipe, command: list[str], restart: bool, retry_failed: bool, quiet: bool, max_runs: int, json_: bool
) -> None:
    """Run them all, and print one table, or everything as JSON."""
    from batchchat.cli.interrupts import Terminated, terminable
    from batchchat.job.matrix import run_matrix
    from batchchat.job.run import run
    from batchchat.reporting.terminal import complain, print_json

    answer = partial(run, restart=restart, retry_failed=retry_failed, command=command, quiet=quiet)
    try:
        with terminable():
            found = run_matrix(recipe, answer, max_runs)
    except KeyboardInterrupt as interrupt:
        again = shlex.join(part for part in command if part not in ("--restart", "--retry-failed"))
        complain(f"stopped; what was finished is kept. Go on with: {again}")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    if json_:
        print_json(found.as_dict())
    else:
        _print(recipe.name, found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _print(name: str, found: MatrixResult) -> None:
    from rich.table import Table
    from rich.text import Text

    from batchchat.reporting.escape import one_line
    from batchchat.reporting.terminal import Terminal

    rows = found.table()
    table = Table(title=Text(one_line(f"{name}: {len(rows)} runs")), title_justify="left")
    for column in dict.fromkeys(column for row in rows for column in row):
        table.add_column(Text(one_line(column)), no_wrap=column == "run")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row.values()))
    console = Terminal()
    console.print(table)
    if isinstance(found.comparison, str):
        console.print(Text(one_line(found.comparison)))
    elif found.comparison is not None:
        console.print(Text("Δ is the paired difference to the first run, with its interval", style="dim"))
        for note in found.comparison.differences:
            console.print(Text(one_line(f"note: {note}"), style="yellow"))
    print(found.results[0].directory.parent / f"{name}-matrix.md")
