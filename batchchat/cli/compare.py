"""`batchchat compare`: runs over the same chats, held against the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from batchchat.evaluation.comparing import RunComparison
    from batchchat.reporting.terminal import Terminal
    from batchchat.scoring.comparison import Comparison, Key

_LONGEST = 300


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run directories, or JSONL files of finished chats; the first is the baseline.")
    ],
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Score all of them by this recipe's scorers first.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare what runs over different inputs share.")] = False,
    show: Annotated[int, typer.Option("--show", min=0, help="Print so many of the answers that changed.")] = 3,
    not_worse_by: Annotated[
        float | None, typer.Option("--not-worse-by", min=0.0, help="Exit with 4 unless no metric can be worse by more.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write these gates to a file as JUnit XML.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON, and nothing else.")] = False,
) -> None:
    """Compare runs over the same chats, answer by answer: differences with intervals and tests, and what changed.

    All figures are of a run minus the first. Runs over different inputs are refused, with what differs.
    """
    from batchchat.cli.publishing import publish_gates
    from batchchat.errors import UsageError
    from batchchat.evaluation.comparing import compare_runs, load_run, not_worse
    from batchchat.reporting.scores import GateOutcome
    from batchchat.reporting.terminal import Terminal, print_json

    if len(runs) < 2:
        raise UsageError("a comparison needs two runs: batchchat compare runs/before runs/after")
    with ExitStack() as stack:
        names = _names(runs)
        loaded = [load_run(name, _scored(run, recipe, stack)) for name, run in zip(names, runs, strict=True)]
        comparison = compare_runs(loaded, force)
        changed = {
            name: _changed(names[0], runs[0], name, runs[names.index(name)], found, show, recipe)
            for name, found in comparison.against_first.items()
        }
    if json_:
        print_json({**comparison.as_dict(), "changed": changed})
    else:
        _print(Terminal(), comparison, changed)
    if not_worse_by is not None:
        results = not_worse(comparison, not_worse_by)
        if not publish_gates([GateOutcome.of(result) for result in results], f"{names[-1]} against {names[0]}", junit):
            raise typer.Exit(4)


def _names(runs: Sequence[str]) -> list[str]:
    """What the runs are called: as they were given; a run against itself gets a number."""
    return [run if runs.index(run) == place else f"{run} ({place + 1})" for place, run in enumerate(runs)]


def _scored(run: str, recipe: str | None, stack: ExitStack) -> str:
    """The directory with a run's scores; where a recipe says how, they are made first, in a place of their own."""
    from batchchat.errors import UsageError
    from batchchat.job.rescore import file_recipe, score_apart
    from batchchat.recipe import recipe_from_mapping

    if recipe is None:
        if not Path(run).expanduser().is_dir() and Path(run).expanduser().exists():
            raise UsageError(f"{run} holds answers and no scores; say how to score them with --recipe RECIPE")
        return run
    place = stack.enter_context(TemporaryDirectory(prefix="batchchat-"))
    loaded = file_recipe(run, recipe, [])
    scorers = recipe_from_mapping({**loaded.model_dump(exclude_none=True), "judges": {}, "gates": []})
    score_apart(run, scorers, Path(place))
    return place


def _changed(
    first: str, first_run: str, name: str, run: str, found: Sequence[Comparison], show: int, recipe: str | None
) -> list[dict[str, Any]]:
    """Up to `show` answers per metric that gained or lost most, losses first, with what was asked and both answers."""
    from batchchat.evaluation.comparing import texts
    from batchchat.evaluation.other_runs import open_answers
    from batchchat.recipe import load_recipe, recipe_from_mapping

    keys: dict[Key, str] = {}
    for one in found:
        for key in [*reversed(one.changed)][:show]:
            keys.setdefault(key, one.metric)
    if not keys:
        return []
    options = load_recipe(recipe) if recipe else recipe_from_mapping({"source": {"path": run}})
    with open_answers(first_run, options) as before, open_answers(run, options) as after:
        old, new = texts(before, keys), texts(after, keys)
    return [
        {
            "id": key[0],
            "sample": key[1],
            "turn": key[2],
            "metric": metric,
            "asked": old.get(key, new.get(key, ("", "")))[0],
            first: old.get(key, ("", None))[1],
            name: new.get(key, ("", None))[1],
        }
        for key, metric in keys.items()
    ]


def _print(console: Terminal, comparison: RunComparison, changed: Mapping[str, list[dict[str, Any]]]) -> None:
    from rich.text import Text

    from batchchat.reporting.escape import one_line, quoted

    for text in comparison.differences:
        console.print(Text(one_line(f"note: {text}"), style="yellow"))
    first = comparison.runs[0]
    for run, found in comparison.against_first.items():
        console.table(f"{run} against {first}", (row for one in found for row in _rows(one, run, first)))
        for answer in changed[run]:
            heading = one_line(f"{answer['metric']} of chat {answer['id']}, turn {answer['turn'] + 1}")
            console.print(Text(f"\n{heading}", style="bold"))
            for what in ("asked", first, run):
                text = answer[what] or "–"
                shown = quoted(text[:_LONGEST] + " …" * (len(text) > _LONGEST))
                console.print(Text(f"  {one_line(what)}: ", style="dim") + Text(shown))
        console.print()
    for metric, ratings in comparison.ratings.items():
        if isinstance(ratings, str):
            console.print(Text(one_line(f"{metric}, Bradley-Terry ratings: {ratings}")))
            continue
        best_first = sorted(ratings.items(), key=lambda rated: -rated[1]["value"])
        listed = [f"{name} {r['value']:+.0f} [{r['low']:+.0f}, {r['high']:+.0f}]" for name, r in best_first]
        console.print(Text(one_line(f"{metric}, Bradley-Terry ratings: {', '.join(listed)}")))


def _rows(one: Comparison, run: str, first: str) -> Iterator[tuple[str, str]]:
    """A metric's comparison as (what, figure)."""
    gap = one.difference
    interval = "" if gap.low is None else f" [{gap.low:+.4f}, {gap.high:+.4f}]"
    yield one.metric, f"{gap.value:+.4f}{interval}: {one.ours:.4f} against {one.theirs:.4f}, n {gap.n:,} ({gap.method})"
    yield "  test", f"p {one.test.p_value:.4g}, with Holm's correction {one.adjusted_p:.4g} ({one.test.method})"
    yield "  changed", f"{len(one.changed):,} of {gap.n:,} answers changed their score"
    if one.detectable:  # 0 where no answer differs, which says nothing of power
        yield "  power", f"a true difference of {one.detectable:.4f} would be seen with a chance of 80 %"
    for answers, name in ((one.only_ours, run), (one.only_theirs, first)):
        if answers:
            yield "  left out", f"{len(answers):,} answers have a score in {name} alone"
