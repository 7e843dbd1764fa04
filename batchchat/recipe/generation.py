"""The `generation` section: settings that are applied row by row, and the further flags of `generate`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from batchchat.recipe.flags import GenerationFlags, freeze_flags
from batchchat.recipe.section import Section, Texts, TokenBias, TokenIds
from batchchat.recipe.structured import StructuredSection


class RowSettings(Section):
    """Settings that may differ from row to row within one batch. None is left open: see `model_defaults`."""

    max_new_tokens: int = Field(
        default=256, ge=1, description="The most tokens that one answer may have, its end token included."
    )
    min_new_tokens: int | None = Field(
        default=None, ge=0, description="The fewest tokens of an answer: no end token is chosen before."
    )
    do_sample: bool | None = Field(
        default=None,
        description="false answers greedily, whatever the model's own defaults say; true samples; null leaves it open.",
    )
    temperature: float | None = Field(
        default=None, ge=0, description="Divides the logits before sampling; 0 answers greedily.", examples=[0.7]
    )
    top_k: int | None = Field(
        default=None,
        ge=0,
        description="Sample from the k most likely tokens only, and those as likely as the last of them; 0 is off, as "
        "is null where the model names none (transformers' `generate` takes 50 then).",
        examples=[50],
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the fewest most likely tokens whose probabilities add up to this; 1 is off.",
        examples=[0.95],
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Drop tokens less likely than this share of the most likely token's probability; 0 is off.",
        examples=[0.05],
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        description="Makes tokens that the prompt or the answer already holds less likely; 1 is off.",
        examples=[1.1],
    )
    presence_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Subtracted once from the logit of every token that the answer already holds; 0 is off.",
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Subtracted from a token's logit once for each time that the answer already holds it; 0 is off.",
    )
    stop: Texts = Field(
        default=(),
        description="Texts that end the answer as soon as it holds one of them, also where a character is spelled with "
        "combining marks in one and as a whole in the other.",
        examples=[["\n\n", "User:"]],
    )
    stop_token_ids: TokenIds = Field(
        default=(), description="Token ids that end the answer, besides the model's own end tokens."
    )
    ignore_eos: bool = Field(
        default=False, description="Go on after the model's end tokens, up to max_new_tokens: for measuring speed."
    )
    logit_bias: TokenBias = Field(
        default={}, description="Added to the logits of single tokens, by token id.", examples=[{15: -100.0}]
    )
    bad_words: Texts = Field(
        default=(),
        description="Texts that the answer must not hold anywhere, however they are cut into tokens: inside words too, "
        "and with or without a space before them.",
        examples=[["As an AI"]],
    )
    structured: StructuredSection | None = Field(
        default=None,
        description="The form that each answer must have, the reasoning before it apart: one of json_schema, regex, "
        "choice (a list of answers), grammar (in Lark's notation) and json (true: any object), and beside JSON "
        "white_space (none, capped or free). A server is asked for it.",
        examples=[{"choice": ["yes", "no"]}],
    )
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=20,
        description="Record the log-probability of each chosen token, and of this many most likely tokens beside it.",
    )
    logprobs_of: Literal["raw", "processed"] = Field(
        default="raw",
        description="raw: log-probabilities of the model's own distribution, whatever else is set; processed: of the "
        "one that the token was chosen from, after biases, penalties, bans and, where it is sampled, temperature and "
        "cuts.",
    )
    samples: int = Field(default=1, ge=1, description="How many independent answers each chat gets.")
    seed: int = Field(
        default=0,
        ge=-(2**63),
        le=2**63 - 1,
        description="The run's seed. Each answer's own seed is made from it, the chat's id, the sample and the turn.",
    )

    @field_validator("temperature")
    @classmethod
    def _agrees_with_do_sample(cls, temperature: float | None, info: ValidationInfo) -> float | None:
        do_sample = info.data.get("do_sample")
        if do_sample is False and temperature:
            raise ValueError(
                f"is {temperature:g}, which samples, but generation.do_sample is false, which is greedy; leave one of "
                "them out"
            )
        if do_sample is True and temperature == 0:
            raise ValueError(
                "is 0, which is greedy, but generation.do_sample is true, which samples; leave one of them out"
            )
        return temperature

    @field_validator("min_new_tokens")
    @classmethod
    def _fits_below_the_limit(cls, min_new_tokens: int | None, info: ValidationInfo) -> int | None:
        limit = info.data.get("max_new_tokens")
        if min_new_tokens is not None and limit is not None and min_new_tokens > limit:
            raise ValueError(
                f"is {min_new_tokens}, more than generation.max_new_tokens, which is {limit}; raise that one"
            )
        return min_new_tokens


class GenerationSection(GenerationFlags, RowSettings):
    """How the answers are written. Settings left open (null) come from the model: see `model_defaults`."""

    model_defaults: bool = Field(
        default=True,
        description="Settings that the recipe leaves open come from the model's generation_config.json, and the run "
        "says which; false: they are off, and the answers greedy.",
    )

    def passthrough(self) -> tuple[tuple[str, Any], ...]:
        """The set flags of `GenerationFlags`, sorted by name, with hashable values (`Settings.flags`)."""
        values = self.model_dump(include=set(GenerationFlags.model_fields), exclude_none=True)
        return freeze_flags(values)
