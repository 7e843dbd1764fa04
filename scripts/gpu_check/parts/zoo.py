"""Models of many architectures through the engine that a run would get."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from statistics import fmean

import torch

from batchchat.benchmarks.contenders import continuous_engine
from batchchat.engines.rounding import tolerance
from batchchat.errors import UsageError
from batchchat.models.shape import has_experts
from batchchat.schedule import Feed
from scripts.gpu_check.bench import Bench, Noted
from scripts.gpu_check.findings import Finding, tried
from scripts.gpu_check.parts.answers import gaps
from tests.support.answers import drain_with_second_turns, requests
from tests.support.architectures import ARCHITECTURES, Architecture
from tests.support.requests import CODEC

_TIES = 3
"""Times the tolerance of rounding, which is a mean over the vocabulary."""


def float32(bench: Bench) -> Iterator[Finding]:
    yield from _all("float32", bench)


def bfloat16(bench: Bench) -> Iterator[Finding]:
    yield from _all("bfloat16", bench)


def _all(dtype: str, bench: Bench) -> Iterator[Finding]:
    runnable = [architecture for architecture in ARCHITECTURES if architecture.falls_back is None]
    for architecture in bench.pick(runnable, runnable[:2]):
        yield _tried(architecture, dtype, bench)


def _tried(architecture: Architecture, dtype: str, bench: Bench) -> Finding:
    began = time.perf_counter()
    name = architecture.name
    model = architecture.model().to(device=bench.device, dtype=getattr(torch, dtype))
    meter = Noted()
    try:
        engine = continuous_engine(model, CODEC, 4, meter=meter, max_batch_tokens=4096)
        asked = bench.pick(requests(), requests()[:5])
        done = list(drain_with_second_turns(engine, Feed(iter(asked), look_ahead=100)))
        facts = engine.describe()
        engine.close()
        errors = [one.error for one in done if one.error is not None]
        found = gaps(model, [one for one in done if one.error is None]) or [math.inf]
    except UsageError as refusal:
        return tried(name, False, {}, str(refusal))
    except Exception as error:  # the others are tried all the same, unless the device is lost
        return tried(name, False, {}, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    whole = all(len(one.token_ids) == one.request.settings.max_new_tokens for one in done if one.error is None)
    figures = {
        "answers": len(done),
        "largest gap": max(found),
        "mean gap": fmean(found),
        "tokens reused": facts.prompt_tokens_reused,
        "replayed": facts.steps_replayed,
        "computed by": facts.computed_by,
        "seconds": time.perf_counter() - began,
    }
    noted = "; ".join(detail for event, detail in meter.events if event != "preempted")
    note = "; ".join(filter(None, [*errors[:1], noted]))
    # Rounding may send a token to another expert, and then its logits are others: their mean counts, not the worst.
    routed = has_experts(model.config.get_text_config()) and model.dtype != torch.float32
    near = (fmean(found) if routed else max(found)) <= _TIES * tolerance(model.dtype)
    return tried(name, not errors and whole and near, figures, note)
