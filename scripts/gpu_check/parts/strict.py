"""Strict mode: the same bits alone, together, and after giving up a place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from batchchat.benchmarks.contenders import continuous_engine
from batchchat.benchmarks.workloads import mixed
from batchchat.chats import Request
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding, tried
from scripts.gpu_check.parts.answers import Answers, answered, differing

_TOGETHER = 32
_SHARES = (0.6, 0.4, 0.25, 0.1)
"""Of the tokens that all requests take together."""


def run(bench: Bench) -> Iterator[Finding]:
    for dtype in reversed(bench.dtypes):
        model, codec = bench.shape("0.5b", dtype)
        asked = _requests(bench.pick(_TOGETHER, 12), bench)
        crowd, facts = _answers(model, codec, len(asked), asked)
        yield tried(f"{len(asked)} together, {dtype}", True, {"answers": len(crowd), **_told(facts)})
        few = asked[:: len(asked) // 4]
        engine = continuous_engine(model, codec, 1, reproducible="strict")
        alone = {one.index: answered(engine, [one])[one.index] for one in few}
        engine.close()
        yield tried(f"alone, {dtype}", not (other := differing(crowd, alone)), {"answers": len(few), "differ": other})
        turned, _ = _answers(model, codec, len(asked) // 3, list(reversed(asked)))
        other = differing(crowd, turned)
        yield tried(
            f"{len(asked) // 3} at once, in another order, {dtype}", not other, {"answers": len(asked), "differ": other}
        )
        yield _short_of_memory(model, codec, asked, crowd, dtype)


def _short_of_memory(model: Any, codec: Any, asked: list[Request], crowd: Answers, dtype: str) -> Finding:
    """With ever less room for keys and values, until some requests give up their place."""
    lengths = [len(one.prompt_ids) + one.settings.max_new_tokens for one in asked]
    for share in _SHARES:
        room = max(int(share * sum(lengths)), 2 * max(lengths))
        found, facts = _answers(model, codec, len(asked), asked, max_batch_tokens=room)
        if facts["preempted"]:
            break
    other = differing(crowd, found)
    figures = {"answers": len(asked), "differ": other, **_told(facts)}
    return tried(f"in {room:,} tokens of memory, {dtype}", not other and facts["preempted"] > 0, figures)


def _told(facts: dict[str, Any]) -> dict[str, Any]:
    return {"passes": facts["passes"], "gave up a place": facts["preempted"], "replayed": facts["steps_replayed"]}


def _answers(
    model: Any, codec: Any, rows: int, asked: list[Request], **settings: Any
) -> tuple[Answers, dict[str, Any]]:
    engine = continuous_engine(model, codec, rows, reproducible="strict", **settings)
    found, facts = answered(engine, asked), engine.describe().as_dict()
    engine.close()
    return found, facts


def _requests(count: int, bench: Bench) -> list[Request]:
    """Of mixed lengths, half of them sampled, all with log-probabilities."""
    most = bench.pick(96, 70)
    return [
        replace(
            one,
            settings=replace(
                one.settings,
                max_new_tokens=min(most, one.settings.max_new_tokens),
                temperature=float(one.index % 2),
                logprobs=2,
            ),
        )
        for one in mixed(count)
    ]
