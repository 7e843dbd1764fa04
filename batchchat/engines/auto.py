"""`engine.kind: auto`: in-flight batching where the model passes its self-check, else padded batches."""

from __future__ import annotations

from batchchat.engines.base import Engine, EngineContext
from batchchat.engines.continuous import try_build
from batchchat.engines.loading import load, multiplied_by_torch
from batchchat.engines.pipeline import engine as pipeline
from batchchat.errors import UsageError


def build(context: EngineContext) -> Engine:
    """Loads the recipe's model once. The report says why where the pipeline is taken."""
    recipe = context.recipe
    model = load(context)
    if recipe.model.parallel == "none":
        engine, reason = try_build(model, context)
    else:
        engine, reason = None, f"model.parallel is {recipe.model.parallel}, and it runs in one process"
    if engine is not None:
        return engine
    if recipe.engine.reproducible == "strict":
        raise UsageError(
            f"engine.reproducible is strict, which only the continuous engine gives, and it cannot run "
            f"{recipe.model.name}: {reason}; set engine.reproducible=fast"
        )
    context.meter.event("fallback", f"the pipeline engine is used, since the continuous engine cannot: {reason}")
    return pipeline.build_on(multiplied_by_torch(model, context), context)
