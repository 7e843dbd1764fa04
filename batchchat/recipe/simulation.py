"""What a simulated user is told, and when a simulated chat ends: `simulate` without its model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from batchchat.recipe.section import AsTuple, Section, Text, Texts

FLIPS = (
    r"(?mi)^\W*(user|human|assistant|ai|bot|agent|system)\W{0,3}:",
    r"(?i)\bhow (can|may) I (help|assist) you\b",
    r"(?i)\bis there anything else I can (help|assist)\b",
    r"(?i)\bas an? (ai|artificial intelligence|(large )?language model)\b",
)
"""What users do not write: labels of who speaks, offers of help, a model that speaks of itself."""


class WeightedSystem(Section):
    """A system turn that some of the chats get."""

    text: Text | None = Field(description="The system turn; null is none.")
    weight: float = Field(default=1.0, gt=0, description="Its share of the chats, relative to the other weights.")


class PromptSection(Section):
    """How a simulated user's chat becomes a prompt, with a model of its own."""

    template: Text | None = Field(
        default=None,
        description="File with a chat template that replaces the model's own.",
        examples=["template.jinja"],
    )
    template_kwargs: Mapping[str, JsonValue] = Field(
        default={}, description="Further variables for the chat template.", examples=[{"enable_thinking": False}]
    )
    max_context: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that prompt and turn may have together; null is the model's own limit.",
        examples=[4096],
    )


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"holds {pattern!r}, which is no regular expression: {error}") from None
    return pattern


class SimulationOptions(Section):
    """Who the user is that a model plays, and when the chat ends."""

    method: Literal["goal", "magpie"] = Field(
        default="goal",
        description="goal tells a model to play a user with a goal and a persona; magpie has the model write what "
        "comes behind the beginning of a user's turn in its own chat template (arXiv 2406.08464), with nothing told.",
    )
    goal: Text | None = Field(
        default=None,
        description="What the user wants, with {column} placeholders.",
        examples=["{goal}", "Book a flight from {origin} to {destination}."],
    )
    persona: Text | None = Field(
        default=None, description="Who the user is, with {column} placeholders.", examples=["{persona}"]
    )
    patient: bool | Text = Field(
        default=True,
        description="Whether the user asks again where an answer is no help, or gives up; or the column of the row "
        "that says so.",
        examples=[False, "is_patient"],
    )
    instructions: Text = Field(
        default="builtin:user",
        description="The text file that tells the model to play the user; its placeholders are {goal}, {persona}, "
        "{patience}, {stop_mark} and columns of the row. `builtin:user` comes along.",
        examples=["my-user.txt"],
    )
    greeting: Text = Field(
        default="Hello! What can I do for you?",
        description="What the user is greeted with, so that templates which want another turn first have one. It is "
        "no part of the chat.",
    )
    turns: int = Field(
        default=3,
        ge=1,
        description="The most user turns of a chat, those of the row included: it ends with the answer.",
    )
    stop_mark: Text = Field(default="###STOP###", description="What the user writes to end the chat.")
    retries: int = Field(
        default=2,
        ge=0,
        le=20,
        description="How often a user's turn with a fault is written anew. After that the chat ends with its last "
        "answer, and a chat without one fails. Faults: an empty turn, one that was cut at max_new_tokens, one that "
        "says what was just said before, a role flip, a leak of the instructions.",
    )
    role_flips: Annotated[tuple[Text, ...], AsTuple] = Field(
        default=FLIPS, description="Regular expressions by which a user's turn shows that it speaks for the assistant."
    )
    leak_words: int = Field(
        default=8,
        ge=0,
        description="So many words in a row that also stand in the instructions, goal and persona apart, are a leak; "
        "0 does not look for any.",
    )
    systems: Annotated[tuple[WeightedSystem, ...], AsTuple] = Field(
        default=(),
        description="System turns of which each chat without its own gets one, drawn by weight and generation.seed.",
        examples=[[{"text": "You are a helpful assistant.", "weight": 3}, {"text": None}]],
    )

    @field_validator("role_flips")
    @classmethod
    def _are_patterns(cls, patterns: Texts) -> Texts:
        return tuple(_compiles(pattern) for pattern in patterns)

    @field_validator("goal", "persona")
    @classmethod
    def _fits_method(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None and info.data.get("method") == "magpie":
            raise ValueError(
                f"is told to a simulated user, but simulate.method is magpie, which tells nothing; leave "
                f"simulate.{info.field_name} out"
            )
        return text
