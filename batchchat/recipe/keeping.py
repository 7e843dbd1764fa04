"""The section `keep`: which answers are good enough to be handed on, in steps that are taken one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from batchchat.recipe.section import AsTuple, Section, Text, Texts

FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"

Of = Annotated[Text, Field(examples=["question", "answer", "conversation", "instruction"])]


class Duplicates(Section):
    """Keep the first of samples with the same text, or of those whose texts are much alike."""

    of: Of = Field(
        default="question",
        description="The text that is compared: question (all user turns), answer (the last one), conversation, or a "
        "column. Samples of one chat are never duplicates of each other by their question or a column.",
    )
    near: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Also remove what shares at least this part of its shingles (Jaccard similarity, estimated by "
        "MinHash within 0.04 or so); null removes equal texts alone. Case, punctuation and white space never count.",
        examples=[0.8],
    )
    shingle: int = Field(default=3, ge=1, le=20, description="Words of a shingle; a CJK or Thai letter is a word.")


class Contaminated(Section):
    """Remove samples that share a run of words with texts on which models are tested."""

    by: Annotated[Texts, Field(min_length=1)] = Field(
        description="The files with those texts, as `source.path` names files.", examples=["benchmark.jsonl"]
    )
    columns: Texts = Field(
        default=(),
        description="The files' columns that hold them; empty is every text of a row.",
        examples=["question"],
    )
    of: Of = Field(default="question", description="The sample's text: question, answer, conversation, or a column.")
    words: int = Field(
        default=13,
        ge=2,
        le=100,
        description="How many words in a row must be the same, but for case and punctuation; a shorter text of the "
        "files counts where it is a sample's whole text.",
    )


class Best(Section):
    """Of each chat's samples keep those with the highest scores; the others may become pairs."""

    by: Text = Field(
        description="The metric of a scorer, judge or reward model, or a column with a number.", examples=["reward"]
    )
    count: int = Field(default=1, ge=1, description="How many samples of a chat are kept.")
    at_least: float | None = Field(
        default=None, description="A sample with less is not kept, however good the others are.", examples=[0.5]
    )
    pairs: Literal["none", "worst", "all"] = Field(
        default="none",
        description="Write the chat's best sample, where it is kept, with the worst, or with each of the removed ones, "
        "to pairs.jsonl, as DPO and its like read them. Equal scores make no pair.",
    )
    margin: float = Field(default=0.0, ge=0, description="The difference of scores that a pair must have more than.")


class KeepStep(Section):
    """One step: exactly one of these. A text alone is a condition."""

    where: Text | None = Field(
        default=None,
        description="Keep samples for which this holds: comparisons, `in`, `and`, `or`, `not` over finish_reason, "
        "completion_tokens, characters, answer, metrics and columns; words(answer), language(answer) and "
        "matches(answer, 'regular expression').",
        examples=["finish_reason == 'stop' and 5 <= words(answer) < 400"],
    )
    function: Annotated[str, Field(pattern=FUNCTION)] | None = Field(
        default=None,
        description="Keep what this function of yours, `module:function`, says true of. It gets the sample as a row "
        "of kept.jsonl, and returns true or false, or a text: why the sample is removed.",
        examples=["my_filters:polite"],
    )
    duplicates: Duplicates | None = Field(
        default=None,
        description="Keep the first of samples with the same text, or of those whose texts are much alike.",
        examples=[{"of": "question", "near": 0.8}],
    )
    contaminated: Contaminated | None = Field(
        default=None,
        description="Remove samples that share a run of words with texts on which models are tested.",
        examples=[{"by": "benchmark.jsonl"}],
    )
    best: Best | None = Field(
        default=None,
        description="Of each chat's samples keep those with the highest scores; the others may become pairs.",
        examples=[{"by": "reward", "pairs": "worst"}],
    )

    @model_validator(mode="before")
    @classmethod
    def _one_step(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or len({name for name in data if data[name] is not None}) > 1 or not data:
            raise ValueError("must be one step, such as `best: {by: reward}`; give each its own line")
        return {name: {} if value is None and name == "duplicates" else value for name, value in data.items()}

    @model_validator(mode="after")
    def _says_something(self) -> KeepStep:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("says nothing; write a condition such as finish_reason == 'stop', or take it out")
        return self

    @property
    def kind(self) -> str:
        """Which one it is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)


def _condition(value: Any) -> Any:
    """A text is short for `where: TEXT`."""
    return {"where": value} if isinstance(value, str) else value


Keep = Annotated[
    tuple[Annotated[KeepStep, BeforeValidator(_condition, json_schema_input_type=Text | KeepStep)], ...], AsTuple
]
"""The steps in their order."""
