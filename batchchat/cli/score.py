"""`batchchat score`: score what was answered before."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

_MORE = "A recipe (default: the run's own), and overrides such as 'scoring=[exact]'; values are YAML."


def score(
    target: Annotated[str, typer.Argument(help="A run directory, or a JSONL file of finished chats.")],
    recipe_and_overrides: Annotated[
        list[str] | None, typer.Argument(help=_MORE, metavar="[RECIPE] [OVERRIDES]...")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON to standard output, and nothing else.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the gates to this file as JUnit XML.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score a finished run again, or answers that another tool wrote, without generating. Exits with 4 where a gate
    failed."""
    from batchchat.cli.interrupts import Terminated, terminable
    from batchchat.cli.logs import log_to_stderr
    from batchchat.cli.publishing import conclude
    from batchchat.reporting.terminal import complain

    recipe, overrides = recipe_and_overrides_of(recipe_and_overrides or [])
    log_to_stderr(quiet)
    try:
        with terminable():
            from batchchat.job.rescore import score as score_answers

            result = score_answers(target, recipe, overrides, quiet, ["batchchat", *sys.argv[1:]])
    except KeyboardInterrupt as interrupt:
        again = shlex.join(["batchchat", *sys.argv[1:]])
        complain(f"stopped; a judge's finished grades are kept. Go on with: {again}")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    conclude(result.report, result.exit_code, json_, junit)


def recipe_and_overrides_of(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The recipe, where the first argument is one and no override, and the overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], arguments[1:]
    return None, arguments
