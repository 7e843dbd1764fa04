"""One workload on different numbers of replicas, one after the other on the same machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from batchchat.benchmarks.peers import scratch
from batchchat.benchmarks.results import Result, add_ratios, markdown
from batchchat.benchmarks.shapes import SHAPES, shape_model, shape_tokenizer
from batchchat.benchmarks.workloads import WORKLOADS, fitted
from batchchat.launch.devices import places_for
from batchchat.launch.engine import ReplicatedEngine
from batchchat.launch.local import LocalLauncher
from batchchat.launch.messages import Begin
from batchchat.launch.versions import versions
from batchchat.models.text import load_config
from batchchat.recipe import recipe_from_mapping
from batchchat.reporting.meters import Meters
from batchchat.schedule import Feed

_COLUMNS = ("replicas", "on", "seconds", "tokens/s", "ratio", "busy, least", "tail")


def compare_replicas(
    numbers: Sequence[int], *, model: str, dtype: str, rows: int, workload: str, progress: Callable[[str], None]
) -> list[Result]:
    """Per number of replicas how fast they answer, loading apart; `ratio` is to the first. `tail` is the share of the
    time from the last answer of the replica that was done first until the end."""
    with scratch() as folder:
        name = model
        if model in SHAPES:
            name = folder
            shape_model(model, dtype).save_pretrained(folder)
            shape_tokenizer(model).save_pretrained(folder)
        found = []
        for number in numbers:
            progress(f"{number} replicas")
            found.append(_measured(number, name, dtype, rows, workload))
    add_ratios(found)
    return found


def replicas_table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    rows = [
        (
            str(result["replicas"]),
            "; ".join(result["places"]),
            f"{result['seconds']:.1f}",
            f"{result['tokens_per_second']:.0f}",
            f"{result['ratio']:.2f}",
            f"{min(result['busy']):.0%}",
            f"{result['tail']:.1%}",
        )
        for result in results
    ]
    return "\n".join(markdown(_COLUMNS, rows))


def _measured(number: int, name: str, dtype: str, rows: int, workload: str) -> Result:
    recipe = recipe_from_mapping(
        {
            "model": {"name": name, "dtype": dtype},
            "source": {"path": "-"},
            "engine": {"kind": "continuous", "max_batch_rows": rows, "replicas": number},
        }
    )
    requests = fitted(WORKLOADS[workload](), load_config(recipe.model).vocab_size)
    places = places_for(recipe, number)
    meters = Meters()
    engine = ReplicatedEngine(
        LocalLauncher(places), Begin(versions(), recipe.model_dump(exclude_none=True), tuple(sys.path), None), meters
    )
    try:
        engine.wait_for_all()
        began = meters.now()
        tokens = sum(one.completion_tokens for one in engine.run(Feed(iter(requests), len(requests))))
        seconds = meters.now() - began
        replicas = engine.describe().replicas
    finally:
        engine.close()
    return {
        "replicas": number,
        "places": [place.name for place in places],
        "seconds": seconds,
        "requests": len(requests),
        "generated_tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "answered": [one.answered for one in replicas],
        "busy": [one.busy or 0.0 for one in replicas],
        "tail": max(one.idle_at_end or 0.0 for one in replicas) / seconds,
        "model": Path(name).name,
    }
