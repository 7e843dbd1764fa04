"""The limits of this machine, measured for a moment: products per second and bytes per second."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import Field, ValidationError

from batchchat.cache import read_cache, write_cache
from batchchat.chats.record import BytesPerSecond, FlopsPerSecond, Record
from batchchat.reporting.machine import machine_facts

_FILE = "limits.json"
_WARM_UP_SECONDS = 0.05
"""Threads start and clocks rise meanwhile."""
_SECONDS = 0.15
"""How long each rate is measured."""
_SHAPES = {"cpu": ((256, 1536, 1536), (1024, 1024, 1024)), "other": ((8192, 8192, 8192),)}
"""Rows, inner and outer width of the products that are tried: many rows of a common width, and a square."""
_READ_BYTES = {"cpu": 256 * 2**20, "other": 2 * 2**30}
"""More than any cache holds, and on an accelerator long enough that launching it does not count."""


class MachineLimits(Record):
    """What one device can do at best."""

    flops_per_second: FlopsPerSecond = Field(description="Of large matrix products in the model's number type.")
    bytes_per_second: BytesPerSecond = Field(description="Of reading memory.")


def machine_limits(dtype: str, device: str) -> MachineLimits:
    """The limits of `device` for weights of `dtype`, measured once per machine and kept in the user's cache folder."""
    import torch

    what = json.dumps(["read 2", machine_facts().as_dict(), dtype, device, torch.__version__, torch.get_num_threads()])
    key = hashlib.sha256(what.encode("utf-8")).hexdigest()
    try:
        return MachineLimits.model_validate(read_cache(_FILE).get(key))
    except ValidationError:
        found = measure_limits(dtype, device)
    write_cache(_FILE, {**read_cache(_FILE), key: found.as_dict()})
    return found


def measure_limits(dtype: str, device: str) -> MachineLimits:
    """The limits of `device` as they are now.

    On a CPU the faster of `dtype` and float32 counts: an engine may compute narrow weights in float32, and on many
    processors that is what is fast.
    """
    import torch

    place = torch.device(device)
    is_cpu = place.type == "cpu"
    kind_of_device = "cpu" if is_cpu else "other"
    kinds = {getattr(torch, dtype), torch.float32} if is_cpu else {getattr(torch, dtype)}
    rates = []
    for rows, inner, outer in _SHAPES[kind_of_device]:
        for kind in kinds:
            # An accelerator multiplies equal numbers faster than such as weights are: they take less power.
            left = torch.randn(rows, inner, device=place).to(kind)
            right = torch.randn(inner, outer, device=place).to(kind)
            rates.append(2.0 * rows * inner * outer * _per_second(partial(torch.mm, left, right), place))
    return MachineLimits(
        flops_per_second=max(rates), bytes_per_second=_read_per_second(_READ_BYTES[kind_of_device], place)
    )


def _read_per_second(size: int, device: Any) -> float:
    """Bytes per second of a read of `size` bytes, of fewer where there is no room for them."""
    import torch

    try:
        large = torch.ones(size // 8, dtype=torch.int64, device=device)
    except torch.OutOfMemoryError:
        return _read_per_second(size // 2, device)
    return size * _per_second(large.sum, device)


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
