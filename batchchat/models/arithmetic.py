"""In which numbers a model computes, where the recipe leaves it to the checkpoint and the machine."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
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
rounded by itself, 4 to 100 times as slowly as float32 (measured for 16 rows and more), by torch."""

_SHARE = 0.6
"""Of the machine's memory, that the weights in float32 may take with the copy that the CPU's engine lays out."""


_OTHERS = 0.05
"""Part of a model's matrices that may be no linear layers or embeddings where it counts as one of linear layers."""


def computing_dtype(
    section: ModelSection, config: Any, memory: int | None = None, widened: Collection[str] = ()
) -> str:
    """`model.dtype`, and for `auto` the checkpoint's own: but float32 for one of 16 bits where a CPU computes that
    cannot multiply such numbers, and has room for it in `memory` bytes (None: this machine's). `widened`: types whose
    linear layers the engine computes in single precision itself, reading them as they are: with half the bytes it is
    no slower, so that models that are made of such layers stay in them."""
    if section.dtype != "auto":
        return section.dtype
    stored = checkpoint_dtype(config)
    if section.quantization != "none" or getattr(config, "quantization_config", None) is not None:
        return stored
    if not _on_cpu(section) or is_multiplied(stored):
        return stored
    try:
        if stored in widened and _is_of_linear_layers(section, config):
            return stored
        size = 4 * _parameters(section, config, stored)
    except Exception:  # a model of its own code may not be made of nothing; it is loaded as it is stored
        return stored
    return "float32" if 2 * size <= _SHARE * (memory or _memory()) else stored


def _on_cpu(section: ModelSection) -> bool:
    import torch

    if isinstance(section.device_map, str):
        return section.device_map == "cpu" or not torch.accelerator.is_available()
    return set(section.device_map.values()) == {"cpu"}


def is_multiplied(dtype: str) -> bool:
    """Whether this processor multiplies numbers of a type; True where it is not known."""
    found = _features()
    return dtype not in _MULTIPLIED_BY or not found or any(found.get(name) for name in _MULTIPLIED_BY[dtype])


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


def _is_of_linear_layers(section: ModelSection, config: Any) -> bool:
    from torch import nn

    from batchchat.models.shape import empty_model

    model = empty_model(config, section.trust_remote_code)
    known = {id(one.weight) for one in model.modules() if type(one) in (nn.Linear, nn.Embedding)}
    matrices = [one for one in model.parameters() if one.dim() > 1]
    others = sum(math.prod(one.shape) for one in matrices if id(one) not in known)
    return others <= _OTHERS * sum(math.prod(one.shape) for one in matrices)


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
