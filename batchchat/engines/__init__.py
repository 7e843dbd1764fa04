"""Engines drain a feed of requests. One file each, found through a lazy table."""

from __future__ import annotations

import importlib

from batchchat.engines.base import Engine, EngineContext, EngineMeter, FollowingEngine, TokenListener
from batchchat.engines.memory import Budget

ENGINES: dict[str, str] = {
    "auto": "batchchat.engines.auto",
    "continuous": "batchchat.engines.continuous",
    "pipeline": "batchchat.engines.pipeline.engine",
    "scripted": "batchchat.engines.scripted",
}
"""Engine kind to the module whose `build(context)` makes it; imported only when asked for."""


def build_engine(kind: str, context: EngineContext) -> Engine:
    """The engine that a recipe's `engine.kind` names."""
    engine: Engine = importlib.import_module(ENGINES[kind]).build(context)
    return engine


__all__ = [
    "ENGINES",
    "Budget",
    "Engine",
    "EngineContext",
    "EngineMeter",
    "FollowingEngine",
    "TokenListener",
    "build_engine",
]
