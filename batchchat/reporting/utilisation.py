"""How much of the machine's limits a run used, for prompts and for answers apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from batchchat.engines.facts import EngineFacts, PhaseWork
from batchchat.reporting.limits import MachineLimits
from batchchat.reporting.report import PhaseUse, Utilisation

Limits = Callable[[str, str], MachineLimits]
"""From a dtype and a device to its measured limits."""


def utilisation(engine: EngineFacts, limits: Limits) -> Utilisation | str:
    """Achieved FLOP/s and bytes/s of each phase, and their share of the device's limits; or why there is none.

    Padding counts: it is computed like anything else. Every pass reads all the weights once, as they are held for the
    processor, and the cache of its rows. Shares are left out where the model lies on several devices, whose limits do
    not add up.
    """
    if engine.footprint_bytes is not None and engine.footprint_bytes < _TOY_BYTES:
        return "the model is so small that its time goes by in calls, and a share of the machine's limits says nothing"
    if engine.replicas:
        return "several replicas computed, each on a part of this machine"
    if engine.work is None:
        return "the engine does not say what it computed"
    costs = {name: getattr(engine, name) for name in _Costs._fields}
    if engine.dtype is None or None in costs.values():
        lacking = [name for name, cost in costs.items() if cost is None]
        whys = (engine.missing[name] for name in lacking if name in engine.missing)
        return next(whys, "the engine does not say what its model costs to compute")
    measured = None
    if len(engine.devices) == 1 and engine.devices[0] != "disk":
        measured = limits(engine.dtype, engine.devices[0])
    work = {"prefill": engine.work.prefill, "decode": engine.work.decode}
    held = sum(product.held_bytes for product in getattr(engine, "products", ()))
    found: dict[str, Any] = {
        name: _use(phase, _Costs(**{**costs, "footprint_bytes": held or costs["footprint_bytes"]}), measured)
        for name, phase in work.items()
        if phase.seconds > 0 and phase.passes
    }
    return Utilisation(**({**found, "limits": measured} if measured is not None else found))


_TOY_BYTES = 16 * 2**20


class _Costs(NamedTuple):
    """What a model costs to compute; see `models.facts.ModelFacts`."""

    flops_per_token: float
    flops_per_output: float
    flops_per_context_token: float
    footprint_bytes: int
    cache_bytes_per_token: int


def _use(phase: PhaseWork, costs: _Costs, measured: MachineLimits | None) -> PhaseUse:
    flops = (
        phase.token_places * costs.flops_per_token
        + phase.outputs * costs.flops_per_output
        + phase.context_tokens * costs.flops_per_context_token
    ) / phase.seconds
    moved = (
        phase.passes * costs.footprint_bytes + phase.cache_token_reads * costs.cache_bytes_per_token
    ) / phase.seconds
    shares = {}
    if measured is not None:
        shares["share_of_flops_per_second"] = round(flops / measured.flops_per_second, 4)
        shares["share_of_bytes_per_second"] = round(moved / measured.bytes_per_second, 4)
    above = [
        why
        for name, why in (
            ("flops_per_second", _MULTIPLIED_SLOWER),
            ("bytes_per_second", _CACHED if costs.footprint_bytes <= _cache_bytes() else _READ_SLOWER),
        )
        if shares.get(f"share_of_{name}", 0) > 1
    ]
    return PhaseUse(
        seconds=round(phase.seconds, 3),
        flops_per_second=flops,
        bytes_per_second=moved,
        **shares,
        above_limit="; ".join(above) or None,
    )


_MULTIPLIED_SLOWER = "the machine multiplied more slowly when its limit was measured: something else ran on it"
_READ_SLOWER = "the machine read more slowly when its limit was measured: something else ran on it"
_CACHED = "the weights fit into the processor's cache, which is faster than the memory"


def _cache_bytes() -> int:
    """Of the processor's largest cache; 0 where the system does not say."""
    try:
        return max(0, os.sysconf("SC_LEVEL3_CACHE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 0
