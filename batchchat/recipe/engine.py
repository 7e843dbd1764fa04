"""How requests are batched and computed, and whether an engine can do what a recipe asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo

from batchchat.chats import GrammarBackend
from batchchat.plugins.tables import ENGINES
from batchchat.recipe.model import NO_MODEL
from batchchat.recipe.open_section import OneOf, OpenSection
from batchchat.recipe.section import MAY_CHANGE, Text

BATCH_TOKENS = 16384
"""Tokens in one batch where the recipe does not say."""


class EngineSection(OpenSection):
    """How requests are batched and computed."""

    tables = (ENGINES,)

    kind: Annotated[str, OneOf(ENGINES)] = Field(
        default="auto",
        description="continuous lets rows leave and enter while others are written; pipeline computes padded batches "
        "through transformers' text-generation pipeline; auto is continuous where the model passes its self-check, "
        "else pipeline; vllm computes with vLLM, which must be installed; endpoint asks a server that speaks OpenAI's "
        "chat API; scripted answers without a model.",
    )
    reproducible: Literal["fast", "strict"] = Field(
        default="fast",
        description="With strict an answer of the continuous engine is bit for bit the same whatever else is computed "
        "with it: its passes have fixed shapes, except where a trial at load shows that the shape changes no bit. With "
        "vllm it is what vLLM promises for its batch invariance, on accelerators. fast makes no such promise.",
    )
    max_batch_rows: int = Field(
        default=32,
        ge=1,
        description="The most rows in one batch, or in flight in the continuous engine and in vLLM.",
        json_schema_extra=MAY_CHANGE,
    )
    max_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="The most tokens in one batch, padding and answers included; a row that is longer runs alone. In "
        "the continuous engine and in vLLM the most tokens whose keys and values are kept; a row that is longer is an "
        f"error. null is {BATCH_TOKENS}, but in these two on an accelerator what its free memory holds.",
        examples=[BATCH_TOKENS],
        json_schema_extra=MAY_CHANGE,
    )
    cuda_graphs: bool = Field(
        default=True,
        description="On a GPU the continuous engine records steps when it starts, those that only decode and those "
        "with few tokens of prompts, and replays them; false computes every step anew. vLLM compiles and records the "
        "model, a minute at each start; false leaves both out.",
        json_schema_extra=MAY_CHANGE,
    )
    grammar_backend: GrammarBackend = Field(
        default="llguidance",
        description="The library that keeps answers written on this machine in their form (generation.structured, "
        "strict tools). llguidance keeps more of what schemas say. xgrammar (the extra xgrammar) refuses more, writes "
        "no escapes in texts with a pattern or a length and no properties besides those that an object lists.",
    )
    look_ahead: int = Field(
        default=0,
        ge=0,
        description="Requests among which batches are planned, so that rows of like length share one; 0 is automatic.",
        json_schema_extra=MAY_CHANGE,
    )

    replicas: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="How many processes compute, each with the whole model on devices, or on a CPU cores, of its own; "
        "with 1 the run's own process does. auto is one for each accelerator, or for each group of them where the "
        "model needs several, and 1 on a CPU. One that ends is started again, and its requests go to the others.",
        examples=[2],
        json_schema_extra=MAY_CHANGE,
    )
    min_replicas: int | None = Field(
        default=None,
        ge=1,
        description="With it replicas come and go with the work: so many at the start, more up to engine.replicas as "
        "long as their rows are not enough for the requests that are ready, fewer when there is nothing left for them. "
        "On a Ray cluster that scales itself, its nodes then do so, too. null holds all of them to the end.",
        examples=[1],
        json_schema_extra=MAY_CHANGE,
    )
    launcher: Literal["local", "ray"] = Field(
        default="local",
        description="local starts the replicas on this machine, ray as actors of a Ray cluster (the extra ray); auto "
        "replicas are then as many as the cluster has accelerators for, those of nodes that join later included.",
        json_schema_extra=MAY_CHANGE,
    )
    ray_address: Text = Field(
        default="auto",
        description="Address of the Ray cluster, such as 10.0.0.1:6379; auto is the one that this machine belongs to.",
        json_schema_extra=MAY_CHANGE,
    )
    devices_per_replica: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Accelerators of each replica; auto is as few as hold the model's weights.",
        examples=[1],
        json_schema_extra=MAY_CHANGE,
    )

    @classmethod
    def entries(cls, data: Mapping[str, Any]) -> Iterator[Any]:
        yield data.get("kind")

    @property
    def options(self) -> Any:
        """The options of this kind; None where it has none."""
        return self.options_of(self.kind)

    @property
    def needs(self) -> Any:
        """What this kind needs of a model (`engines.base.Needs`)."""
        needs = ENGINES[self.kind].needs
        return needs(self.options) if callable(needs) else needs

    @property
    def batch_tokens(self) -> int:
        """`max_batch_tokens`, or its value where nothing is known of the memory."""
        return BATCH_TOKENS if self.max_batch_tokens is None else self.max_batch_tokens


def engine_has_its_model(engine: EngineSection, info: ValidationInfo) -> EngineSection:
    """The engine, or ValueError where it cannot do what is asked, or needs a model and `model.name` stands for none."""
    model = info.data.get("model")
    if engine.kind not in ("auto", "pipeline") and model is not None and model.parallel != "none":
        raise ValueError(
            f"has kind {engine.kind}, which runs in one process, but model.parallel is {model.parallel}; "
            "write engine.kind: pipeline"
        )
    if model is not None and engine.replicas not in ("auto", 1):
        if model.parallel != "none":
            raise ValueError(
                f"has {engine.replicas} replicas, but model.parallel is {model.parallel}, which splits one model over "
                "the processes; leave one of them out"
            )
        if isinstance(model.device_map, str) and ":" in model.device_map:
            raise ValueError(
                f"has {engine.replicas} replicas, but model.device_map is {model.device_map}, which is one device; "
                "write model.device_map: auto"
            )
    if engine.min_replicas is not None and engine.replicas != "auto" and engine.min_replicas > engine.replicas:
        raise ValueError(
            f"has min_replicas {engine.min_replicas}, but replicas, which is the most, is {engine.replicas}; write "
            f"engine.min_replicas: {engine.replicas}, or less"
        )
    if engine.reproducible == "strict" and not ENGINES[engine.kind].strict:
        raise ValueError(
            f"has reproducible strict, which kind {engine.kind} cannot give; write engine.kind: continuous"
        )
    if engine.grammar_backend == "xgrammar" and not engine.needs.local_model:
        raise ValueError(
            f"has grammar_backend xgrammar, but with kind {engine.kind} no model writes on this machine; leave "
            "engine.grammar_backend out"
        )
    if model is not None and model.draft is not None:
        if engine.reproducible == "strict":
            raise ValueError(
                "has reproducible strict, whose passes have fixed shapes, but model.draft makes them wider and "
                "narrower; leave one of them out"
            )
        if model.parallel != "none":
            raise ValueError(
                f"runs in many processes (model.parallel is {model.parallel}), but model.draft in one only"
            )
    if model is not None and model.name == NO_MODEL and engine.needs.local_model:
        raise ValueError(
            f"has kind {engine.kind}, which needs a model, but model.name is scripted, which is none; "
            "write engine.kind: scripted"
        )
    if not (engine.needs.tokenizer or engine.needs.token_ids):
        for section, names in _ABOUT_TOKENS.items():
            held = info.data.get(section)
            for name in () if engine.needs.server and section == "generation" else names:
                if held is not None and getattr(held, name):
                    raise ValueError(
                        f"has kind {engine.kind}, which takes messages and knows no tokens, but {section}.{name} is "
                        f"about them; leave {section}.{name} out"
                    )
    mistake = ENGINES[engine.kind].cannot(info.data, engine.options)
    if mistake is not None:
        raise ValueError(f"has kind {engine.kind}, which cannot do {mistake}")
    return engine


_ABOUT_TOKENS: Mapping[str, Sequence[str]] = {
    "chat": ("template", "template_kwargs", "max_context"),
    "generation": ("stop_token_ids", "logit_bias", "bad_words"),
}
"""Settings that an engine cannot follow which takes messages, by section."""
