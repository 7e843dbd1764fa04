"""In which numbers a model computes, where the recipe leaves it to the checkpoint and the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchchat.models.memory import DTYPE_BYTES
from batchchat.models.names import resolve_name
from batchchat.models.text import checkpoint_dtype
from batchchat.recipe.model import ModelSection

_MULTIPLIED_BY = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "avx10_2", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "avx10_1", "avx10_2", "fp16_arith"),
}
"""16-bit types, and the parts of processors that multiply them. Without one, each number is widened, multiplied and
rounded by itself, 4 to 100 times as slowly as float32 (measured for 16 rows and more)."""

_SHARE = 0.6
"""Of the machine's memory, that the weights in float32 may take with the copy that the CPU's engine lays out."""


def computing_dtype(section: ModelSection, config: Any, memory: int | None = None) -> str:
    """`model.dtype`, and for `auto` the checkpoint's own: but float32 for one of 16 bits where a CPU computes that
    cannot multiply such numbers, and has room for it in `memory` bytes (None: this machine's)."""
    if section.dtype != "auto":
        return section.dtype
    stored = checkpoint_dtype(config)
    if section.quantization != "none" or getattr(config, "quantization_config", None) is not None:
        return stored
    if stored not in _MULTIPLIED_BY or not _on_cpu(section) or not _features() or _multiplies(stored):
        return stored
    try:
        size = 4 * _parameters(section, config, stored)
    except Exception:  # a model of its own code may not be made of nothing; it is loaded as it is stored
        return stored
    return "float32" if 2 * size <= _SHARE * (memory or _memory()) else stored


def _on_cpu(section: ModelSection) -> bool:
    import torch

    if isinstance(section.device_map, str):
        return section.device_map == "cpu" or not torch.accelerator.is_available()
    return set(section.device_map.values()) == {"cpu"}


def _multiplies(dtype: str) -> bool:
    return any(_features().get(name) for name in _MULTIPLIED_BY[dtype])


def _features() -> Mapping[str, Any]:
    """What this processor can, empty where this torch does not say."""
    import torch

    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def _parameters(section: ModelSection, config: Any, stored: str) -> int:
    """How many weights the model has, by the size of its files where these are at hand."""
    files = list(Path(resolve_name(section.name, section.gguf_file)).glob("*.safetensors"))
    if files:
        return sum(file.stat().st_size for file in files) // DTYPE_BYTES[stored]
    from batchchat.models.shape import empty_model

    return sum(math.prod(one.shape) for one in empty_model(config, section.trust_remote_code).parameters())


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
