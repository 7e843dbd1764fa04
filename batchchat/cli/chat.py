"""`batchchat chat`: talk to a model."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

_WHAT = "[MODEL | recipe.yaml] [flag=value …]: do_sample=false max_new_tokens=64, model.quantization=4bit"


def chat(
    arguments: Annotated[
        list[str] | None, typer.Argument(help=_WHAT, metavar="[MODEL | RECIPE] [FLAG=VALUE]...")
    ] = None,
) -> None:
    """Talk to a model, the built-in one or another. In a pipe, answer standard input as one question."""
    from batchchat.cli.interrupts import Terminated, terminable
    from batchchat.errors import BadRow
    from batchchat.interactive.opening import offered_tools, open_recipe
    from batchchat.models.lean import import_lean
    from batchchat.reporting.terminal import complain

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # they would be drawn over what is being typed
    recipe = open_recipe(arguments or [])
    import_lean(recipe)
    try:
        with terminable():
            offered = offered_tools(recipe)
            if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
                from batchchat.interactive.terminal import talk

                talk(recipe, offered)
            else:
                from batchchat.interactive.pipe import answer_once

                answer_once(recipe, offered)
    except BadRow as error:
        complain(str(error))
        raise typer.Exit(3) from error
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
