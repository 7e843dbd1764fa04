"""The model of a recipe, for the engines that run one here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.engines.base import EngineContext
from batchchat.models import load_generation_defaults, load_model
from batchchat.models.devices import remarks
from batchchat.recipe.model import ModelSection

_DTYPE = "dtype"
"""What is kept of the numbers that `model.dtype: auto` came to: a resumed run goes on in them, whatever another machine
would choose."""


def load(context: EngineContext) -> Any:
    """Load it, unless it is. The report hears what there is to say of the devices that it lies on."""
    model = _load(context) if context.loaded is None else context.loaded.model
    for name, detail in remarks(model):
        context.meter.event(name, detail)
    return model


def begun_section(context: EngineContext) -> ModelSection:
    """The recipe's model, in the numbers that the run began with where they are not the recipe's."""
    section = context.recipe.model
    if _is_chosen(section) and _DTYPE in context.kept:
        return section.model_copy(update={"dtype": context.kept[_DTYPE]})
    return section


def keep_dtype(context: EngineContext, dtype: object) -> None:
    """Remember in which numbers the model was loaded (torch's name of them)."""
    if _is_chosen(context.recipe.model):
        context.kept.setdefault(_DTYPE, str(dtype).removeprefix("torch."))


def _load(context: EngineContext) -> Any:
    model = load_model(begun_section(context))
    keep_dtype(context, model.dtype)
    return model


def _is_chosen(section: ModelSection) -> bool:
    return section.dtype == "auto" and section.gguf_file is None


def generation_defaults(context: EngineContext) -> Mapping[str, Any]:
    """What the model itself sets about generation."""
    if context.loaded is None:
        return load_generation_defaults(context.recipe.model)
    return context.loaded.text_side(context.recipe).generation_defaults
