"""The limits of this machine, measured for a moment: products per second and bytes per second."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import Field, ValidationError

from batchchat.cache import changing_cache, read_cache
from batchchat.chats.record import BytesPerSecond, FlopsPerSecond, Record
from batchchat.engines.machine import machine_facts

_FILE = "limits.json"
_WARM_UP_SECONDS = 0.03
"""Threads start and clocks rise meanwhile."""
_SECONDS = 0.08
"""How long each rate is measured."""
_LARGE = (8192, 8192, 8192)
"""Rows, inner and outer width of the product that an accelerator is tried with."""
_WEIGHT = (1536, 1536)
_ROWS = (16, 48, 256, 1024)
"""Inner and outer width of the weight that a CPU is tried with, and rows: a common width, few rows and many."""
_HOPELESS = 0.25
"""Part of the best rate that a way to multiply must have to be tried with more rows."""
_READ_BYTES = {"cpu": 256 * 2**20, "other": 2 * 2**30}
"""More than any cache holds, and on an accelerator long enough that launching it does not count."""


class MachineLimits(Record):
    """What one device can do at best."""

    flops_per_second: FlopsPerSecond = Field(
        description="Of matrix products with weights of the model's number type, by the best of all ways here."
    )
    bytes_per_second: BytesPerSecond = Field(description="Of reading memory.")


def machine_limits(dtype: str, device: str) -> MachineLimits:
    """The limits of `device` for weights of `dtype`, measured once per machine and kept in the user's cache folder."""
    import torch

    what = json.dumps(["best 2", machine_facts().as_dict(), dtype, device, torch.__version__, torch.get_num_threads()])
    key = hashlib.sha256(what.encode("utf-8")).hexdigest()
    try:
        return MachineLimits.model_validate(read_cache(_FILE).get(key))
    except ValidationError:
        found = measure_limits(dtype, device)
    with changing_cache(_FILE) as kept:
        kept[key] = found.as_dict()
    return found


def measure_limits(dtype: str, device: str) -> MachineLimits:
    """The limits of `device` as they are now.

    On a CPU the best of all ways counts that there are to multiply weights of `dtype`, or of float32, with few rows or
    many: an engine takes the fastest one, and on many processors torch's own products of narrow numbers are none.
    """
    import torch

    place = torch.device(device)
    kind = getattr(torch, dtype)
    read = _read_per_second(_READ_BYTES["cpu" if place.type == "cpu" else "other"], place)
    if place.type == "cpu":
        rate = max(map(_products_per_second, {kind, torch.float32}))
        return MachineLimits(flops_per_second=rate, bytes_per_second=read)
    rows, inner, outer = _LARGE
    # An accelerator multiplies equal numbers faster than such as weights are: they take less power.
    left, right = torch.randn(rows, inner, device=place).to(kind), torch.randn(inner, outer, device=place).to(kind)
    rate = 2.0 * rows * inner * outer * _per_second(partial(torch.mm, left, right), place)
    return MachineLimits(flops_per_second=rate, bytes_per_second=read)


def _products_per_second(dtype: Any) -> float:
    """FLOP/s of the best of all products of a CPU's engine, at the best number of rows."""
    import torch

    from batchchat.engines.cpu.products import candidates, make

    best, (inner, outer) = 0.0, _WEIGHT
    with torch.inference_mode():
        weight = torch.randn(outer, inner).to(dtype)
        for name in candidates(outer, inner, dtype):
            product = make(name, weight)
            for rows in _ROWS:
                numbers = torch.randn(1, rows, inner).to(dtype)
                rate = 2.0 * rows * inner * outer * _per_second(partial(product, numbers), numbers.device)
                best = max(best, rate)
                if rate < _HOPELESS * best:  # more rows would take seconds
                    break
    return best


def _read_per_second(size: int, device: Any) -> float:
    """Bytes per second of a read of `size` bytes, of fewer where there is no room for them: of one stream, or of two,
    which many processors read faster."""
    import torch

    try:
        halves = torch.ones(2, size // 8, device=device)
    except torch.OutOfMemoryError:
        return _read_per_second(size // 2, device)
    ways = (halves.sum, partial(torch.dot, *halves))
    return size * max(_per_second(way, device) for way in ways)


def _per_second(work: Callable[[], Any], device: Any) -> float:
    """The best rate of several goes: what disturbs a moment is no limit of the machine."""
    began = time.perf_counter()
    _timed(work, device)
    while time.perf_counter() < began + _WARM_UP_SECONDS:
        _timed(work, device)
    best = float("inf")
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        best = min(best, _timed(work, device))
    return 1.0 / best


def _timed(work: Callable[[], Any], device: Any) -> float:
    """Seconds, with what is queued on an accelerator waited for before and after."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: Any) -> None:
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)
