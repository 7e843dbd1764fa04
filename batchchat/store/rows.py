"""What the lines of outputs.jsonl and errors.jsonl hold besides the input's own columns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from batchchat.chats.record import Line, Nats, Place, Record, Seconds, TokenId, Tokens, Unit


class Cut(Record):
    """What the overflow policy took from a prompt that did not fit."""

    messages: Annotated[int, Unit("messages")] | None = Field(
        default=None, description="Dropped from the chat's beginning."
    )
    prompt_tokens: Tokens | None = Field(default=None, description="Cut from the prompt's left.")
    new_tokens: Tokens | None = Field(default=None, description="By which the answer's limit was lowered.")


class TokenLogprobs(Record):
    """Log-probability of one token of the answer, before temperature and cuts."""

    token_id: TokenId | None = Field(default=None, description="The token; a server does not say its number.")
    token: str = Field(description="Its text.")
    bytes: tuple[Annotated[int, Unit("0 to 255")], ...] | None = Field(
        default=None, description="Its bytes, where a server says them."
    )
    logprob: Nats | None = Field(description="Its log-probability; null where it had none.")
    top: tuple[TokenLogprobs, ...] = Field(default=(), description="The most likely tokens in its place.")


class TurnSeconds(Record):
    """How long a turn took."""

    queued: Seconds = Field(description="From entering the engine until its work began.")
    working: Seconds = Field(description="From then to its end.")


Fault = Literal["empty", "cut", "repeats", "role_flip", "leak"]
"""What is wrong with a simulated user's turn."""


class Turn(Record):
    """A turn that was written."""

    role: Literal["user", "tool"] | None = Field(
        default=None, description="`user` for a turn of a simulated user, `tool` for the result of a call that was run."
    )
    fault: Fault | None = Field(
        default=None, description="Why a simulated user's turn was not used; it was written anew, or the chat ended."
    )
    finish_reason: Literal["stop", "length", "stop_string", "tool_calls", "tool_result"] = Field(
        description="Why it ended; `tool_result` for a call that was run."
    )
    prompt_tokens: Tokens = Field(description="Tokens of the prompt, without padding.")
    completion_tokens: Tokens = Field(description="Tokens of the answer, its end token included.")
    seed: Annotated[int, Unit("64 bits")] | None = Field(
        default=None, description="What its random numbers came from; a tool's result has none."
    )
    raw: str | None = Field(
        default=None, description="The answer as it was decoded, special tokens included, its end token not."
    )
    token_ids: tuple[TokenId, ...] | None = Field(default=None, description="The answer as the model wrote it.")
    cached_tokens: Tokens | None = Field(default=None, description="Of the prompt, those in a server's cache.")
    reasoning_tokens: Tokens | None = Field(default=None, description="Of the answer, those of its reasoning.")
    structure: Literal["valid", "cut off", "invalid"] | None = Field(
        default=None,
        description="With `generation.structured`: whether the answer has its form, or was cut off by max_new_tokens "
        "before it was whole; with strict tools the same of its calls.",
    )
    note: str | None = Field(
        default=None,
        description="What could not be read from the raw text, or is wrong with the answer's form; of a call that "
        "was run, why it failed.",
    )
    logprobs: tuple[TokenLogprobs, ...] | None = Field(
        default=None, description="One for each token; with `generation.logprobs`."
    )
    cut: Cut | None = Field(default=None, description="Where the prompt did not fit.")
    reference: str | None = Field(default=None, description="The answer that stood in this place of the input.")
    seconds: TurnSeconds | None = Field(default=None, description="With `sink.timings`.")


class OutputFacts(Record):
    """The `batchchat` column of an output row: one sample of a chat."""

    id: str = Field(description="The chat's id, or `row-N`.")
    index: Place = Field(description="The chat's place in the input.")
    sample: Place = Field(description="Which of the chat's independent answers.")
    turns: tuple[Turn, ...] = Field(
        description="The turns that were written, in order, those of a simulated user that were not used included."
    )
    ended: Literal["turn_cap", "stop_mark", "empty_answer", "call_cap"] | Fault | None = Field(
        default=None,
        description="Of a simulated chat, why it ended: it had all its turns, the user ended it, the model said "
        "nothing, the fault of the user's last turn, or more calls of tools in a row than "
        "`tools.max_rounds`.",
    )
    previous: JsonValue = Field(default=None, description="The `batchchat` column that the input's row had.")


class ErrorRow(Record):
    """A line of errors.jsonl: a row, or one sample of it, that could not be answered."""

    id: str | None = Field(description="The chat's id; null where the row has none or could not be read.")
    index: Place = Field(description="The row's place in the input.")
    file: str = Field(description="The file that it came from.")
    line: Line = Field(description="Its line, or its number in a file without lines.")
    sample: Place | None = Field(default=None, description="The sample that failed; left out where the whole row did.")
    turn: Place | None = Field(default=None, description="The turn that failed.")
    reason: str = Field(description="Why, in a sentence.")
    answered: tuple[dict[str, JsonValue], ...] = Field(
        default=(), description="The turns that were written before, as messages."
    )
    custom_id: JsonValue = Field(default=None, description="Of a request of OpenAI's Batch API: its own.")
    response: None = Field(default=None, description="Of such a request: null, as in the API's error file.")
    error: dict[str, JsonValue] | None = Field(
        default=None, description="Of such a request: code and message, as in the API's error file."
    )
    row: JsonValue = Field(description="The row as it came; its text where it could not be read.")
