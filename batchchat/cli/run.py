"""`batchchat run`: do the whole job."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchchat.cli.arguments import Overrides, RecipeName

if TYPE_CHECKING:
    from batchchat.reporting.report import Report


def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew; an earlier run's directory is moved aside.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try the rows of errors.jsonl again, and keep everything else."),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON to standard output, and nothing else.")
    ] = False,
    show: Annotated[int, typer.Option("--show", min=0, help="Print so many answered chats at the end.")] = 0,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the gates to this file as JUnit XML.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    max_runs: Annotated[int, typer.Option("--max-runs", min=1, help="How many runs a recipe's matrix may make.")] = 100,
) -> None:
    """Answer every chat of a recipe's input. The same command goes on where an interrupted run stopped."""
    from batchchat.cli.interrupts import Terminated, terminable
    from batchchat.cli.logs import log_to_stderr
    from batchchat.cli.publishing import publish_report
    from batchchat.errors import UsageError
    from batchchat.recipe import load_recipe
    from batchchat.reporting.terminal import complain, print_json

    if restart and retry_failed:
        raise UsageError("--restart begins anew and --retry-failed keeps what there is; leave one of them out")
    loaded = load_recipe(recipe, overrides or [])
    log_to_stderr(quiet)
    command = ["batchchat", *sys.argv[1:]]
    if loaded.matrix:
        if show or junit is not None:
            raise UsageError("--show and --junit are of one run, and the recipe has a matrix; leave them out")
        from batchchat.cli.matrix import run_all

        run_all(loaded, command, restart, retry_failed, quiet, max_runs, json_)
        return
    try:
        with terminable():
            from batchchat.job.finished import finished_run
            from batchchat.launch.devices import is_idle_rank
            from batchchat.models.group import is_follower

            if is_follower(loaded.model):
                from batchchat.job.run import follow

                follow(loaded)
                raise typer.Exit
            if is_idle_rank():
                raise typer.Exit  # the first process starts the replicas
            result = None if restart or retry_failed else finished_run(loaded)
            if result is None:  # only then what answers is imported
                from batchchat.models.lean import import_lean

                import_lean(loaded)
                from batchchat.job.run import run as run_recipe

                result = run_recipe(loaded, restart=restart, retry_failed=retry_failed, command=command, quiet=quiet)
    except KeyboardInterrupt as interrupt:
        again = shlex.join(part for part in command if part not in ("--restart", "--retry-failed"))
        complain(f"stopped; what was finished is kept. Go on with: {again}")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    if json_:
        from batchchat.reporting.escape import one_line
        from batchchat.reporting.tables import failure_lines

        print_json(result.report.as_dict())
        for line in failure_lines(result.report):
            print(one_line(f"failed: {line}"), file=sys.stderr)
    else:
        _print_summary(result.report, show)
    publish_report(result.report, junit)
    if result.exit_code == 3:
        rows = result.report.rows
        complain(
            f"{rows.failed} of {rows.in_} rows failed, more than max_error_rate={loaded.max_error_rate:g} allows; "
            f"read {result.directory / 'errors.jsonl'}"
        )
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _print_summary(report: Report, show: int) -> None:
    from batchchat.cli.summary import print_chats, print_report
    from batchchat.reporting.terminal import Terminal

    console = Terminal()
    if show:
        print_chats(console, report, show)
    print_report(console, report)
