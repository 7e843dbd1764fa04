"""`batchchat pipeline`: recipes that feed each other."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from batchchat.job.pipeline import PlannedStep


def pipeline(
    steps: Annotated[str, typer.Argument(help="The YAML file with the steps.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="name=… or STEP.section.setting=value; values are YAML.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Begin this step and those behind it anew; they are moved aside.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what each step will read, and do nothing.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run recipes one after the other, each on what the one before it kept. The same command goes on where an
    interrupted one stopped.

    Each step is an ordinary run directory in the pipeline's, and pipeline.json says what became of all.
    """
    from batchchat.cli.interrupts import Terminated, terminable
    from batchchat.cli.logs import log_to_stderr
    from batchchat.job.pipeline import begin_from, plan_pipeline, run_pipeline
    from batchchat.recipe.pipeline import Step, load_pipeline
    from batchchat.reporting.report import AnyReport
    from batchchat.reporting.score_tables import score_tables
    from batchchat.reporting.terminal import Terminal, complain, print_json

    loaded = load_pipeline(steps, overrides or [])
    log_to_stderr(quiet)
    planned = plan_pipeline(loaded)
    console = Terminal()
    if from_ is not None and not plan:
        begin_from(loaded, from_)
        planned = plan_pipeline(loaded)
    if not json_:
        console.table(f"Plan of {loaded.name}", map(_planned, planned))
        console.print()
    if plan:
        if json_:
            print_json([{"step": one.step.name, "state": one.state, "rows": one.rows} for one in planned])
        return

    def told(step: Step, report: AnyReport) -> None:
        if not json_:
            for title, rows in score_tables(report):
                if title in ("Scores", "Kept", "Gates"):
                    console.table(f"{step.name}: {title}", rows)
                    console.print()

    command = ["batchchat", *sys.argv[1:]]
    try:
        with terminable():
            result = run_pipeline(loaded, command, quiet, told)
    except KeyboardInterrupt as interrupt:
        again = shlex.join(part for place, part in enumerate(command) if not _is_from(command, place))
        complain(f"stopped; what was finished is kept. Go on with: {again}")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    if json_:
        print_json(result.manifest)
    else:
        done = result.manifest["steps"].items()
        console.table(loaded.name, [(name, _came_to(step)) for name, step in done])
        print(result.directory / "pipeline.json")
    if result.exit_code:
        name = list(result.manifest["steps"])[-1]
        complain(f"the step {name} ended with exit code {result.exit_code}; read {result.directory / name}")
        raise typer.Exit(result.exit_code)


def _is_from(command: list[str], place: int) -> bool:
    return command[place].startswith("--from") or (place > 0 and command[place - 1] == "--from")


def _planned(one: PlannedStep) -> tuple[str, str]:
    recipe = one.step.recipe
    if one.rows is None:
        rows = "rows not known before they are read"
    else:
        rows = f"{'' if one.exact else 'at most '}{one.rows:,} rows"
    reads = ", ".join(one.step.reads) or ", ".join(one.reads)
    what = "scores alone" if one.step.kind == "score" else f"answered by {recipe.model.name}"
    if one.step.kind == "run" and recipe.generation.samples > 1:
        what += f", {recipe.generation.samples} samples"
    keeps = f", {len(recipe.keep)} steps of keep" if recipe.keep else ""
    return one.step.name, f"{one.state}: reads {rows} of {reads}; {what}{keeps}"


def _came_to(step: dict[str, object]) -> str:
    rows = step.get("rows")
    read = next(iter(rows.values()), 0) if isinstance(rows, dict) else 0
    return f"{step['state']}: {read:,} rows, {step.get('answers', 0):,} answers, {step.get('kept', 0):,} kept"
