"""The model of a recipe, for the engines that run one here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.engines.base import EngineContext
from batchchat.models import load_generation_defaults, load_model
from batchchat.models.devices import remarks

_DTYPE = "dtype"
"""What is kept of the numbers that `model.dtype: auto` came to: a resumed run goes on in them, whatever another machine
would choose."""


def load(context: EngineContext) -> Any:
    """Load it, unless it is. The report hears what there is to say of the devices that it lies on."""
    model = _load(context) if context.loaded is None else context.loaded.model
    for name, detail in remarks(model):
        context.meter.event(name, detail)
    return model


def _load(context: EngineContext) -> Any:
    section, kept = context.recipe.model, context.kept
    is_chosen = section.dtype == "auto" and section.gguf_file is None
    if is_chosen and _DTYPE in kept:
        section = section.model_copy(update={"dtype": kept[_DTYPE]})
    model = load_model(section)
    if is_chosen:
        kept.setdefault(_DTYPE, str(model.dtype).removeprefix("torch."))
    return model


def generation_defaults(context: EngineContext) -> Mapping[str, Any]:
    """What the model itself sets about generation."""
    if context.loaded is None:
        return load_generation_defaults(context.recipe.model)
    return context.loaded.text_side(context.recipe).generation_defaults
