"""`batchchat view`: read the chats of runs in a browser."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from batchchat.results.opening import RunResults as RunResultsType


def view(
    runs: Annotated[
        list[str], typer.Argument(help="Run directories, finished or not, or JSONL files of finished chats.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the page is written.")] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on this machine's loopback; it follows a run that goes on.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of --serve; 0 takes a free one.")] = 0,
) -> None:
    """Write a page with the chats of one run, or of several side by side, and open it.

    The page needs no server and no network. It is written beside the first run's results, unless --output says where;
    above 50 MB of chats it becomes a folder.
    """
    from contextlib import ExitStack

    from batchchat.errors import UsageError
    from batchchat.results import open_results
    from batchchat.results.opening import RunResults
    from batchchat.viewer.write import write_viewer

    with ExitStack() as stack:
        opened = [stack.enter_context(open_results(run)) for run in runs]
        if serve:
            run = opened[0]
            if output is not None:
                raise UsageError("--serve writes no file; leave out --output, or --serve")
            if len(opened) > 1 or not isinstance(run, RunResults):
                raise UsageError("--serve shows one run directory; view files and several runs without --serve")
            _serve(run, port, open_)
            return
        page = write_viewer(opened, output or _beside(runs))
    print(page)
    if open_:
        _open(page.absolute().as_uri())


def _serve(run: RunResultsType, port: int, open_: bool) -> None:
    from batchchat.viewer.serve import serve

    def ready(address: str) -> None:
        print(address, flush=True)
        print("batchchat: serving to this machine until Ctrl-C", file=sys.stderr, flush=True)
        if open_:
            _open(address)

    with suppress(KeyboardInterrupt):
        serve(run, port, ready)


def _beside(runs: list[str]) -> Path:
    """`view.html` in the first run's directory, or beside the file; a comparison is named after the other run."""
    first = Path(runs[0]).expanduser()
    others = "".join(f"-{Path(run).expanduser().absolute().name.removesuffix('.jsonl')}" for run in runs[1:])
    return first / f"view{others}.html" if first.is_dir() else first.with_name(f"{first.stem}-view{others}.html")


def _open(address: str) -> None:
    """Show an address in a browser; only where somebody sits at a terminal."""
    import webbrowser

    if sys.stdout.isatty():
        webbrowser.open(address)
