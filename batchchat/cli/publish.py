"""`batchchat pack` and `batchchat push`: a run's answers as a data set with a card, here or on the hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(help="A finished run directory, or that of a pipeline.")]
Form = Annotated[str, typer.Option("--form", help="rows, table, messages or prompt-completion.")]
Licenses = Annotated[
    list[str] | None, typer.Option("--license", help="The licence's name on the hub, such as apache-2.0.")
]
ShardRows = Annotated[int, typer.Option("--shard-rows", min=1, help="The most rows of one Parquet file.")]


def pack(
    run: Run,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder (default: dataset in the run).")
    ] = None,
    form: Form = "rows",
    license_: Licenses = None,
    shard_rows: ShardRows = 50_000,
) -> None:
    """Make a data set of what a run keeps: sharded Parquet, a card that says how it was made, and the recipe.

    `datasets.load_dataset(FOLDER)` reads it as one; better and worse answers are its configuration `pairs`.
    """
    from batchchat.publish.packing import pack as pack_run

    packed = pack_run(run, output, form, license_ or (), shard_rows)
    print(packed.folder)
    counts = ", ".join(f"{count:,} {'rows' if name == 'default' else name}" for name, count in packed.counts.items())
    print(f"batchchat: {counts} in {len(packed.files):,} files", file=sys.stderr)
    if not license_:
        print("batchchat: the card states no licence; say which with --license", file=sys.stderr)


def push(
    run: Annotated[str, typer.Argument(help="A finished run or pipeline, or a folder that `batchchat pack` made.")],
    repository: Annotated[str, typer.Argument(help="The data set's id on the hub: OWNER/NAME.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see a new data set; else it is private.")
    ] = False,
    form: Form = "rows",
    license_: Licenses = None,
    shard_rows: ShardRows = 50_000,
) -> None:
    """Send a data set to the hub in one commit, private unless said otherwise. Type it again after a failure.

    The token is that of `hf auth login`, or HF_TOKEN; HF_ENDPOINT names another hub.
    """
    from batchchat.publish.packing import is_packed
    from batchchat.publish.packing import pack as pack_run
    from batchchat.publish.push import push as push_folder

    folder = Path(run).expanduser()
    if not is_packed(folder):
        folder = pack_run(run, None, form, license_ or (), shard_rows).folder
    print(push_folder(folder, repository, public=public))
