"""`batchchat plan`: what a job needs, before any weight is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batchchat.cli.arguments import Overrides, RecipeName

if TYPE_CHECKING:
    from batchchat.job.plan import Plan

_Rows = list[tuple[str, str]]


def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    memory: Annotated[
        list[str] | None,
        typer.Option("--memory", help="Plan for a device of this size, such as 80GiB; once per device."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows to take the prompts from.")] = 100,
    json_: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, and nothing else.")] = False,
) -> None:
    """Tell the memory of weights, cache and batches, the rows that fit, and the job's tokens.

    Exits with 5 where not one row fits.
    """
    import json

    from batchchat.job.plan import make_plan, plain
    from batchchat.models import require_in_reach
    from batchchat.models.placement import Device, machine_devices, parse_bytes
    from batchchat.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if loaded.reads_model:
        require_in_reach(loaded.model)
    if memory:
        devices = [Device(f"device {number}", parse_bytes(size)) for number, size in enumerate(memory)]
    else:
        devices = machine_devices(loaded.model)
    found = make_plan(loaded, devices, rows)
    if json_:
        print(json.dumps(plain(found), ensure_ascii=False))
    else:
        _print(found)
    if found.rows == 0:
        raise typer.Exit(5)


def _print(plan: Plan) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for title, lines in (("Model", _model(plan)), ("Memory", _memory(plan)), ("Job", _job(plan))):
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for what, figure in lines:
            table.add_row(Text(what, style="dim"), Text(figure))
        console.print(table)
        console.print()


def _model(plan: Plan) -> _Rows:
    from batchchat.reporting.tables import bytes_text

    shape = plan.shape
    lines = [("model", plan.model), ("parameters", f"{shape.parameters:,}")]
    if shape.experts is not None:
        chosen, count = shape.experts
        lines.append(("active parameters", f"{shape.active_parameters:,} ({chosen} of {count} experts)"))
    loaded = plan.dtype if plan.quantization == "none" else f"{plan.quantization}, the rest {plan.dtype}"
    draft = plan.draft
    beside = (
        []
        if draft is None
        else [
            (
                "draft",
                f"{draft.name}: weights {bytes_text(draft.weights)}, cache per token "
                f"{bytes_text(draft.cache_per_token)}, on the first device",
            )
        ]
    )
    if plan.packed:
        beside.append(("packed weights", f"{bytes_text(plan.packed)} (a copy of the linear layers for the processor)"))
    formats = ", ".join(f"{name} {bytes_text(size)}" for name, size in plan.cache_formats.items())
    return [
        *lines,
        ("weights", f"{bytes_text(plan.weights)} ({loaded})"),
        ("cache per token", plan.missing.get("cache") or f"{bytes_text(plan.cache_per_token)} (as {formats})"),
        *beside,
    ]


def _memory(plan: Plan) -> _Rows:
    from batchchat.reporting.tables import bytes_text

    batch, memory = plan.recipe_batch, plan.memory
    lines = [
        ("a row", f"{plan.prompt_tokens:,} prompt and {plan.answer_tokens:,} new tokens, as the longest of the sample"),
        ("cache per row", bytes_text(plan.cache_per_row)),
        (f"batch of {batch.rows} rows", bytes_text(memory.total)),
        ("  weights", bytes_text(memory.weights)),
        ("  cache", bytes_text(memory.cache)),
        ("  activations", bytes_text(memory.activations)),
        ("  logits", bytes_text(memory.logits)),
    ]
    for part in plan.devices:
        lines.append(
            (part.device, f"{bytes_text(part.usable_bytes)} usable, weights {bytes_text(part.weight_bytes)}, "
             f"{part.share:.0%} of the layers")
        )  # fmt: skip
    if plan.left_over:
        lines.append(("on no device", f"{bytes_text(plan.left_over)} of weights: set model.quantization=4bit"))
    lines.append(("rows that fit", f"{plan.rows:,}"))
    for option in plan.options[1:]:
        lines.append((f"  as {option.weights}", f"{option.rows:,}, weights {bytes_text(option.weight_bytes)}"))
    return lines


def _job(plan: Plan) -> _Rows:
    tokens = plan.tokens
    if tokens.turns is None or tokens.prompt is None or tokens.generated is None:
        return [(what, why) for what, why in plan.missing.items()]
    time = plan.missing.get("seconds") if plan.seconds is None else f"{plan.seconds:,.0f} s"
    return [
        ("answers", f"{tokens.turns:,}"),
        ("prompt tokens", f"at most {tokens.prompt:,}"),
        ("generated tokens", f"at most {tokens.generated:,}"),
        ("time", time or "–"),
    ]
