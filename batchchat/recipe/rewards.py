"""The section `rewards`: sequence classifiers that give each answer a number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from batchchat.recipe.model import ModelSection
from batchchat.recipe.section import MAY_CHANGE, Section, Text
from batchchat.scoring.base import Turn


class RewardSection(Section):
    """A reward model: a sequence classifier that transformers loads, with its own tokenizer and chat template. It reads
    the conversation up to an answer; its number is the metric. What it computed is kept in `rewards/` of the run's
    directory. Of `model`, draft, adapter, gguf_file, parallel and quantization, for writing text, cannot be set."""

    model: ModelSection
    input: Literal["auto", "template", "pair"] = Field(
        default="auto",
        description="What it reads: the conversation by its tokenizer's chat template, or as a pair of texts what was "
        "asked last and the answer; auto is the template where it has one.",
    )
    label: Text | int | None = Field(
        default=None,
        description="Of a classifier with several labels the one whose probability counts: its name or number. One "
        "with a single label needs none: its number counts as it is.",
        examples=["helpful"],
    )
    turn: Turn = Field(
        default="last", description="Which assistant turn is scored: `all`, `last`, or its number, counted from 1."
    )
    max_batch_rows: int = Field(
        default=16, ge=1, description="The most answers that are computed at once.", json_schema_extra=MAY_CHANGE
    )

    @model_validator(mode="after")
    def _is_a_classifier(self) -> RewardSection:
        model, plain = self.model, ModelSection()
        for name in ("draft", "adapter", "gguf_file", "parallel", "quantization"):
            if getattr(model, name) != getattr(plain, name):
                raise ValueError(f"sets model.{name}, which is for models that write text; leave it out")
        return self
