"""In-flight batching on any transformers model whose attention is replaceable."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from batchchat.engines.base import EngineConfig, EngineContext
from batchchat.engines.continuous.acceleration import QUANTIZED, acceleration
from batchchat.engines.continuous.admission.batch_invariance import passes_can_be_shared, rows_are_independent
from batchchat.engines.continuous.admission.self_check import self_check
from batchchat.engines.continuous.engine import ContinuousEngine
from batchchat.engines.continuous.graphs import CudaGraphs
from batchchat.engines.continuous.model_runner import NO_PROGRAM
from batchchat.engines.continuous.paged.sizing import page_tokens, try_largest, try_recording
from batchchat.engines.continuous.passes import (
    WIDE_CHUNK,
    WIDE_INVARIANT_CHUNK,
    fixed_sizes,
    pass_sizes,
    recorded_forms,
)
from batchchat.engines.continuous.speculative.drafters import Drafter, LookUp, ModelDrafts
from batchchat.engines.loading import generation_defaults, load, widened
from batchchat.errors import UsageError
from batchchat.models.quantized import mixes_rows
from batchchat.models.shape import has_experts
from batchchat.prompts import resolve_settings

_UNPROVEN = "its products give a row other bits at another place of a pass"


def build(context: EngineContext) -> ContinuousEngine:
    """The engine of a recipe: loads its model. Raises UsageError, with the reason, where it cannot be run."""
    model = load(context)
    engine, reason = try_build(model, context)
    if engine is None:
        raise UsageError(
            f"the continuous engine cannot run {context.recipe.model.name}: {reason}; set engine.kind=pipeline"
        )
    return engine


def try_build(
    model: Any, context: EngineContext, drafter: Drafter | None = None
) -> tuple[ContinuousEngine | None, str]:
    """The engine for a loaded model, or None and why the model or the recipe needs another one. Runs, chats and
    benchmarks all get theirs here. `drafter` takes the place of what the recipe's `model.draft` asks for."""
    flags = _flags(context)
    if flags:
        return None, f"it does not know {flags[0]}"
    undoing = ExitStack()
    engine = None
    try:
        before = context.kept.get("products")
        undoing.callback(prepare(model, context.recipe.engine.reproducible == "strict", context.kept))
        if before not in (None, context.kept.get("products")):
            context.meter.event(
                "other_products", "this processor cannot compute as the run began, so its numbers are rounded otherwise"
            )
        engine, reason = _build(model, context, drafter, undoing)
    finally:
        if engine is None:
            undoing.close()
    return engine, reason


def _build(
    model: Any, context: EngineContext, drafter: Drafter | None, undoing: ExitStack
) -> tuple[ContinuousEngine | None, str]:
    """The engine for a prepared model, or why there is none. `undoing` holds what undoes what was changed for it."""
    found = self_check(model)
    if found.reason is not None:
        return None, found.reason
    if found.difference is not None:
        context.meter.event(
            "self_check", f"logits differ from the plain forward by {found.difference:.2g} standard deviations"
        )
    for name, why in ({} if found.pages is None else found.pages.not_by).items():
        context.meter.event("attention_fallback", f"{name} does not attend over the pages: {why}")
    if model in NO_PROGRAM:
        context.meter.event("no_program", f"the model's modules compute its layers: {NO_PROGRAM[model]}")
    for why, layers in QUANTIZED[model].left.items() if model in QUANTIZED else ():
        context.meter.event("quantized_fallback", f"bitsandbytes itself computes {layers} layers: {why}")
    config = _config(model, context)
    drafter = drafter or _drafter(model, context, undoing)
    if config.batch_invariant:
        proven = _strict(model, config)
        if proven is None:
            return None, f"{_unproven(model)}, which strict mode rules out"
        config = proven
    if config.max_tokens == 0:
        config = replace(config, max_tokens=_page_tokens(model, config))
    engine = ContinuousEngine(
        model,
        context.codec,
        context.meter,
        config,
        on_token=context.on_token,
        budget=context.budget,
        drafter=drafter,
        record=CudaGraphs(_device(model)) if config.record_graphs else None,
        undo=undoing.close,
    )
    return engine, ""


def _strict(model: Any, config: EngineConfig) -> EngineConfig | None:
    """What passes a trial allows in strict mode: of any size, of fixed sizes that are shared, or on a CPU, where each
    prompt has one for itself, of fixed size. None where nothing is known to give the same bits, as with experts that
    torch computes: these have passes of their own."""
    if mixes_rows(model):
        return None
    on_cpu, is_routed = _device(model).type == "cpu", has_experts(model.config)
    if (on_cpu or not is_routed) and rows_are_independent(model, pass_sizes(config)):
        return replace(config, products_are_invariant=True)
    if is_routed:
        return None
    if on_cpu:
        return config
    shared = replace(config, shared_passes=True)
    return shared if passes_can_be_shared(model, *fixed_sizes(shared)) else None


def _unproven(model: Any) -> str:
    """Why nothing is known to give the same bits."""
    if mixes_rows(model):
        return "how bitsandbytes multiplies a row in 8 bits depends on the other rows"
    return "how many rows its experts compute depends on the other rows" if has_experts(model.config) else _UNPROVEN


def prepare(
    model: Any, batch_invariant: bool = False, kept: MutableMapping[str, Any] | None = None
) -> Callable[[], None]:
    """Let a model compute as fast as its device allows. Returns what undoes it. `batch_invariant` and `kept`: as
    `Acceleration` says."""
    faster = acceleration(_device(model))
    return (lambda: None) if faster is None else faster.prepare(model, batch_invariant, kept)


def _config(model: Any, context: EngineContext) -> EngineConfig:
    section, draft, device = context.recipe.engine, context.recipe.model.draft, _device(model)
    strict, narrow = section.reproducible == "strict", device.type == "cpu"
    measured = section.max_batch_tokens is None and not narrow
    wide = WIDE_INVARIANT_CHUNK if strict else WIDE_CHUNK
    return EngineConfig(
        max_rows=section.max_batch_rows,
        max_tokens=0 if measured else section.batch_tokens,
        chunk=EngineConfig.chunk if narrow else wide,
        batch_invariant=strict,
        always_draft=draft is not None and draft.force,
        record_graphs=section.cuda_graphs and _is_on_one_gpu(model),
        overlap=not narrow,
    )


def _page_tokens(model: Any, config: EngineConfig) -> int:
    """Tokens whose keys and values an accelerator holds beside the weights, a pass of the largest size, and recordings
    of steps."""
    trial = try_largest(model, max(pass_sizes(config)), config.max_rows)
    if config.record_graphs:
        recorded = try_recording(model, recorded_forms(config), CudaGraphs(_device(model)), config.batch_invariant)
        trial = trial._replace(recorded_bytes=recorded)
    return page_tokens(trial, _device(model))


def _device(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    return device


def _flags(context: EngineContext) -> list[str]:
    """Flags of `generate` that every row of the recipe has, and where each is set."""
    recipe = context.recipe
    defaults = generation_defaults(context)
    own = {name for name, _ in recipe.generation.passthrough()}
    flags = [name for name, _ in resolve_settings(recipe.generation, {}, defaults, context.codec).flags]
    return [f"generation.{name}" if name in own else f"{name}, which the model's own file sets" for name in flags]


def _is_on_one_gpu(model: Any) -> bool:
    places = getattr(model, "hf_device_map", None) or {"": model.device}
    return len({str(place) for place in places.values()}) == 1 and model.device.type == "cuda"


def _drafter(model: Any, context: EngineContext, undoing: ExitStack) -> Drafter | None:
    """What the recipe's `model.draft` asks for."""
    from batchchat.models.draft import load_draft

    draft = context.recipe.model.draft
    if draft is None:
        return None
    small = load_draft(context.recipe.model, model, context.codec.tokenizer, widened(context.recipe))
    if small is None:
        return LookUp(draft.tokens, draft.ngram)
    undoing.callback(prepare(small))
    vocab_size = int(model.get_output_embeddings().weight.shape[0])
    return ModelDrafts(small, draft.name, draft.tokens, context.recipe.engine.batch_tokens, vocab_size)
