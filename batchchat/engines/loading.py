"""The model of a recipe, for the engines that run one here."""

from __future__ import annotations

from typing import Any

from batchchat.engines.base import EngineContext
from batchchat.models import load_model
from batchchat.models.devices import remarks

_DTYPE = "dtype"
"""What is kept of the numbers that `model.dtype: auto` came to: a resumed run goes on in them, whatever another machine
would choose."""


def load(context: EngineContext) -> Any:
    """Load it. The report hears what there is to say of the devices that it lies on."""
    section, kept = context.recipe.model, context.kept
    is_chosen = section.dtype == "auto" and section.gguf_file is None
    if is_chosen and _DTYPE in kept:
        section = section.model_copy(update={"dtype": kept[_DTYPE]})
    model = load_model(section)
    if is_chosen:
        kept.setdefault(_DTYPE, str(model.dtype).removeprefix("torch."))
    for name, detail in remarks(model):
        context.meter.event(name, detail)
    return model
