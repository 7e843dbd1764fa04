"""How often another batch changes an answer, where strict mode does not forbid it."""

from __future__ import annotations

from typing import Any

from batchchat.benchmarks.contenders import continuous_engine
from batchchat.benchmarks.worker import load
from batchchat.benchmarks.workloads import WORKLOADS, fitted
from batchchat.schedule import Feed


def count_flips(model: str, dtype: str, workload: str, rows: int) -> dict[str, Any]:
    """Answer a workload with `rows` in flight and with one, greedily; count the answers that differ, and how far into
    the answer the first difference is."""
    loaded, codec = load(model, dtype)
    requests = fitted(WORKLOADS[workload](), loaded.get_input_embeddings().weight.shape[0])

    def answers(in_flight: int) -> dict[int, tuple[int, ...]]:
        engine = continuous_engine(loaded, codec, in_flight, max_batch_tokens=1024 * rows)
        found = {done.request.index: done.token_ids for done in engine.run(Feed(iter(requests), len(requests)))}
        engine.close()
        return found

    together, alone = answers(rows), answers(1)
    places = [_first_difference(together[index], alone[index]) for index in alone if together[index] != alone[index]]
    return {
        "model": model,
        "dtype": dtype,
        "workload": workload,
        "rows": rows,
        "answers": len(alone),
        "flipped": len(places),
        "first_differences": sorted(places),
        "sentence": f"{len(places)} of {len(alone)} greedy answers in {dtype} differ between {rows} in flight and one; "
        "engine.reproducible=strict makes it none",
    }


def _first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
