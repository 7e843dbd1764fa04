"""The engine of a recipe: in this process, or in replicas."""

from __future__ import annotations

import sys

from batchchat.engines import Engine, EngineContext, build_engine
from batchchat.launch.base import Launcher
from batchchat.launch.devices import find_places
from batchchat.launch.messages import Begin
from batchchat.launch.versions import versions
from batchchat.models.identity import model_identity
from batchchat.recipe import Recipe


def find_launcher(recipe: Recipe) -> Launcher | None:
    """What starts the recipe's replicas, or None where its engine computes in the run's own process. Nothing is started
    yet; raises UsageError and EnvironmentFault where there is no such thing as the recipe asks for."""
    if recipe.engine.launcher == "ray":
        from batchchat.launch.on_ray import RayLauncher

        replicas, devices = recipe.engine.replicas, recipe.engine.devices_per_replica
        on_cpu = not recipe.engine.needs.local_model or recipe.model.device_map == "cpu"
        return RayLauncher(
            recipe.engine.ray_address,
            replicas if isinstance(replicas, int) else None,
            devices=0 if on_cpu else devices if isinstance(devices, int) else 1,
            cores=devices if isinstance(devices, int) else 1,
        )
    places = find_places(recipe)
    if places is None:
        return None
    from batchchat.launch.local import LocalLauncher

    return LocalLauncher(places)


def open_engine(context: EngineContext, launcher: Launcher | None) -> Engine:
    """What answers a recipe's requests. Raises UsageError and EnvironmentFault where it cannot be had."""
    recipe = context.recipe
    if launcher is None:
        return build_engine(recipe.engine.kind, context)
    from batchchat.launch.engine import ReplicatedEngine
    from batchchat.launch.scaling import Scaling

    elsewhere = recipe.engine.launcher != "local" and recipe.reads_model
    begin = Begin(
        versions(),
        recipe.model_dump(exclude_none=True),
        tuple(sys.path),
        context.budget.tokens,
        model_identity(recipe.model) if elsewhere else None,
    )
    least = recipe.engine.min_replicas
    scaling = None if least is None else Scaling(least)
    return ReplicatedEngine(launcher, begin, context.meter, context.budget, context.kept, scaling)
