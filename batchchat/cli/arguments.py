"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from batchchat.cli.completion import complete_override, complete_recipe

RecipeName = Annotated[
    str,
    typer.Argument(
        help="The recipe's YAML file, or builtin:NAME for one that comes along.", autocompletion=complete_recipe
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides such as generation.max_new_tokens=64 source.limit=10; values are YAML.",
        autocompletion=complete_override,
    ),
]
