"""`batchchat schema`: every setting of a recipe, for editors or for reading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables instead of a JSON schema.")] = False,
) -> None:
    """Print the JSON schema of recipes, every setting described."""
    import json

    from batchchat.errors import UsageError
    from batchchat.plugins.tables import TABLES
    from batchchat.recipe.json_schema import recipe_json_schema
    from batchchat.recipe.rendering import markdown_page

    for fault in (fault for table in TABLES for fault in table.faults()):
        typer.echo(f"batchchat: left out: {fault}", err=True)
    text = markdown_page() if markdown else json.dumps(recipe_json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written ({error.strerror}); name another file with --output") from error
