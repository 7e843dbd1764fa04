"""The linear layers of a model that bitsandbytes quantized."""

from __future__ import annotations

from typing import Any

_HOME, _KINDS = "bitsandbytes.nn.modules", {"Linear8bitLt", "Linear4bit"}


def quantized_layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if is_quantized(module)]


def is_quantized(module: Any) -> bool:
    return type(module).__module__ == _HOME and type(module).__name__ in _KINDS


def mixes_rows(model: Any) -> bool:
    """Whether a layer computes as bitsandbytes itself does in 8 bits: in a column in which any row has a large number,
    all rows are multiplied as they are, so that a row's numbers depend on the others."""
    return any(
        type(layer).__name__ == "Linear8bitLt" and "forward" not in vars(layer) and layer.state.threshold > 0
        for layer in quantized_layers(model)
    )
