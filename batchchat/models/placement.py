"""Which device holds which part of a model, as `device_map: auto` would place it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchchat.errors import UsageError
from batchchat.recipe.model import ModelSection

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Device:
    """Somewhere to put weights, and how many bytes it has."""

    name: str
    bytes: int


def parse_bytes(text: str | int) -> int:
    """Bytes of a size such as `80GiB` or `24 GB`; a whole number is bytes. Raises UsageError for anything else."""
    if isinstance(text, int):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is not None and not found[2]:
        raise UsageError(f"{text!r} is an amount of memory without a unit; write it with one, such as {found[1]}GiB")
    if found is None or found[2].upper() not in _UNITS:
        raise UsageError(f"{text!r} is no amount of memory; write one such as 80GiB or 24GB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def machine_devices(section: ModelSection) -> list[Device]:
    """The accelerators of this machine, the CPU where it has none; `model.max_memory` limits them."""
    import psutil
    import torch

    limits: Mapping[Any, Any] = section.max_memory or {}
    if section.device_map == "cpu" or not torch.cuda.is_available():
        found = [("cpu", psutil.virtual_memory().total, limits.get("cpu"))]
    else:
        count = range(torch.cuda.device_count())
        found = [(f"cuda:{n}", torch.cuda.get_device_properties(n).total_memory, limits.get(n)) for n in count]
    return [Device(name, total if limit is None else min(total, parse_bytes(limit))) for name, total, limit in found]


def place_weights(model: Any, devices: Sequence[Device], weights: int) -> tuple[list[tuple[int, float]], int]:
    """Per device (bytes of weights, share of the decoder layers), and the bytes that fit on none of them.

    `model` has empty weights; loaded as the recipe says they take `weights` bytes.
    """
    if len(devices) == 1:
        device = devices[0]
        return [(min(weights, device.bytes), 1.0)], max(0, weights - device.bytes)
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    own = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    room: dict[int | str, int] = {n: int(device.bytes * own / weights) for n, device in enumerate(devices)}
    blocks = list(model._no_split_modules or ())
    balanced = get_balanced_memory(model, {**room, "cpu": 0}, no_split_module_classes=blocks)
    places = infer_auto_device_map(model, {**balanced, "cpu": 0}, no_split_module_classes=blocks)
    sizes = [0] * len(devices)
    layers = [0] * len(devices)
    left_over = 0
    names = dict(model.named_modules()) | dict(model.named_parameters())
    depth = max(1, sum(type(module).__name__ in blocks for module in model.modules()))
    for name, place in places.items():
        part = names[name] if name else model
        tensors = part.parameters() if hasattr(part, "parameters") else (part,)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors) * weights // own
        if isinstance(place, int):
            sizes[place] += size
            layers[place] += sum(type(m).__name__ in blocks for m in part.modules()) if hasattr(part, "modules") else 0
        else:
            left_over += size
    return [(size, count / depth) for size, count in zip(sizes, layers, strict=True)], left_over
