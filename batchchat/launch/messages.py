"""What the run's process and its replicas tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from batchchat.chats import FinishReason, Logprob, Message, Request, TextLogprob, Timings, Usage
from batchchat.engines.facts import AnyEngineFacts

Key = tuple[int, int, int]


# --- to a replica ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message: what to load."""

    versions: Mapping[str, str]
    """Of what decides about answers, to be compared on another machine. It stays the first field, so that another
    version of batchchat finds it."""
    recipe: Mapping[str, Any]
    """As plain values."""
    path: tuple[str, ...]
    """Where Python looks for modules."""
    budget_tokens: int | None
    model: Mapping[str, Any] | None = None
    """What identifies the model's files, to be compared on another machine."""


@dataclass(frozen=True, slots=True)
class Work:
    """Requests to be answered."""

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """Give back up to `count` requests that were not begun."""

    count: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more will come."""


# --- from a replica -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beat:
    """It lives. `signs` counts what its engine did; where it stands still, so does the engine. `clock` is its clock."""

    signs: int
    clock: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    rows: int
    clock: float


@dataclass(frozen=True, slots=True)
class Started:
    """The engine took these."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion without its request, which the run has. Timings are by the replica's clock."""

    key: Key
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    timings: Timings
    logprobs: tuple[Logprob, ...] | tuple[TextLogprob, ...] | None
    error: str | None
    usage: Usage | None
    message: Message | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Completions, and what was measured since the last ones."""

    answers: tuple[Answer, ...]
    batches: tuple[tuple[int, int, int, int], ...]
    """Arguments of `EngineMeter.batch`."""
    events: tuple[tuple[str, str], ...]
    """Arguments of `EngineMeter.event`."""
    learned_tokens: int | None
    """What fits into memory, where the replica learned it (`Budget`)."""
    clock: float


@dataclass(frozen=True, slots=True)
class Returned:
    """What a `Recall` found."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The last message: everything is answered."""

    facts: AnyEngineFacts
    host_peak_bytes: int
    device_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The last message: the engine cannot go on. `kind`: a mistake of the recipe, what this machine lacks, or anything
    else."""

    kind: Literal["usage", "environment", "error"]
    reason: str


FromReplica = Beat | Ready | Started | Answers | Returned | Ended | Failed
ToReplica = Begin | Work | Recall | Finish
