"""Engines drain a feed of requests. One file each, found through a lazy table."""

from __future__ import annotations

from batchchat.engines.base import (
    Engine,
    EngineContext,
    EngineKind,
    EngineMeter,
    FollowingEngine,
    Needs,
    PaidEngine,
    TokenListener,
)
from batchchat.engines.facts import EngineFacts
from batchchat.engines.memory import Budget
from batchchat.plugins.tables import ENGINES


def build_engine(kind: str, context: EngineContext) -> Engine:
    """The engine that a recipe's `engine.kind` names."""
    found: EngineKind = ENGINES[kind]
    return found.build(context)


__all__ = [
    "ENGINES",
    "Budget",
    "Engine",
    "EngineContext",
    "EngineFacts",
    "EngineKind",
    "EngineMeter",
    "FollowingEngine",
    "Needs",
    "PaidEngine",
    "TokenListener",
    "build_engine",
]
