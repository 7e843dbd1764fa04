"""Engines on a model that is loaded, with settings by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from batchchat.engines.base import EngineConfig
from batchchat.engines.continuous.engine import ContinuousEngine
from batchchat.engines.cpu.packing import product_shapes
from batchchat.engines.pipeline.engine import PipelineEngine
from tests.support.requests import CODEC

_SETTINGS = {field.name for field in fields(EngineConfig)}


def continuous(model: Any, meter: Any, codec: Any = CODEC, **settings: Any) -> ContinuousEngine:
    """Settings of `EngineConfig`, and whatever else the engine takes."""
    config, others = _divided({"max_tokens": 8192, **settings})
    return ContinuousEngine(model, codec, meter, config, **others)


def padded(model: Any, meter: Any, codec: Any = CODEC, **settings: Any) -> PipelineEngine:
    config, others = _divided({"max_rows": 8, "max_tokens": 4096, **settings})
    return PipelineEngine(model, codec, meter, config, **others)


def each_by(name: str, model: Any) -> dict[str, Any]:
    """What a run keeps whose model's products were all computed by one candidate (`cpu.products`)."""
    return {"products": {shape.name: name for shape in product_shapes(model, model.dtype)}}


def _divided(settings: dict[str, Any]) -> tuple[EngineConfig, dict[str, Any]]:
    others = {name: value for name, value in settings.items() if name not in _SETTINGS}
    return EngineConfig(**{name: value for name, value in settings.items() if name in _SETTINGS}), others
