"""What a run is made of: what its recipe names, found usable before anything is written, and later its engines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from batchchat.chats import Writer
from batchchat.engines import Budget, Engine, EngineContext
from batchchat.engines.machine import machine_facts
from batchchat.engines.together import EnginesTogether
from batchchat.engines.tools.engine import ToolEngine
from batchchat.evaluation import Evaluator
from batchchat.job.reading import expect_rows
from batchchat.job.selecting import make_selector
from batchchat.job.sides import Side, Sides, open_sides, side_facts
from batchchat.job.strict import StrictTools
from batchchat.job.structured import Structured
from batchchat.launch.base import Launcher
from batchchat.launch.opening import find_launcher, open_engine
from batchchat.models import require_in_reach, show_loading
from batchchat.models.identity import hash_ahead
from batchchat.models.loaded import LoadedModel
from batchchat.recipe import Recipe
from batchchat.reporting.meters import Meters
from batchchat.sources import Source
from batchchat.sources.from_recipe import open_recipe_source
from batchchat.store import RunStore
from batchchat.store.kept import Kept
from batchchat.store.manifest import make_manifest
from batchchat.store.publication import open_address

_BATCHES_AHEAD = 8
_MOST_AHEAD = 16384
"""Requests that are ready for any number of replicas: each look at the feed costs time for every one of them."""

MakeEngine = Callable[[EngineContext], Engine]
"""Makes an engine of one's own from what engines are made from."""
OwnEngine = Engine | MakeEngine
"""An engine that is there already is not closed, so that its owner may run it again."""


@dataclass(frozen=True)
class Parts:
    """What a recipe names, opened and found usable before anything is written."""

    evaluator: Evaluator
    source: Source
    sides: Sides
    launcher: Launcher | None
    user_launcher: Launcher | None
    manifest: Mapping[str, Any]


class _Lent:
    """An engine that its owner closes."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Nothing: it may be run again."""


def open_parts(
    recipe: Recipe, command: Sequence[str], quiet: bool, stack: ExitStack, loaded: LoadedModel | None
) -> Parts:
    """Everything that can be wrong with recipe, input and model is said here."""
    evaluator = Evaluator(recipe)
    make_selector(recipe)
    if recipe.reads_model and loaded is None:
        require_in_reach(recipe.model)
    source = stack.enter_context(open_recipe_source(recipe))
    inputs = source.fingerprint()
    expect_rows(source, recipe)
    if recipe.published_at is not None:
        open_address(recipe.published_at)
    if recipe.reads_model and loaded is None:
        hash_ahead(recipe.model)
    if recipe.reads_model:  # what else can be wrong was said before a large library is read
        show_loading(not quiet and sys.stderr.isatty())
    sides = open_sides(recipe, loaded)
    Structured(recipe, sides.text.codec).require(sides.assistant.resolver.resolve({}))
    StrictTools(recipe, sides.text.codec).require()
    launcher = None if loaded is not None else find_launcher(recipe)
    user_launcher = None if recipe.user is None else find_launcher(recipe.user)
    for found in (launcher, user_launcher):
        if found is not None:
            stack.callback(found.close)
    manifest = make_manifest(recipe, inputs, side_facts(recipe, sides), command)
    return Parts(evaluator, source, sides, launcher, user_launcher, manifest)


def open_engines(
    recipe: Recipe, parts: Parts, store: RunStore, meters: Meters, own: OwnEngine | None
) -> tuple[Engine, int]:
    """The engine of all sides, and how many requests are to be ready for it. `own` takes the place of the recipe's."""
    look_ahead = _look_ahead(recipe, parts.launcher)

    def context(recipe: Recipe, side: Side, suffix: str, loaded: LoadedModel | None = None) -> EngineContext:
        """`suffix` tells what an engine remembers from what another one does."""
        budget, kept = _budget(store, f"budget{suffix}"), Kept(store, f"engine{suffix}")
        return EngineContext(recipe, side.codec, meters, budget=budget, kept=kept, loaded=loaded)

    asked = context(recipe, parts.sides.assistant, "", parts.sides.loaded)
    if own is None:
        engine = open_engine(asked, parts.launcher)
    else:
        engine = own(asked) if callable(own) else _Lent(own)
    user, user_side, tools = recipe.user, parts.sides.user, parts.sides.tools
    if user is None and not recipe.runs_tools:
        return engine, look_ahead
    engines: dict[Writer, Engine] = {"assistant": engine}
    rooms: dict[Writer, int] = {"assistant": look_ahead}
    try:
        if user is not None and user_side is not None:
            engines["user"] = open_engine(context(user, user_side, ".user"), parts.user_launcher)
            rooms["user"] = _look_ahead(user, parts.user_launcher)
        if recipe.tools is not None and tools is not None:
            engines["tool"] = ToolEngine(recipe.tools, tools, meters)
            rooms["tool"] = look_ahead
    except BaseException:
        for opened in engines.values():
            opened.close()
        raise
    return EnginesTogether(engines, rooms), look_ahead


def _look_ahead(recipe: Recipe, launcher: Launcher | None) -> int:
    """How many requests are ready for an engine."""
    found = recipe.engine.look_ahead or _BATCHES_AHEAD * recipe.engine.max_batch_rows
    replicas = 1 if launcher is None else len(launcher.places)
    return found if replicas == 1 else max(found, min(_MOST_AHEAD, found * replicas))


def _budget(store: RunStore, key: str) -> Budget:
    """What fits into memory, as an earlier session of this run learned it on a machine like this one."""
    machine = machine_facts().as_dict()
    known = store.meta(key) or {}
    tokens = known["tokens"] if known.get("machine") == machine else None
    return Budget(tokens, lambda learned: store.set_meta(key, {"tokens": learned, "machine": machine}))
