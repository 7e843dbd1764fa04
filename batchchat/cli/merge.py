"""`batchchat merge`: shards of one job to one result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    runs: Annotated[list[Path], typer.Argument(help="The run directories of all shards (source.shard), finished.")],
    output: Annotated[Path, typer.Option("--output", help="The run directory of the whole, which is made.")],
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON to standard output, and nothing else.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the gates to this file as JUnit XML.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress of judges.")] = False,
) -> None:
    """Join the shards of one job: one result in the order of the input, scores and gates of the whole, one report."""

    from batchchat.cli.logs import log_to_stderr
    from batchchat.cli.publishing import conclude
    from batchchat.job.merging import merge as merge_shards

    log_to_stderr(quiet)
    result = merge_shards(runs, output, quiet)
    conclude(result.report, result.exit_code, json_, junit)
