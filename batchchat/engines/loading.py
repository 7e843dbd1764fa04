"""The model of a recipe, for the engines that run one here."""

from __future__ import annotations

from typing import Any

from batchchat.engines.base import EngineContext
from batchchat.models import load_model
from batchchat.models.devices import remarks


def load(context: EngineContext) -> Any:
    """Load it. The report hears what there is to say of the devices that it lies on."""
    model = load_model(context.recipe.model)
    for name, detail in remarks(model):
        context.meter.event(name, detail)
    return model
