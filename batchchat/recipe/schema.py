"""The recipe: one strict, frozen tree that holds the whole job.

The descriptions here are the only documentation of the options: the JSON schema, the Markdown table and the comments
of `batchchat init` are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator

from batchchat.recipe.chat import ChatSection
from batchchat.recipe.dumping import to_yaml
from batchchat.recipe.engine import EngineSection, engine_has_its_model
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
from batchchat.recipe.keeping import Keep
from batchchat.recipe.matrix import Matrix
from batchchat.recipe.model import NO_MODEL, ModelSection
from batchchat.recipe.rewards import RewardSection
from batchchat.recipe.section import MAY_CHANGE, Section
from batchchat.recipe.simulation import PromptSection, SimulationOptions
from batchchat.recipe.sink import SinkSection
from batchchat.recipe.source import SourceSection
from batchchat.recipe.tools import ToolsSection, as_tools

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class JudgeSection(JudgeOptions):
    """A model as judge: a run of its own, in `judges/` of the run's directory. `model`, `chat`, `generation` and
    `engine` are set as for the run."""

    model: ModelSection = ModelSection()
    chat: ChatSection = ChatSection()
    generation: GenerationSection = GenerationSection()
    engine: SerializeAsAny[EngineSection] = Field(default=EngineSection(), validate_default=True)

    _has_its_model = field_validator("engine")(engine_has_its_model)


class SimulateSection(SimulationOptions):
    """A model that plays the user. `generation` is set as for the run, and so is `engine`."""

    model: ModelSection | None = Field(
        default=None, description="The model that plays the user; null is the run's own, on the same engine."
    )
    chat: PromptSection | None = Field(default=None, description="Prompts of that model; null is as it has them.")
    generation: GenerationSection = GenerationSection()
    engine: SerializeAsAny[EngineSection] | None = Field(
        default=None, description="Its engine; null is as by default, or the run's own where it has the run's model."
    )

    @field_validator("generation")
    @classmethod
    def _writes_once(cls, generation: GenerationSection) -> GenerationSection:
        if generation.samples != 1:
            raise ValueError(
                f"asks for {generation.samples} samples, but a user says one thing; raise generation.samples of the run"
            )
        return generation

    @field_validator("chat", "engine")
    @classmethod
    def _is_of_a_model(cls, section: Section | None, info: ValidationInfo) -> Section | None:
        if section is not None and info.data.get("model") is None:
            raise ValueError("is set, but simulate.model is not, so that the run's own model plays the user; set both")
        return section

    @field_validator("engine")
    @classmethod
    def _has_its_model(cls, engine: EngineSection | None, info: ValidationInfo) -> EngineSection | None:
        return engine if engine is None else engine_has_its_model(engine, info)


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
    rewards: Mapping[str, RewardSection] = Field(
        default={},
        description="Reward models: a name, which is also the name of the metric, and the model.",
        examples=[{"reward": {"model": {"name": "models/reward"}}}],
        json_schema_extra=MAY_CHANGE,
    )
    gates: Gates = Field(
        default=(),
        description="Conditions on the metrics that must hold, or the command ends with exit code 4.",
        examples=[["errors <= 1%", "tokens_per_second >= 50"]],
        json_schema_extra=MAY_CHANGE,
    )
    simulate: SimulateSection | None = Field(
        default=None,
        description="A model plays the user: rows of `source.format: blank` begin with its turn, others go on with it.",
    )
    tools: Annotated[
        ToolsSection | None,
        BeforeValidator(as_tools, json_schema_input_type=ToolsSection | Literal["strict"] | None),
    ] = Field(
        default=None,
        description="Tools that are really run, without which calls in an answer are its end; or `strict`, with which "
        "the calls that a model writes are held to the schemas of their tools.",
    )
    keep: Keep = Field(
        default=(),
        description="Which answers are good enough, step by step: kept.jsonl gets them, and removed.jsonl all others, "
        "each with the reason.",
        examples=[["finish_reason == 'stop'", {"duplicates": {"near": 0.8}}, {"best": {"by": "reward"}}]],
        json_schema_extra=MAY_CHANGE,
    )
    matrix: Matrix = Field(
        default={},
        description="Settings with several values, as a list or by names: every combination is a run of its own, named "
        "after its values, and the command ends with one table that compares them.",
        examples=[{"generation.temperature": [0, 0.7], "chat.system": {"plain": None, "short": "Be brief."}}],
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

    @field_validator("judges", "rewards")
    @classmethod
    def _has_names_of_its_own(cls, models: Mapping[str, Section], info: ValidationInfo) -> Mapping[str, Section]:
        what = {"judges": "a judge", "rewards": "a reward model"}[str(info.field_name)]
        wrong = [name for name in models if not re.fullmatch(JUDGE_NAME, name)]
        if wrong:
            raise ValueError(
                f"has {what} named {wrong[0]!r}; a name is letters, digits, _ and -, and begins with a letter"
            )
        scoring = [entry.metric for entry in info.data.get("scoring", ())]
        judges = () if info.field_name == "judges" else info.data.get("judges", ())
        for others, names in (("scoring a metric", scoring), ("judges one", judges)):
            taken = [name for name in names if name in models]
            if taken:
                raise ValueError(f"has {what} named {taken[0]}, and so has {others}; rename one of them")
        return models

    @field_validator("gates")
    @classmethod
    def _are_on_metrics_of_the_run(cls, gates: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if {"scoring", "summary", "judges", "rewards", "generation"} <= info.data.keys():
            data = info.data
            figures = {
                **metric_figures(data["scoring"], data["judges"], data["summary"], data["generation"].samples),
                **dict.fromkeys(data["rewards"], ()),
            }
            judges = {name: (judge, judge.generation.samples) for name, judge in data["judges"].items()}
            wrong = wrong_gates(gates, figures, data["summary"].by, unmeasured_figures(judges))
            if wrong:
                raise ValueError(f"hold a mistake: {'; '.join(wrong)}")
        return gates

    @field_validator("simulate")
    @classmethod
    def _fits_chats_and_engine(cls, simulate: SimulateSection | None, info: ValidationInfo) -> SimulateSection | None:
        chat, model = info.data.get("chat"), info.data.get("model")
        if simulate is None or chat is None or model is None:
            return simulate
        if chat.prefill:
            raise ValueError("goes on behind the last answer, and chat.prefill within it; leave one of them out")
        if simulate.systems and chat.system is not None:
            raise ValueError("has systems, and so has chat.system; leave one of them out")
        if simulate.model is not None and (model.parallel != "none" or simulate.model.parallel != "none"):
            raise ValueError("has a model of its own, which cannot be beside one that is split (model.parallel)")
        return simulate

    @field_validator("tools")
    @classmethod
    def _fit_chats(cls, tools: ToolsSection | None, info: ValidationInfo) -> ToolsSection | None:
        chat = info.data.get("chat")
        if tools is None:
            return None
        if tools.runs and chat is not None and chat.prefill:
            raise ValueError("are run behind an answer, and chat.prefill goes on within one; leave one of them out")
        if not tools.runs and not tools.strict:
            raise ValueError("has neither run nor mcp, so there is nothing to run; name functions or servers")
        return tools

    @property
    def runs_tools(self) -> bool:
        """Whether calls in answers are run."""
        return self.tools is not None and self.tools.runs

    @property
    def user(self) -> Recipe | None:
        """The recipe by which a simulated user's turns are written; None where the run's own model and engine do."""
        simulate = self.simulate
        if simulate is None or simulate.model is None:
            return None
        prompts = {} if simulate.chat is None else simulate.chat.model_dump(exclude_unset=True)
        return Recipe(
            name=self.name,
            model=simulate.model,
            source=self.source,
            chat=ChatSection(**prompts, overflow=self.chat.overflow),
            generation=simulate.generation,
            engine=simulate.engine or EngineSection(),
        )

    @property
    def reads_model(self) -> bool:
        """Whether files of the model are read: its engine needs some, and `model.name` stands for a model."""
        needs = self.engine.needs
        return self.model.name != NO_MODEL and (needs.tokenizer or needs.local_model)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics that answers of this recipe get."""
        return (*(entry.metric for entry in self.scoring), *self.judges, *self.rewards)

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
