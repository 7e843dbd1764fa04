"""The app and its commands. Importing a command imports nothing heavy: `--help` must be instant."""

from __future__ import annotations

from typing import Annotated

import typer

from batchchat.cli.bench import bench
from batchchat.cli.chat import chat
from batchchat.cli.check import check
from batchchat.cli.compare import compare
from batchchat.cli.convert import convert
from batchchat.cli.export import export
from batchchat.cli.init import init
from batchchat.cli.merge import merge
from batchchat.cli.pipeline import pipeline
from batchchat.cli.plan import plan
from batchchat.cli.publish import pack, push
from batchchat.cli.run import run
from batchchat.cli.run_batch import run_batch
from batchchat.cli.schema import schema
from batchchat.cli.score import score
from batchchat.cli.view import view
from batchchat.errors import EXIT_CODES
from batchchat.process import begin
from batchchat.version import __version__

_EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:<3}  {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Answer files of conversations with a language model, in batches that survive a kill.",
    epilog=_EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def batchchat(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Options before the command."""
    if context.invoked_subcommand != "bench":  # which begins the processes that it measures, each as is its own
        begin()


COMMANDS = (
    run, pipeline, run_batch, chat, merge, score, compare, view, export, pack, push, convert, check, plan, init, schema,
    bench,
)  # fmt: skip
for command in COMMANDS:
    app.command(command.__name__.replace("_", "-"), epilog=_EXIT_CODES)(command)
