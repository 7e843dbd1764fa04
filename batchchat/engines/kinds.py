"""The kinds of engine that come along, without importing one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from batchchat.engines.base import Engine, EngineContext, EngineKind, Needs
from batchchat.engines.endpoint.options import EndpointOptions, cannot, needs
from batchchat.engines.scripted import ScriptedOptions
from batchchat.engines.scripted import build as build_scripted
from batchchat.engines.vllm.options import VllmOptions
from batchchat.engines.vllm.options import cannot as vllm_cannot


def _build_of(module: str) -> Callable[[EngineContext], Engine]:
    """The `build` of a module that is imported when an engine is built."""

    def build(context: EngineContext) -> Engine:
        engine: Engine = import_module(module).build(context)
        return engine

    return build


AUTO = EngineKind(_build_of("batchchat.engines.auto"), strict=True)
CONTINUOUS = EngineKind(_build_of("batchchat.engines.continuous"), strict=True)
PIPELINE = EngineKind(_build_of("batchchat.engines.pipeline.engine"))
ENDPOINT = EngineKind(
    _build_of("batchchat.engines.endpoint.engine"),
    needs,
    EndpointOptions,
    cannot,
)
VLLM = EngineKind(
    _build_of("batchchat.engines.vllm.engine"),
    options=VllmOptions,
    cannot=vllm_cannot,
    strict=True,
)
SCRIPTED = EngineKind(build_scripted, Needs(local_model=False), ScriptedOptions)
