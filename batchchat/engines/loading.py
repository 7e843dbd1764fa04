"""The model of a recipe, for the engines that run one here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from batchchat.engines.base import EngineContext
from batchchat.models import load_generation_defaults, load_model
from batchchat.models.arithmetic import computing_dtype
from batchchat.models.devices import remarks
from batchchat.recipe import Recipe
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
    model = load_model(begun_section(context), widened(context.recipe))
    keep_dtype(context, model.dtype)
    return model


def _is_chosen(section: ModelSection) -> bool:
    return section.dtype == "auto" and section.gguf_file is None


def widened(recipe: Recipe) -> Collection[str]:
    """Types of 16 bits whose weights the recipe's engine multiplies in single precision on this CPU, reading them as
    they are."""
    if recipe.engine.kind not in ("auto", "continuous"):
        return ()
    import torch

    from batchchat.engines.cpu.kernels import widens

    return [name for name in ("bfloat16", "float16") if widens(getattr(torch, name))]


def multiplied_by_torch(model: Any, context: EngineContext) -> Any:
    """A model that was loaded in numbers of 16 bits for the continuous engine, which cannot run it: in those in which
    torch is fast."""
    if context.loaded is not None or not _is_chosen(context.recipe.model):
        return model
    fast = computing_dtype(context.recipe.model, model.config)
    if fast != "float32" or context.kept.get(_DTYPE) == fast:
        return model
    context.kept[_DTYPE] = fast
    return model.float()


def generation_defaults(context: EngineContext) -> Mapping[str, Any]:
    """What the model itself sets about generation."""
    if context.loaded is None:
        return load_generation_defaults(context.recipe.model)
    return context.loaded.text_side(context.recipe).generation_defaults
