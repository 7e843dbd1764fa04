"""`batchchat schema`: every setting of a recipe, or every field of what a run writes, for editors or for reading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables instead of a JSON schema.")] = False,
    pipeline: Annotated[bool, typer.Option("--pipeline", help="Of pipelines instead (as a JSON schema).")] = False,
    results: Annotated[
        bool, typer.Option("--results", help="Of what a run writes (report, outputs, errors, scores) instead.")
    ] = False,
) -> None:
    """Print the JSON schema of recipes, every setting described."""
    import json

    from batchchat.errors import UsageError
    from batchchat.plugins.tables import TABLES
    from batchchat.recipe.json_schema import recipe_json_schema
    from batchchat.recipe.pipeline import pipeline_json_schema
    from batchchat.recipe.rendering import markdown_page
    from batchchat.reporting.schema import results_json_schema, results_page

    for fault in (fault for table in TABLES for fault in table.faults()):
        typer.echo(f"batchchat: left out: {fault}", err=True)
    if pipeline and (markdown or results):
        raise UsageError("--pipeline is a JSON schema of its own; leave --markdown and --results out")
    if markdown:
        text = results_page() if results else markdown_page()
    else:
        found = results_json_schema() if results else pipeline_json_schema() if pipeline else recipe_json_schema()
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written ({error.strerror}); name another file with --output") from error
