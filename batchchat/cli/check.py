"""`batchchat check`: look before the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batchchat.cli.arguments import Overrides, RecipeName

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from batchchat.job.check import CheckResult

_MOST_TOKENS = 100


def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows to read.")] = 100,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
) -> None:
    """Validate a recipe, render the first prompts and find what may go wrong, before any weight is read.

    Exits with 3 where one of these rows would fail.
    """
    from rich.console import Console

    from batchchat.job.check import check as check_recipe
    from batchchat.recipe import load_recipe

    result = check_recipe(load_recipe(recipe, overrides or []), rows)
    if json_:
        _print_json(result)
    else:
        _print(Console(highlight=False), result)
    if result.errors or any(finding.level == "error" for finding in result.findings):
        raise typer.Exit(3)


def _print_json(result: CheckResult) -> None:
    import json
    from dataclasses import asdict

    plain = asdict(result)
    plain["batches"] = [
        {"rows": len(batch.requests), "padded_tokens": batch.padded, "efficiency": round(batch.efficiency, 4)}
        for batch in result.batches
    ]
    print(json.dumps(plain, ensure_ascii=False))


def _print(console: Console, result: CheckResult) -> None:
    from rich.text import Text

    from batchchat.reporting.escape import printable

    total = "" if result.total_rows is None else f" of {result.total_rows:,}"
    formats = ", ".join(f"{path} ({format_})" for path, format_ in result.formats.items())
    console.print(Text(f"{result.rows:,} rows read{total}: {formats}"))
    if result.first is not None:
        tokens = f"{len(result.first.prompt_ids)} tokens" if result.first_tokens else "as the engine takes it"
        console.print(Text(f"\nThe first prompt, {tokens}:", style="bold"))
        console.print(Text(printable(result.first_text)))
        if result.first_tokens:
            console.print(Text("\nits tokens, special ones in ⟦⟧:", style="bold"))
            console.print(_tokens(result))
    if result.prompt_tokens:
        console.print(
            Text("\nPrompt tokens: ") + Text(", ".join(f"{k} {v:,}" for k, v in result.prompt_tokens.items()))
        )
        padded = sum(batch.padded for batch in result.batches)
        needed = sum(batch.needed for batch in result.batches)
        largest = max(len(batch.requests) for batch in result.batches)
        efficiency = f"padding efficiency {needed / padded:.1%}"
        console.print(Text(f"Batches of these: {len(result.batches)}, the largest with {largest} rows, {efficiency}"))
    console.print(Text(f"Generation: {_settings(result)}"))
    for place, reason in result.errors[:10]:
        console.print(Text("error ", style="bold red") + Text(printable(f"{place}: {reason}")))
    if len(result.errors) > 10:
        console.print(Text(f"… and {len(result.errors) - 10} more rows with errors"))
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in result.findings:
        console.print(
            Text(f"{finding.level} ", style=styles[finding.level]) + Text(f"{finding.what}; {finding.advice}")
        )
    if not result.errors and not result.findings:
        console.print(Text("nothing found that would go wrong", style="green"))


def _tokens(result: CheckResult) -> Text:
    from rich.text import Text

    from batchchat.reporting.escape import printable

    shown = Text()
    for number, text, special in result.first_tokens[:_MOST_TOKENS]:
        visible = printable(text).replace("\n", "\\n").replace(" ", "␣")
        shown.append(f"⟦{visible}⟧" if special else visible, style="reverse" if special else "")
        shown.append(f"·{number} ", style="dim")
    if len(result.first_tokens) > _MOST_TOKENS:
        shown.append(f"… {len(result.first_tokens) - _MOST_TOKENS} more", style="dim")
    return shown


def _settings(result: CheckResult) -> str:
    settings = result.settings
    how = "greedy" if settings.temperature == 0 else f"temperature {settings.temperature:g}"
    parts = [how, f"at most {settings.max_new_tokens} new tokens", f"end tokens {list(settings.stop_token_ids)}"]
    return ", ".join(parts)
