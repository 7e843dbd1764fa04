"""One request in flight."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchchat.chats import Completion, Logprob, Request
from batchchat.engines.answer import OpenAnswer
from batchchat.engines.continuous.base import Allocation
from batchchat.prompts import Codec


@dataclass(eq=False, slots=True, weakref_slot=True)
class SequenceState:
    """A request, the tokens of its prompt and answer so far, and the slot that it has while it is being computed."""

    request: Request
    codec: Codec
    queued: float
    tokens: list[int] = field(init=False)
    answer: OpenAnswer = field(init=False)
    slot: Allocation | None = field(default=None, init=False)
    started: float | None = None
    reached: int = 0
    """Tokens that it had when its slot was taken from it: it asks for as much room from the start the next time."""
    num_reported: int = 0
    """Tokens of the answer that the listener knows: none is told twice when an answer is computed again."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the answer so far, to be computed again from the prompt."""
        self.tokens = list(self.request.prompt_ids)
        self.answer = OpenAnswer(self.request, self.codec)
        self.slot = None

    @property
    def num_prompt(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def placed(self) -> Allocation:
        """The slot, of a sequence that has one."""
        assert self.slot is not None
        return self.slot

    @property
    def is_writing(self) -> bool:
        """Whether the prompt is computed and the answer has begun."""
        return len(self.tokens) > self.num_prompt

    @property
    def num_pending(self) -> int:
        """Tokens that are known and not computed yet: one while the answer is being written."""
        return len(self.tokens) - self.placed.computed

    def add(self, token_id: int, logprob: Logprob | None) -> None:
        """The answer's next token."""
        self.tokens.append(token_id)
        self.answer.add(token_id, logprob)

    def completion(self, now: float, error: str | None = None) -> Completion:
        """What became of the request; with `error`, in one sentence, it failed."""
        if error is not None:
            self.answer.fail(error)
        self.answer.finished_at = now
        return self.answer.completion(self.queued, now if self.started is None else self.started)
