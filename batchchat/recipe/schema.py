"""The recipe: one strict, frozen tree that holds the whole job.

The descriptions here are the only documentation of the options: the JSON schema, the Markdown table and the comments
of `batchchat init` are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, SerializeAsAny, ValidationInfo, field_validator

from batchchat.plugins.tables import ENGINES
from batchchat.recipe.dumping import to_yaml
from batchchat.recipe.evaluation import (
    JUDGE_NAME,
    Gates,
    JudgeOptions,
    Scoring,
    SummarySection,
    metric_figures,
    unmeasured_figures,
    wrong_gates,
)
from batchchat.recipe.generation import GenerationSection
from batchchat.recipe.identity import identity, sha256_of
from batchchat.recipe.model import NO_MODEL, ModelSection
from batchchat.recipe.open_section import OneOf, OpenSection
from batchchat.recipe.section import MAY_CHANGE, Section, Text
from batchchat.recipe.sink import SinkSection
from batchchat.recipe.source import SourceSection

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class ChatSection(Section):
    """Which turns are written, and how a chat becomes a prompt."""

    turns: Literal["scripted", "last", "regenerate"] = Field(
        default="scripted",
        description="scripted answers every unanswered user turn in order, each with the earlier answers in its "
        "context; last answers the final user turn only; regenerate drops the assistant turns, answers all, and keeps "
        "the old ones as references.",
    )
    prefill: bool = Field(
        default=False, description="Continue a chat that ends in an assistant turn, instead of refusing that row."
    )
    system: Text | None = Field(
        default=None, description="System turn for chats that have none.", examples=["You are a helpful assistant."]
    )
    template: Text | None = Field(
        default=None,
        description="File with a chat template that replaces the model's own.",
        examples=["template.jinja"],
    )
    template_kwargs: Mapping[str, JsonValue] = Field(
        default={}, description="Further variables for the chat template.", examples=[{"enable_thinking": False}]
    )
    overflow: Literal["error", "drop_oldest_turns", "truncate_left", "reduce_generation"] = Field(
        default="error",
        description="A prompt that leaves no room for max_new_tokens: refuse that row, drop its oldest turns, cut its "
        "first tokens, or write fewer new tokens. What was cut is counted in the row's record.",
    )
    max_context: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that prompt and answer may have together; null is the model's own limit.",
        examples=[4096],
    )

    @field_validator("prefill")
    @classmethod
    def _agrees_with_turns(cls, prefill: bool, info: ValidationInfo) -> bool:
        if prefill and info.data.get("turns") == "regenerate":
            raise ValueError(
                "continues the last assistant turn, but chat.turns: regenerate drops it; write chat.turns: scripted"
            )
        return prefill


BATCH_TOKENS = 16384
"""Tokens in one batch where the recipe does not say."""


class EngineSection(OpenSection):
    """How requests are batched and computed."""

    tables = (ENGINES,)

    kind: Annotated[str, OneOf(ENGINES)] = Field(
        default="auto",
        description="continuous lets rows leave and enter while others are written; pipeline computes padded batches "
        "through transformers' text-generation pipeline; auto is continuous where the model passes its self-check, "
        "else pipeline; endpoint asks a server that speaks OpenAI's chat API; scripted answers without a model.",
    )
    reproducible: Literal["fast", "strict"] = Field(
        default="fast",
        description="With strict an answer of the continuous engine is bit for bit the same whatever else is computed "
        "with it: its passes have fixed shapes, except where a trial at load shows that the shape changes no bit. fast "
        "makes no such promise.",
    )
    max_batch_rows: int = Field(
        default=32,
        ge=1,
        description="The most rows in one batch, or in flight in the continuous engine.",
        json_schema_extra=MAY_CHANGE,
    )
    max_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="The most tokens in one batch, padding and answers included; a row that is longer runs alone. In "
        "the continuous engine the most tokens whose keys and values are kept; a row that is longer is an error. null "
        f"is {BATCH_TOKENS}, but in the continuous engine on an accelerator what its free memory holds.",
        examples=[BATCH_TOKENS],
        json_schema_extra=MAY_CHANGE,
    )
    cuda_graphs: bool = Field(
        default=True,
        description="On a GPU the continuous engine records steps when it starts, those that only decode and those "
        "with few tokens of prompts, and replays them; false computes every step anew.",
        json_schema_extra=MAY_CHANGE,
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
    if engine.reproducible == "strict" and engine.kind not in ("auto", "continuous"):
        raise ValueError(
            f"has reproducible strict, which kind {engine.kind} cannot give; write engine.kind: continuous"
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


class JudgeSection(JudgeOptions):
    """A model as judge: a run of its own, in `judges/` of the run's directory. `model`, `chat`, `generation` and
    `engine` are set as for the run."""

    model: ModelSection = ModelSection()
    chat: ChatSection = ChatSection()
    generation: GenerationSection = GenerationSection()
    engine: SerializeAsAny[EngineSection] = Field(default=EngineSection(), validate_default=True)

    _has_its_model = field_validator("engine")(engine_has_its_model)


class Recipe(Section):
    """The whole job: which chats, which model, how the answers are written, and where they go."""

    name: Annotated[str, Field(pattern=FOLDER_NAME, max_length=100)] = Field(
        default="run",
        description="The run's name, and its folder's: letters, digits, dots, hyphens and underscores.",
        examples=["mt-bench"],
        json_schema_extra=MAY_CHANGE,
    )
    model: ModelSection = ModelSection()
    source: SerializeAsAny[SourceSection]
    chat: ChatSection = ChatSection()
    generation: GenerationSection = GenerationSection()
    engine: SerializeAsAny[EngineSection] = Field(default=EngineSection(), validate_default=True)
    scoring: Scoring = Field(
        default=(),
        description="Scorers, each with its options, that every answer goes through.",
        examples=[["exact", {"numeric": {"reference": "answer"}}]],
        json_schema_extra=MAY_CHANGE,
    )
    summary: SummarySection = Field(default=SummarySection(), json_schema_extra=MAY_CHANGE)
    judges: Mapping[str, JudgeSection] = Field(
        default={},
        description="Models as judges: a name, which is also the name of the metric, and the judge's own settings.",
        examples=[{"quality": {"model": {"name": "models/judge"}}}],
        json_schema_extra=MAY_CHANGE,
    )
    gates: Gates = Field(
        default=(),
        description="Conditions on the metrics that must hold, or the command ends with exit code 4.",
        examples=[["errors <= 1%", "tokens_per_second >= 50"]],
        json_schema_extra=MAY_CHANGE,
    )
    sink: SerializeAsAny[SinkSection] = SinkSection()
    max_error_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The share of rows that may fail before the command ends with exit code 3.",
        json_schema_extra=MAY_CHANGE,
    )

    _has_its_model = field_validator("engine")(engine_has_its_model)

    @field_validator("summary")
    @classmethod
    def _has_enough_samples(cls, summary: SummarySection, info: ValidationInfo) -> SummarySection:
        generation = info.data.get("generation")
        if generation is not None and summary.pass_at and max(summary.pass_at) > generation.samples:
            raise ValueError(
                f"asks for pass@{max(summary.pass_at)}, but generation.samples is {generation.samples}; raise that one"
            )
        return summary

    @field_validator("judges")
    @classmethod
    def _has_names_of_its_own(
        cls, judges: Mapping[str, JudgeSection], info: ValidationInfo
    ) -> Mapping[str, JudgeSection]:
        wrong = [name for name in judges if not re.fullmatch(JUDGE_NAME, name)]
        if wrong:
            raise ValueError(
                f"has a judge named {wrong[0]!r}; a name is letters, digits, _ and -, and begins with a letter"
            )
        taken = [entry.metric for entry in info.data.get("scoring", ()) if entry.metric in judges]
        if taken:
            raise ValueError(f"has a judge named {taken[0]}, and so has scoring a metric; rename one of them")
        return judges

    @field_validator("gates")
    @classmethod
    def _are_on_metrics_of_the_run(cls, gates: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if {"scoring", "summary", "judges", "generation"} <= info.data.keys():
            data = info.data
            figures = metric_figures(data["scoring"], data["judges"], data["summary"], data["generation"].samples)
            judges = {name: (judge, judge.generation.samples) for name, judge in data["judges"].items()}
            wrong = wrong_gates(gates, figures, data["summary"].by, unmeasured_figures(judges))
            if wrong:
                raise ValueError(f"hold a mistake: {'; '.join(wrong)}")
        return gates

    @property
    def reads_model(self) -> bool:
        """Whether files of the model are read: its engine needs some, and `model.name` stands for a model."""
        needs = self.engine.needs
        return self.model.name != NO_MODEL and (needs.tokenizer or needs.local_model)

    @property
    def run_directory(self) -> Path:
        """The folder of this recipe's results; those of a shard lie in one of its own within it."""
        return Path(self._place(self.sink.directory)).expanduser()

    @property
    def published_at(self) -> str | None:
        """The address that results are copied to, if they are; shards as in `run_directory`."""
        return None if self.sink.publish is None else self._place(self.sink.publish)

    def _place(self, whole: str) -> str:
        named = whole.replace("{name}", self.name)
        number, count = self.source.part
        return named if self.source.shard is None else f"{named.rstrip('/')}/shard-{number}-of-{count}"

    def dump_yaml(self) -> str:
        """The whole recipe as YAML, defaults written out, settings left open left out; loads to an equal recipe."""
        return to_yaml(self.model_dump(exclude_none=True))

    def digest(self) -> str:
        """SHA-256 (hex) of `identity()`."""
        return sha256_of(self.identity())

    def identity(self) -> dict[str, Any]:
        """The settings that decide which chats there are and what is answered; a run is resumed only where all of
        them are equal. Left out are those marked `MAY_CHANGE`: where the weights lie, how rows are batched, where and
        in which formats results go, and how many errors are too many."""
        return identity(self)
