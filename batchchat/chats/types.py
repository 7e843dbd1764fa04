"""The words of the project as frozen values: what travels from the source to the store. No I/O, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from batchchat.chats.json_text import read_exact

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")

Writer = Literal["assistant", "user", "tool"]
"""Whose turn a request asks for: a model may play the user, and tools may run."""

FinishReason = Literal["stop", "length", "stop_string", "tool_calls", "tool_result", "error"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source row came from. `line` counts from 1 (a JSONL line, a Parquet row, an array element)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class TextArguments(dict[str, Any]):
    """Arguments of a tool call that came as JSON text: what it says, and the text itself."""

    def __init__(self, values: Mapping[str, Any], text: str):
        super().__init__(values)
        self.text = text


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    `content` is None only where `tool_calls` is not empty. `tool_calls` are OpenAI-shaped mappings
    `{"id"?, "type": "function", "function": {"name", "arguments"}}` with `arguments` parsed to a mapping where
    it was a JSON string (`TextArguments` then). `extra` holds every other key of the message as it came.
    """

    role: Role
    content: str | None
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The mapping that chat templates and the `messages` output format read; absent parts have no key."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        out.update((key, value) for key, value in self.extra.items() if key not in out)
        if self.reasoning is not None:
            out["reasoning_content"] = self.reasoning
        if self.tool_calls:
            out["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            out["name"] = self.name
        return out


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One record of the input: its columns as they came, its number in the whole input from 0, and its place. `text`
    is the JSON that it was read from, None where it came otherwise."""

    number: int
    place: Place
    data: Mapping[str, Any]
    text: str | None = None

    @property
    def exact(self) -> Mapping[str, Any]:
        """`data` with the digits of its numbers as they stand in the text, to be written again."""
        return self.data if self.text is None else read_exact(self.text)


@dataclass(frozen=True, slots=True)
class RowError:
    """A source row (or a chat of it) that cannot be answered: `reason` is one sentence, `raw` the row as read."""

    number: int
    place: Place
    reason: str
    raw: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation with the turns that are to be written.

    `segments[k]` is what is said just before answer `k`: the prompt of turn `k` is every segment up to `k` with
    the answers 0..k-1 between them. `tail` follows the last answer without being answered. With `prefill` the
    last segment ends in an assistant turn, which the answer continues. `settings` are the row's own generation
    settings (names of the recipe's `generation` section), which win over the recipe's, `parameters` those that only
    a server understands. `references[k]` is the
    assistant turn that stood where answer `k` goes, if any; `reference` the row's reference answer, if any.

    Where a simulated user goes on, `simulated` is the most user turns that the chat may have, and 0 else; a first
    segment without a user's turn is one that the simulated user begins. Segments whose numbers are in `made` were not
    in the row: they came while the chat was written.
    """

    id: str
    index: int
    place: Place
    segments: tuple[tuple[Message, ...], ...]
    tail: tuple[Message, ...] = ()
    prefill: bool = False
    tools: tuple[Mapping[str, Any], ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[str | None, ...] = ()
    reference: Any = None
    simulated: int = 0
    runs_tools: bool = False
    """Whether calls in its answers are run, and their results answered."""
    made: frozenset[int] = frozenset()
    prompt: str | tuple[int, ...] | None = None
    """The prompt itself, as text or token ids, which no template renders; None where the turns become one."""

    @property
    def num_turns(self) -> int:
        return len(self.segments)


GrammarBackend = Literal["llguidance", "xgrammar"]
"""A library that keeps answers in a form (`engine.grammar_backend`)."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The form that an answer must have. `text` is the JSON schema as JSON, the regular expression that the whole
    answer matches, the answers to choose from as a JSON list, the grammar in Lark's notation, or, of `json`, which is
    any JSON object, nothing. Of `calls`, which leaves an answer free but for its tool calls, it says how a call is
    written and what each tool takes (`structure.calls`)."""

    kind: Literal["json_schema", "regex", "choice", "grammar", "json", "calls"]
    text: str = ""
    white_space: Literal["none", "capped", "free"] = "capped"
    """Between the parts of JSON."""
    backend: GrammarBackend = "llguidance"
    """The library by which an engine on this machine keeps answers in it."""


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """How a model writes the calls of an answer: `opens`, `before`, a tool's name, `between`, its arguments as a JSON
    object, `behind`."""

    opens: str
    """What makes a call of the text behind it, wherever it stands in an answer."""
    before: str
    between: str
    behind: str
    again: str | None = None
    """From the arguments of a call to the name of the next one, where a call need not be closed before that."""
    closes: tuple[str, ...] = ()
    """What ends a call for those who read it, wherever it stands."""
    goes_on: bool = True
    """Whether the answer goes on behind its calls, instead of ending there."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one request is generated, all values resolved. Everything but `flags` is applied row by row, so rows
    with different settings share a batch; rows share one only where `flags` are equal."""

    max_new_tokens: int
    min_new_tokens: int = 0
    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """0 is off."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or answer (CTRL, arXiv 1909.05858)."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of a token that the answer already holds (as OpenAI's API defines it)."""
    frequency_penalty: float = 0.0
    """Subtracted once per occurrence in the answer."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Token sequences that must not be written: the model's own."""
    bad_texts: tuple[str, ...] = ()
    """Texts that the decoded answer must not hold, whatever its tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; matched in the decoded answer, so also across token boundaries."""
    stop_token_ids: tuple[int, ...] = ()
    """Ids that end the answer: the model's end tokens and the recipe's own."""
    structured: Structure | None = None
    """The form that the answer must have, its reasoning apart."""
    logprobs: int | None = None
    """None: no log-probabilities. n: those of the chosen token and of the n most likely."""
    logprobs_of: Literal["raw", "processed"] = "raw"
    """Of the model's own distribution, or of the one that the token was chosen from."""
    flags: tuple[tuple[str, Any], ...] = ()
    """Further `GenerationConfig` flags for engines on `generate` (beams, …), sorted by name, values hashable."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to be written. `key` identifies it within a run."""

    chat_id: str
    index: int
    sample: int
    turn: int
    prompt_ids: tuple[int, ...]
    settings: Settings
    seed: int
    """63 bits from (run seed, chat id, sample, turn): never from its place in a batch, order or process."""
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters of the chat's own, as a server's API names them; for engines that take them."""
    writer: Writer = "assistant"
    """Whose turn is asked for. A user's turn is the answer to its own messages, in which the roles are changed over."""
    prompt: str | tuple[int, ...] | None = None
    """The chat's own, where no template rendered it; `prompt_ids` are its ids."""

    @property
    def key(self) -> tuple[int, int, int]:
        return (self.index, self.sample, self.turn)

    @property
    def continued(self) -> str:
        """What is there already of the turn that the answer goes on with; empty where it begins one."""
        last = self.messages[-1] if self.messages else None
        return last.content or "" if last is not None and last.role == "assistant" else ""


@dataclass(frozen=True, slots=True)
class Logprob:
    """Log-probabilities of one step (natural log): of the model's own distribution, or of the one that the token was
    chosen from (`Settings.logprobs_of`). `top` has no tokens of probability 0."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TextLogprob:
    """Log-probability of one token (natural log) as a server gives it: by the token's text, and by its bytes where the
    server says them. `top` are the most likely tokens at its place."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TextLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds on the run's clock: when the request entered the engine, when its work began, when it was done."""

    queued: float
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens a request took, as the server that answered it counts them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    """Of the prompt, those that the server had in its cache; None where it does not say."""
    reasoning_tokens: int | None = None
    """Of the answer, those of its reasoning; None where the server does not say."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine gives back. `token_ids` are counted without padding, up to and with the end token.

    `text` is the raw decoded answer, special tokens included, the end token not; a stop string that ended it is
    still in it. With `finish_reason == "error"` `error` says why in one sentence and the rest may be empty. An engine
    without token ids gives none, but `usage`; where its server told content, reasoning and tool calls apart, `message`
    is what it made of the answer, and `note` says what could not be read from that.
    """

    request: Request
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    timings: Timings
    logprobs: tuple[Logprob, ...] | tuple[TextLogprob, ...] | None = None
    error: str | None = None
    usage: Usage | None = None
    message: Message | None = None
    note: str | None = None

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_ids) if self.usage is None else self.usage.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids) if self.usage is None else self.usage.completion_tokens
