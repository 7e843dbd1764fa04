"""What an engine says of itself when it is done: typed, one class per kind, and one for engines from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from batchchat.chats.record import (
    Bytes,
    MeanTokens,
    Money,
    Numbers,
    Ratio,
    Record,
    Requests,
    Rows,
    Seconds,
    Share,
    Times,
    Tokens,
    Unit,
)
from batchchat.models.facts import ModelFacts


class PhaseWork(Record):
    """Forward passes of one kind. Padding counts: it is computed like anything else."""

    passes: Times = Field(description="Forward passes.")
    token_places: Tokens = Field(description="Token places that were computed, padding included.")
    outputs: Tokens = Field(description="Token places whose logits were computed.")
    context_tokens: Tokens = Field(description="Sum, over the token places computed, of the places that each sees.")
    cache_token_reads: Tokens = Field(description="Sum, over the passes, of the places in the cache that a pass reads.")
    seconds: Seconds = Field(description="Time of these passes.")


class WorkDone(Record):
    """What the model computed, apart for the two phases of an answer."""

    prefill: PhaseWork = Field(description="The prompts.")
    decode: PhaseWork = Field(description="The answers, token by token.")


class DraftFacts(Record):
    """What came of guessing ahead."""

    by: str = Field(description="The model that drafts, or `prompt look-up`.")
    tokens: Tokens = Field(description="Tokens of a draft, at most.")
    ngram: Tokens | None = Field(
        default=None, description="Of prompt look-up: the longest run of tokens that is looked up."
    )
    parameters: Numbers | None = Field(default=None, description="Weights of the model that drafts.")
    footprint_bytes: Bytes | None = Field(default=None, description="The same as they lie in memory.")
    kv_peak_tokens: Tokens | None = Field(
        default=None, description="Most tokens in the cache of the model that drafts."
    )
    proposed: Tokens = Field(description="Tokens that were drafted.")
    accepted: Tokens = Field(description="Of them, those that the model would have written itself.")
    acceptance: Share | None = Field(description="Accepted of proposed tokens; null where none was proposed.")
    tokens_per_step: MeanTokens | None = Field(
        description="Tokens that a row with a draft got in a step; null where none was proposed."
    )
    steps_without: Times = Field(description="Steps that were computed without drafts.")
    speed_up: Ratio | None = Field(
        description="How much longer the steps with drafts would have taken without; null where none was tried without."
    )


class AttentionFacts(Record):
    """Who attends over the pages of the cache of keys and values."""

    by: tuple[str, ...] = Field(
        description="`triton` and `torch varlen` are kernels, `gathered` and `torch` torch's plain operators."
    )
    not_by: dict[str, str] = Field(description="Those that should be faster, and why each was not taken.")


class ProductFacts(Record):
    """What computes the products of one shape, on a CPU: the fastest way in a trial on this processor."""

    product: str = Field(description="Width of its rows and number of its outputs.")
    count: Annotated[int, Unit("products")] = Field(description="How many the model has of it.")
    by: str = Field(description="What computes it.")
    weights: str = Field(description="Number type of the weights as they are held.")
    arithmetic: str = Field(description="Number type in which it is multiplied and summed up.")
    held_bytes: Bytes = Field(description="Memory that its weights take, laid out for the processor.")


class QuantizedFacts(Record):
    """Who multiplies the weights that bitsandbytes quantized."""

    by: str = Field(
        description="The vector instructions of batchchat's kernels, such as `avx512-vnni`; `bitsandbytes` where no "
        "kernel computes a layer."
    )
    layers: Annotated[int, Unit("layers")] = Field(description="Linear layers that kernels compute.")
    bytes_held: Bytes = Field(description="What their weights and scales take in memory, which kernels read in place.")
    difference: Annotated[float, Unit("standard deviations")] | None = Field(
        description="Largest difference of a product to bitsandbytes' own arithmetic, in the trial of each kind of "
        "layer, in those of its outputs; null where none was tried."
    )
    left: dict[str, Annotated[int, Unit("layers")]] = Field(
        description="Why bitsandbytes computes layers itself, and how many for each reason."
    )


class ReplicaFacts(Record):
    """One of several replicas of the engine."""

    place: str = Field(description="Where it computed.")
    answered: Requests = Field(description="Requests that it answered.")
    busy: Share | None = Field(description="Of the time that it was ready, when it had work; null if it never was.")
    idle_at_end: Seconds | None = Field(
        default=None, description="From its last answer until the last one of all replicas."
    )
    restarts: Times = Field(description="How often the last session started it again.")
    lost: Requests = Field(description="Requests that it had when it ended, which were handed out anew.")
    loading_seconds: Seconds | None = Field(default=None, description="From its first start until it was ready.")
    given_up: str | None = Field(default=None, description="How it ended, where it could not be kept alive.")
    host_peak_bytes: Bytes | None = Field(description="Its largest resident set; null where it did not live to say.")
    device_peak_bytes: Bytes | None = Field(description="Most that its tensors took on accelerators.")


class EngineFacts(ModelFacts):
    """An engine and its model. An engine of another package puts what is its own into `details`."""

    engine: str = Field(description="The kind of the engine.")
    note: str | None = Field(default=None, description="What there is to know where the engine was not needed.")
    learned_batch_tokens: Tokens | None = Field(
        default=None,
        description="Token places that fit into memory, learned from a batch that did not; null if all fitted.",
    )
    work: WorkDone | None = Field(default=None, description="What the model computed, where the engine counts it.")
    replicas: tuple[ReplicaFacts, ...] = Field(
        default=(), description="Each replica, where the engine has several: the other facts are of one, counts of all."
    )
    replica_restarts: Times | None = Field(
        default=None, description="How often replicas were started again after they ended, all sessions together."
    )
    details: dict[str, JsonValue] = Field(default={}, description="What an engine of another package says besides.")


class ScriptedFacts(EngineFacts):
    """The engine without a model."""

    engine: Literal["scripted"] = Field(description="The kind of the engine.")
    answer: str = Field(description="How it answers.")


class PipelineFacts(EngineFacts):
    """Padded batches through transformers' pipeline."""

    engine: Literal["pipeline"] = Field(description="The kind of the engine.")
    processes: Annotated[int, Unit("processes")] = Field(description="Processes that compute one model.")
    batches: str = Field(description="Which rows may share a batch, as a trial of the model found.")
    max_batch_rows: Rows = Field(description="Rows of a batch, at most.")
    max_batch_tokens: Tokens = Field(description="Padded token places of a batch, at most.")
    speculation: tuple[str, ...] = Field(default=(), description="Arguments by which `generate` drafts.")


class ContinuousFacts(EngineFacts):
    """In-flight batching."""

    engine: Literal["continuous"] = Field(description="The kind of the engine.")
    reproducible: Literal["fast", "strict"] = Field(
        description="`strict`: answers are bit for bit those of a chat alone."
    )
    passes: Literal["of any size", "of fixed size"] | None = Field(
        default=None, description="Of strict mode: its passes."
    )
    computed_by: str = Field(description="What computed the layers: `program`, `kernels` or `torch`.")
    products: tuple[ProductFacts, ...] = Field(
        default=(), description="What computes the linear layers, on a CPU; empty elsewhere, or where torch does."
    )
    quantized: QuantizedFacts | None = Field(
        default=None, description="Who multiplies weights that bitsandbytes quantized, where there are any."
    )
    pages: AttentionFacts | None = Field(
        default=None, description="Who attends over the cache, where it is one of pages, as on an accelerator."
    )
    max_rows: Requests = Field(description="Requests in flight, at most.")
    kv_budget_tokens: Tokens = Field(description="Tokens that there was room for in the cache.")
    kv_peak_tokens: Tokens = Field(description="Most tokens that the cache had places for.")
    prompt_tokens_reused: Tokens = Field(description="Tokens of prompts that were taken over and not computed.")
    preempted: Times = Field(description="How often a request gave up its place for want of memory.")
    steps_recorded: Times = Field(
        default=0, description="Numbers of rows for which a step was recorded when the run began."
    )
    recording_seconds: Seconds = Field(default=0.0, description="How long that took.")
    steps_replayed: Times = Field(description="Steps that were replayed from a recorded graph.")
    drafts: DraftFacts | None = Field(default=None, description="What came of drafts, where there were any.")


class ConcurrencyChange(Record):
    """From a moment on, so many requests were in flight at most."""

    seconds: Seconds = Field(description="Since the process began.")
    limit: Requests = Field(description="Requests in flight, at most.")
    why: Literal["start", "round", "refused", "trouble"] = Field(
        description="`round`: nothing was refused in a round; `refused`: the server said that there were too many."
    )


class CostFacts(Record):
    """What the server's answers cost, in the currency of the prices."""

    spent: Money = Field(description="On answers, by the server's own count of tokens, all sessions together.")
    unconfirmed: Money = Field(description="On requests that gave no answer and may be charged, at the most.")
    allowed: Money | None = Field(description="`engine.endpoint.max_cost`.")


class EndpointFacts(EngineFacts):
    """A server."""

    engine: Literal["endpoint"] = Field(description="The kind of the engine.")
    url: str = Field(description="Its address.")
    served_model: str | None = Field(description="What it calls the model that answered.")
    concurrency: tuple[ConcurrencyChange, ...] = Field(description="How many requests were in flight, over time.")
    retries: Times = Field(description="How often a request was sent again.")
    refusals: Times = Field(description="How often the server said that there were too many requests.")
    cost: CostFacts | None = Field(default=None, description="With `engine.endpoint.prices`.")


class VllmFacts(EngineFacts):
    """vLLM."""

    engine: Literal["vllm"] = Field(description="The kind of the engine.")
    version: str = Field(description="vLLM's version.")
    reproducible: Literal["fast", "strict"] = Field(
        description="`strict`: what vLLM promises for its batch invariance."
    )
    quantization: str | None = Field(description="How its weights are quantized, by vLLM's name.")
    tensor_parallel: Annotated[int, Unit("devices")] = Field(description="Devices over which a layer is split.")
    max_rows: Requests = Field(description="Requests in flight, at most.")
    max_context: Tokens = Field(description="Tokens that prompt and answer of one request had room for.")
    kv_budget_tokens: Tokens = Field(description="Tokens that there was room for in the cache.")
    prompt_tokens_reused: Tokens = Field(description="Tokens of prompts that were taken over and not computed.")


_KINDS: dict[str, type[EngineFacts]] = {
    "scripted": ScriptedFacts,
    "pipeline": PipelineFacts,
    "continuous": ContinuousFacts,
    "endpoint": EndpointFacts,
    "vllm": VllmFacts,
}


def _kind(value: Any) -> str:
    """Which class holds the facts of an engine; that of any engine where only its name is known."""
    if isinstance(value, EngineFacts):
        return next((kind for kind, facts in _KINDS.items() if isinstance(value, facts)), "other")
    kind = value.get("engine") if isinstance(value, Mapping) else None
    return kind if kind in _KINDS and not value.keys() <= {"engine", "note"} else "other"


AnyEngineFacts = Annotated[
    Annotated[ScriptedFacts, Tag("scripted")]
    | Annotated[PipelineFacts, Tag("pipeline")]
    | Annotated[ContinuousFacts, Tag("continuous")]
    | Annotated[EndpointFacts, Tag("endpoint")]
    | Annotated[VllmFacts, Tag("vllm")]
    | Annotated[EngineFacts, Tag("other")],
    Discriminator(_kind),
]
"""The facts of any engine, read back as the class that wrote them."""
