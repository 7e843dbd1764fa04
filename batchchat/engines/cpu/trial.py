"""Which way to compute a product is the fastest on this processor: all are timed once, and the times are kept.

A second start, and every replica, finds the times of the first one, and so computes the same bits. Where nothing can be
kept, nothing is timed either: the first candidate computes then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from batchchat.cache import changing_cache, read_cache
from batchchat.engines.cpu.kernels import compiled
from batchchat.engines.cpu.products import CANDIDATES, AnyProduct, candidates, make
from batchchat.engines.machine import processor

ROWS = (1, 16, 48, 256)
"""Rows that are timed: an answer alone, a few, many, and a prompt."""
_FILE = "products.json"
_FEWEST_NUMBERS = 1 << 18
"""Weights with fewer take no time that could be told from that of a call."""
_MOST_NUMBERS = 1 << 23
"""Of weights with more, outputs for so many numbers are timed: they take time in proportion."""
_WHOLE = 128
"""Outputs of such a part are a multiple of so many, as the candidates that serve the whole may need."""
_EVICTED_BYTES = 1 << 26
"""Read before each call: in a model, other weights have come between."""
_WARM = (32, 64)
"""Outputs and width of a product that is computed right before each call: threads and matrix units that rested take
longer, and in a model they do not rest."""
_CALLS, _MOST_CALLS, _SECONDS = 5, 15, 0.2
"""Calls of each, at least and at most, and for how long there are more than the least."""
_FEWEST_CALLS, _LONG = 3, 0.02
"""Calls after which a candidate may be given up, since something else may have held one up; or one that took so many
seconds."""
_HOPELESS = 4.0
"""Times the least time from which on a candidate is not tried again, nor with more rows: that might take seconds."""
_WORTH = {"oneDNN": 0.85, "torch": 0.7}
"""Part of a preferred candidate's time that another one must stay within. A program has its kernels computed by one
team of threads, which must end for oneDNN's products; with torch's own there is no program."""
_WORTH_KERNEL = 0.95


class Shape(NamedTuple):
    """A kind of product."""

    outputs: int
    width: int
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return f"{self.width} to {self.outputs}, {str(self.dtype).removeprefix('torch.')}"


Times = Mapping[str, list[float | None]]
"""By candidate, the seconds of a product of as many rows as `ROWS` says; None from where it is hopeless."""


def chosen(shape: Shape, weight: torch.Tensor, may_copy: bool, independent: bool = False) -> str:
    """The name of the candidate that computes a shape here. `weight` `[outputs, width]` is one of that shape;
    `may_copy`: there is memory to hold narrow weights in float32; `independent`: of those that give a row its own bits,
    as long as there are some."""
    names = [name for name in candidates(*shape) if may_copy or not CANDIDATES[name].copies]
    if independent:
        names = [name for name in names if CANDIDATES[name].independent] or names
    if len(names) == 1 or shape.outputs * shape.width < _FEWEST_NUMBERS:
        return names[0]
    return best(times_of(shape, weight), names)


def best(times: Times, names: list[str]) -> str:
    """The fastest of `names` over all numbers of rows, each of which counts alike; the first where none was timed."""
    known = {name: [one for one in times[name] if one is not None] for name in names if name in times}
    known = {name: own for name, own in known.items() if len(own) == len(ROWS)}
    if not known:
        return names[0]
    least = [min(own[place] for own in known.values()) for place in range(len(ROWS))]
    costs = {name: sum(one / low for one, low in zip(own, least, strict=True)) for name, own in known.items()}
    found, *others = known
    for name in others:
        if costs[name] < costs[found] * _WORTH.get(name, _WORTH_KERNEL):
            found = name
    return found


def times_of(shape: Shape, weight: torch.Tensor) -> Times:
    """Of all candidates; measured if they are not known. Empty where they cannot be kept."""
    key = _key(shape)
    found = read_cache(_FILE).get(key)
    if found is None:
        with changing_cache(_FILE) as kept:  # one process measures, the others wait for what it finds
            if key not in kept:
                kept[key] = {"product": shape.name, "seconds": measured(shape, weight)}
        found = read_cache(_FILE).get(key, {})
    times: Times = found.get("seconds", {})
    return times


@torch.inference_mode()
def measured(shape: Shape, weight: torch.Tensor) -> dict[str, list[float | None]]:
    """The candidates' times as they are now: the best of a few calls, made in turns, so that what else the machine does
    falls on all alike."""
    part = weight.detach()[: max(_WHOLE, _MOST_NUMBERS // shape.width // _WHOLE * _WHOLE)]
    bias = torch.zeros(len(part), dtype=shape.dtype)
    products = {name: make(name, part, bias) for name in candidates(*shape)}
    warm = {name: _warming(name, shape.dtype) for name in products}
    others = torch.ones(_EVICTED_BYTES // 8, dtype=torch.int64)
    found: dict[str, list[float | None]] = {name: [] for name in products}
    for count in ROWS:
        rows = torch.randn(1, count, shape.width).to(shape.dtype)
        times = _in_turns(products, warm, rows, others)
        products = {name: products[name] for name in times if times[name] < _HOPELESS * min(times.values())}
        for name, seconds in found.items():
            seconds.append(times.get(name) if name in products else None)
    return found


def _warming(name: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """A call of a small product by a candidate."""
    product, rows = make(name, torch.zeros(_WARM, dtype=dtype)), torch.zeros(1, 1, _WARM[1], dtype=dtype)
    return lambda: product(rows)


def _in_turns(
    products: Mapping[str, AnyProduct],
    warm: Mapping[str, Callable[[], torch.Tensor]],
    rows: torch.Tensor,
    others: torch.Tensor,
) -> dict[str, float]:
    least = dict.fromkeys(products, float("inf"))
    began = time.perf_counter()
    for call in range(_MOST_CALLS):
        if call >= _CALLS and time.perf_counter() - began > _SECONDS:
            break
        for name, product in products.items():
            long = call >= _FEWEST_CALLS or (call and least[name] > _LONG)
            if long and least[name] > _HOPELESS * min(least.values()):
                continue
            others.sum()
            warm[name]()
            start = time.perf_counter()
            product(rows)
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def _key(shape: Shape) -> str:
    """What times depend on."""
    libraries = [torch.__version__, torch.backends.cpu.get_cpu_capability()]
    what = json.dumps(["times 3", processor(), torch.get_num_threads(), libraries, _kernels(), shape.name])
    return hashlib.sha256(what.encode("utf-8")).hexdigest()


def _kernels() -> str:
    if not compiled():
        return ""
    from batchchat.engines.cpu.kernels.machine_code import state

    return state()
