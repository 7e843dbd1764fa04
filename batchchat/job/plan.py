"""Look before the run at what it will cost: memory, the rows that fit, and the job's tokens.

Everything comes from the model's config and a sample of the prompts; no weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from batchchat.engines.loading import widened
from batchchat.errors import UsageError
from batchchat.job.check import JobTokens, check
from batchchat.models import load_config
from batchchat.models.arithmetic import computing_dtype
from batchchat.models.draft import draft_section
from batchchat.models.memory import (
    DTYPE_BYTES,
    KV_BYTES,
    PACKED_SHARE,
    Batch,
    MemoryEstimate,
    batch_memory,
    cache_bytes,
    rows_that_fit,
    weight_bytes,
)
from batchchat.models.placement import Device, place_weights
from batchchat.models.shape import ModelShape, empty_model, shape_of
from batchchat.models.text import checkpoint_dtype
from batchchat.recipe import Recipe
from batchchat.recipe.model import FROM_THE_CHAT, ModelSection
from batchchat.reporting.speeds import known_speed

USABLE = 0.9
"""Share of a device's memory that is planned with: the rest is for the runtime, kernels and pieces too small to use."""


@dataclass(frozen=True)
class Option:
    """One way to load the weights, and the rows that then fit at once; `rows` is 0 where not even one does."""

    weights: str
    weight_bytes: int
    rows: int


@dataclass(frozen=True)
class OnDevice:
    """What lies on one device: `share` of the model's layers and so of the cache."""

    device: str
    total_bytes: int
    usable_bytes: int
    weight_bytes: int
    share: float
    rows: int


@dataclass(frozen=True)
class DraftCost:
    """What a draft model takes beside the model: it lies on the first device, with a cache of its own."""

    name: str
    weights: int
    cache_per_token: int


@dataclass(frozen=True)
class Plan:
    """What a recipe's model and input need."""

    model: str
    dtype: str
    quantization: str
    shape: ModelShape
    prompt_tokens: int
    """Of the longest prompt in the sample, earlier turns at their full length included."""
    answer_tokens: int
    weights: int
    packed: int
    """Of the copy of the linear layers that the continuous engine lays out for a CPU; 0 where it makes none."""
    cache_per_token: int
    cache_per_row: int
    draft: DraftCost | None
    recipe_batch: Batch
    """The largest batch that the recipe allows."""
    memory: MemoryEstimate
    """At the largest moment of that batch."""
    devices: Sequence[OnDevice]
    left_over: int
    """Bytes of weights that fit on none of the devices: they go to the CPU or the disk, which is slow."""
    rows: int
    """Rows of this length that fit at once."""
    options: Sequence[Option]
    cache_formats: Mapping[str, int]
    """Bytes per token of the cache in other number formats."""
    tokens: JobTokens
    seconds: float | None
    missing: Mapping[str, str]


def make_plan(recipe: Recipe, devices: Sequence[Device], rows: int = 100) -> Plan:
    """The plan of a recipe on these devices, its prompts known from the first `rows` rows. Raises UsageError where
    the recipe has no model, and whatever `check` raises."""
    if not recipe.engine.needs.local_model:
        raise UsageError(
            f"engine.kind {recipe.engine.kind} computes with no model of this machine, so there is no memory to plan; "
            "look at its prompts with: batchchat check"
        )
    section = recipe.model
    config = load_config(section)
    model = empty_model(config, section.trust_remote_code)
    shape = shape_of(model)
    on_cpu = [device.name for device in devices] == ["cpu"]
    stored = checkpoint_dtype(config) if section.dtype == "auto" else section.dtype
    dtype = computing_dtype(section, config, devices[0].bytes, widened(recipe)) if on_cpu else stored
    if dtype not in DTYPE_BYTES:
        raise UsageError(
            f"the checkpoint of {section.name} is stored as {dtype}, whose memory cannot be planned; set "
            f"model.dtype to one of {', '.join(DTYPE_BYTES)}"
        )
    found = check(recipe, rows, count=True)
    prompt, answer = max(1, found.tokens.longest_prompt), found.settings.max_new_tokens
    size, eager = DTYPE_BYTES[dtype], section.attn_implementation == "eager"
    draft = _draft_cost(section)
    packed = _packed_bytes(recipe, shape, dtype, devices)
    job = _Placing(model, shape, size, devices, prompt, answer, eager, draft, packed)
    ways = dict.fromkeys((section.quantization, "none", "8bit", "4bit"))
    placed = {way: job.placed(way, section.bitsandbytes.double_quantization) for way in ways}
    chosen = placed[section.quantization]
    batch = Batch(_allowed_rows(recipe, prompt + answer), prompt, answer)
    seconds, missing = _seconds(section, dtype, recipe, found.tokens)
    return Plan(
        model=section.name,
        dtype=dtype,
        quantization=section.quantization,
        shape=shape,
        prompt_tokens=prompt,
        answer_tokens=answer,
        weights=chosen.weights,
        packed=packed if section.quantization == "none" else 0,
        cache_per_token=round(shape.cache_growth(1) * size),
        cache_per_row=cache_bytes(shape, prompt + answer, size),
        draft=draft,
        recipe_batch=batch,
        memory=batch_memory(shape, batch, chosen.weights, size, eager),
        devices=chosen.parts,
        left_over=chosen.left_over,
        rows=chosen.rows,
        options=[Option(dtype if way == "none" else way, one.weights, one.rows) for way, one in placed.items()],
        cache_formats={name: ceil(shape.cache_growth(1) * width) for name, width in KV_BYTES.items()},
        tokens=found.tokens,
        seconds=seconds,
        missing={**shape.missing, **missing},
    )


@dataclass(frozen=True)
class _Placed:
    """Weights of one kind on the devices: the rows that then fit, and bytes of weights that fit nowhere."""

    rows: int
    weights: int
    parts: list[OnDevice]
    left_over: int


@dataclass(frozen=True)
class _Placing:
    """A model and rows of so many tokens that look for room on devices."""

    model: Any
    shape: ModelShape
    size: int
    devices: Sequence[Device]
    prompt: int
    answer: int
    eager: bool
    draft: DraftCost | None
    packed: int

    def placed(self, quantization: str, double: bool) -> _Placed:
        """With weights of this kind."""
        weights = weight_bytes(self.shape, self.size, quantization, double)
        usable = [Device(device.name, int(device.bytes * USABLE)) for device in self.devices]
        beside = (0 if self.draft is None else self.draft.weights) + (self.packed if quantization == "none" else 0)
        if beside and usable:  # quantized weights are not laid out anew
            usable[0] = Device(usable[0].name, max(0, usable[0].bytes - beside))
        places, left_over = place_weights(self.model, usable, weights)
        drafting = 0 if self.draft is None else self.draft.cache_per_token * (self.prompt + self.answer)
        parts = []
        for device, whole, (held, share) in zip(usable, self.devices, places, strict=True):
            room = int((device.bytes - held) / share) if share else 0
            fit = 0
            if share:
                fit = rows_that_fit(self.shape, self.prompt, self.answer, room, self.size, self.eager, drafting)
            parts.append(OnDevice(device.name, whole.bytes, device.bytes, held, round(share, 4), fit))
        used = [part.rows for part in parts if part.share]
        return _Placed(min(used) if used and not left_over else 0, weights, parts, left_over)


def _seconds(
    section: ModelSection, dtype: str, recipe: Recipe, tokens: JobTokens
) -> tuple[float | None, dict[str, str]]:
    """How long the job takes, from an earlier run's speed; what is missing for that."""
    kinds = ("continuous", "pipeline") if recipe.engine.kind == "auto" else (recipe.engine.kind,)
    speeds = (known_speed(section.name, dtype, section.quantization, kind) for kind in kinds)
    speed = next((speed for speed in speeds if speed is not None), None)
    missing: dict[str, str] = {}
    if speed is None:
        missing["seconds"] = "no run of this model on this machine has been finished yet, so its speed is not known"
    if tokens.generated is None:
        missing["tokens"] = "the input's length is not known before it is read"
    return (None if speed is None or tokens.generated is None else tokens.generated / speed), missing


def _draft_cost(section: ModelSection) -> DraftCost | None:
    if section.draft is None or section.draft.name == FROM_THE_CHAT:
        return None
    own = draft_section(section, section.draft)
    config = load_config(own)
    shape = shape_of(empty_model(config, own.trust_remote_code))
    size = DTYPE_BYTES[checkpoint_dtype(config) if own.dtype == "auto" else own.dtype]
    return DraftCost(own.name, weight_bytes(shape, size, "none", double=False), round(shape.cache_growth(1) * size))


def _packed_bytes(recipe: Recipe, shape: ModelShape, dtype: str, devices: Sequence[Device]) -> int:
    """What the copy takes that is laid out for a CPU's matrix units; it is left out where it would take too much."""
    if recipe.engine.kind not in ("auto", "continuous") or dtype not in DTYPE_BYTES:
        return 0
    if [device.name for device in devices] != ["cpu"]:
        return 0
    size = DTYPE_BYTES[dtype]
    copy = (shape.linear_parameters + shape.hidden * shape.vocabulary) * size
    return copy if copy <= PACKED_SHARE * (devices[0].bytes - weight_bytes(shape, size)) else 0


def plain(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    from dataclasses import asdict

    return {**asdict(plan), "memory": {**asdict(plan.memory), "total": plan.memory.total}}


def _allowed_rows(recipe: Recipe, tokens: int) -> int:
    """Rows of so many tokens in the largest batch that the recipe allows."""
    return max(1, min(recipe.engine.max_batch_rows, recipe.engine.batch_tokens // tokens))
