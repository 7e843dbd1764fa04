"""How much of the machine's limits a run used, for prompts and for answers apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from batchchat.engines.facts import EngineFacts, PhaseWork
from batchchat.reporting.limits import MachineLimits
from batchchat.reporting.report import PhaseUse, Utilisation

Limits = Callable[[str, str], MachineLimits]
"""From a dtype and a device to its measured limits."""


def utilisation(engine: EngineFacts, limits: Limits) -> Utilisation | str:
    """Achieved FLOP/s and bytes/s of each phase, and their share of the device's limits; or why there is none.

    Padding counts: it is computed like anything else. Every pass reads all the weights once, and the cache of its
    rows. Shares are left out where the model lies on several devices, whose limits do not add up.
    """
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
    found: dict[str, Any] = {
        name: _use(phase, _Costs(**costs), measured)
        for name, phase in work.items()
        if phase.seconds > 0 and phase.passes
    }
    return Utilisation(**({**found, "limits": measured} if measured is not None else found))


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
    return PhaseUse(seconds=round(phase.seconds, 3), flops_per_second=flops, bytes_per_second=moved, **shares)
