"""The `chat` section: which turns are written, and how chats become prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from batchchat.recipe.section import Section, Text


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
