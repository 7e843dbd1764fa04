"""`batchchat run-batch`: a file of OpenAI Batch requests to a file of results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

_MORE = "Overrides such as engine.max_batch_rows=64 generation.seed=1; values are YAML."


def run_batch(
    requests: Annotated[Path, typer.Option("--input", "-i", help="Requests, one JSON object on each line.")],
    results: Annotated[Path, typer.Option("--output", "-o", help="Where the results go, in the same order.")],
    overrides: Annotated[list[str] | None, typer.Argument(help=_MORE)] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model that answers: a folder or hub id, or its name at the server."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="A server that answers, such as http://localhost:8000/v1.")
    ] = None,
    errors: Annotated[
        Path | None, typer.Option("--errors", help="The file of failed requests; by default beside the results.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew; an earlier run's directory is moved aside.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Answer a file of OpenAI Batch requests. The same command goes on where an interrupted one stopped."""
    from batchchat.cli.interrupts import Terminated, terminable
    from batchchat.cli.logs import log_to_stderr
    from batchchat.job.batch_file import BatchFiles, batch_recipe
    from batchchat.job.batch_file import run_batch as run_file

    files = BatchFiles.of(requests, results, errors)
    recipe = batch_recipe(files, model, endpoint, overrides or [])
    log_to_stderr(quiet)
    command = ["batchchat", *sys.argv[1:]]
    try:
        with terminable():
            result = run_file(recipe, files, restart=restart, command=command, quiet=quiet)
    except KeyboardInterrupt as interrupt:
        again = shlex.join(part for part in command if part != "--restart")
        print(f"\nbatchchat: stopped; what was finished is kept. Go on with: {again}", file=sys.stderr)
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    print(f"{result.answered:,} answered: {files.results}")
    if result.failed:
        print(f"{result.failed:,} failed: {files.errors}")
    if result.run.exit_code:
        raise typer.Exit(result.run.exit_code)
