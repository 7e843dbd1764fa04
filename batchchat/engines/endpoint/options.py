"""The `engine.endpoint` section."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from batchchat.engines.base import Needs
from batchchat.engines.endpoint.address import checked_url
from batchchat.recipe.section import MAY_CHANGE, AsTuple, Section, Text

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"auth|cookie|key|secret|token", re.IGNORECASE)


class Prices(Section):
    """What the server's tokens cost, for a million of them, in any currency."""

    input: float = Field(ge=0, description="A million tokens of prompts.", examples=[0.15])
    output: float = Field(ge=0, description="A million tokens of answers, reasoning included.", examples=[0.6])
    cached_input: float | None = Field(
        default=None,
        ge=0,
        description="A million tokens of prompts that the server had in its cache; null is the price of any other.",
        examples=[0.075],
    )


class EndpointOptions(Section):
    """A server that speaks OpenAI's chat API; model.name is the model's name there."""

    url: str = Field(
        description="Address of the API, up to and with its version; /chat/completions is added.",
        examples=["http://localhost:8000/v1"],
        json_schema_extra=MAY_CHANGE,
    )
    model: Text | None = Field(
        default=None,
        description="The model's name at the server, where model.name is the tokenizer's here; null is model.name.",
        examples=["my-model"],
    )
    prompts: Literal["messages", "tokens"] = Field(
        default="messages",
        description="messages leaves the template to the server; tokens renders model.name's own template here, as for "
        "a local engine, and sends token ids to /completions, for servers that take and give them (vLLM).",
    )
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the key; null sends none. The key itself is in no "
        "recipe and is written nowhere.",
        examples=["OPENAI_API_KEY"],
        json_schema_extra=MAY_CHANGE,
    )
    api_key_header: Text = Field(
        default="Authorization",
        description="Header that carries the key: Authorization as a bearer token, any other as it is.",
        examples=["api-key"],
        json_schema_extra=MAY_CHANGE,
    )
    headers: Mapping[str, str] = Field(
        default={},
        description="Further headers of every request; none that carries a secret.",
        examples=[{"X-Title": "mt-bench"}],
        json_schema_extra=MAY_CHANGE,
    )
    verify: bool | Text = Field(
        default=True,
        description="Whether the server's certificate must verify; a text is a file with the authorities to trust.",
        examples=["/etc/ssl/our-ca.pem"],
        json_schema_extra=MAY_CHANGE,
    )
    max_in_flight: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="The most requests in flight. There are as many as the server takes: few at first, twice as many "
        "after each round without a refusal, a fifth fewer after the first refusal (429), and a few more with each "
        "round from then on.",
        json_schema_extra=MAY_CHANGE,
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="The most requests in a minute; null is no limit.", json_schema_extra=MAY_CHANGE
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="The most tokens in a minute, prompts and max_new_tokens together; null is no limit.",
        json_schema_extra=MAY_CHANGE,
    )
    retries: int = Field(
        default=8,
        ge=0,
        description="How often a request is sent again that was refused for the moment (408, 429, 5xx, a broken "
        "connection, no JSON), each time after a longer pause.",
        json_schema_extra=MAY_CHANGE,
    )
    stop_after: int = Field(
        default=8,
        ge=0,
        description="End the run, to be resumed, when so many requests have run out of retries and none that was "
        "sent since was answered: then the server is at fault, not they. 0 never ends it.",
        json_schema_extra=MAY_CHANGE,
    )
    connect_seconds: float = Field(
        default=60.0, gt=0, description="The longest that connecting may take.", json_schema_extra=MAY_CHANGE
    )
    silence_seconds: float = Field(
        default=600.0,
        gt=0,
        description="The longest that a server may say nothing: until the first byte of an answer, and between two.",
        json_schema_extra=MAY_CHANGE,
    )
    answer_seconds: float = Field(
        default=1200.0,
        gt=0,
        description="The longest that one answer may take as a whole.",
        json_schema_extra=MAY_CHANGE,
    )
    batch: bool = Field(
        default=False,
        description="Send what is ready as files, by the provider's Batch API, and wait for the answers, which may "
        "take a day and cost less; a chat's next turn goes into the next file.",
        json_schema_extra=MAY_CHANGE,
    )
    batch_requests: int = Field(
        default=10_000, ge=1, le=50_000, description="The most requests in such a file.", json_schema_extra=MAY_CHANGE
    )
    batch_poll_seconds: float = Field(
        default=30.0, gt=0, description="How often it is asked whether they are there.", json_schema_extra=MAY_CHANGE
    )
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        default=None,
        description="What the server calls max_new_tokens; null is max_completion_tokens at OpenAI itself and "
        "max_tokens elsewhere.",
    )
    omit: Annotated[tuple[Text, ...], AsTuple] = Field(
        default=(),
        description="Parameters that are never sent, for servers that refuse them.",
        examples=[["temperature", "seed"]],
    )
    extra_body: Mapping[str, JsonValue] = Field(
        default={},
        description="Further parameters of every request, as the server knows them.",
        examples=[{"reasoning_effort": "low"}],
    )
    send_reasoning: Literal["none", "reasoning", "reasoning_content"] = Field(
        default="none", description="Under which key earlier turns' reasoning is sent; none leaves it out."
    )
    other_model: Literal["error", "allow"] = Field(
        default="error",
        description="What becomes of an answer that the server gives as another model than it gave the run's first: "
        "that row's error, or an answer like any other.",
        json_schema_extra=MAY_CHANGE,
    )
    prices: Prices | None = Field(
        default=None,
        description="What tokens cost, so that the report says what was spent.",
        examples=[{"input": 0.15, "output": 0.6}],
        json_schema_extra=MAY_CHANGE,
    )
    max_cost: float | None = Field(
        default=None,
        ge=0,
        description="What the run may cost, in the currency of the prices. No request is sent that could exceed it; "
        "the run ends then, and goes on with a higher one.",
        json_schema_extra=MAY_CHANGE,
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return checked_url(url)

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _is_no_key(cls, name: Any) -> Any:
        """What was written may be the key itself, so it is not shown."""
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ValueError(
                "is no name of an environment variable; keep the key in one, for example OPENAI_API_KEY, and write "
                "its name here"
            )
        return name

    @field_validator("headers")
    @classmethod
    def _hold_no_secret(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in headers.items():
            if _SECRET.search(name):
                raise ValueError(f"has the header {name}, which may be a secret; write api_key_env and api_key_header")
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not (value.isascii() and value.isprintable()):
                raise ValueError(f"has the header {name!r}, which HTTP cannot carry; write plain letters")
        return headers

    @field_validator("extra_body")
    @classmethod
    def _leaves_the_request_alone(cls, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        ours = {"messages": "the input has them", "model": "write model.name", "n": "write generation.samples"}
        ours |= {"stream": "answers come as a whole", "tools": "the input has them", "seed": "write generation.seed"}
        for name in extra:
            if name in ours:
                raise ValueError(f"has {name}, which batchchat sets itself: {ours[name]}")
        return extra

    @field_validator("batch")
    @classmethod
    def _takes_messages(cls, batch: bool, info: ValidationInfo) -> bool:
        if batch and info.data.get("prompts") == "tokens":
            raise ValueError("is true, but engine.endpoint.prompts is tokens, which no Batch API takes; leave one out")
        return batch

    @field_validator("max_cost")
    @classmethod
    def _needs_prices(cls, cost: float | None, info: ValidationInfo) -> float | None:
        if cost is not None and info.data.get("prices") is None:
            raise ValueError("needs engine.endpoint.prices: without them nothing is known of the cost")
        return cost


_FEATURES: Mapping[str, Mapping[str, str]] = {
    "chat": {"max_context": "the server knows its own context"},
    "generation": {
        "ignore_eos": "write engine.endpoint.extra_body: {ignore_eos: true}, where the server knows that",
        "bad_words": "no server's API has it",
    },
}


def needs(options: EndpointOptions) -> Needs:
    """Of a model on this machine: nothing, or its tokenizer where prompts are rendered here."""
    rendered = options.prompts == "tokens"
    return Needs(tokenizer=rendered, local_model=False, token_ids=rendered, server=True)


def cannot(sections: Mapping[str, Any], options: EndpointOptions) -> str | None:
    """What of a recipe's other sections no server can be asked for."""
    generation = sections.get("generation")
    for section, names in _FEATURES.items():
        for name, advice in names.items():
            if section == "chat" and options.prompts == "tokens":
                continue
            if sections.get(section) is not None and getattr(sections[section], name):
                return f"{section}.{name}: {advice}"
    if generation is None:
        return None
    if generation.passthrough():
        return f"generation.{generation.passthrough()[0][0]}, which is a flag of transformers: leave it out"
    if generation.logprobs is not None and generation.logprobs_of == "processed":
        return "generation.logprobs_of: processed, since servers give log-probabilities in their own way: write raw"
    return None
