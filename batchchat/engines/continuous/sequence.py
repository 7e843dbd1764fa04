"""One request in flight."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchchat.chats import Completion, Logprob, Request
from batchchat.engines.answer import OpenAnswer
from batchchat.engines.continuous.base import Allocation
from batchchat.prompts import Codec

UNREAD = 0
"""Stands for a token that is known on the device only."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class SequenceState:
    """A request, the tokens of its prompt and answer so far, and the slot that it has while it is being computed.

    The last `num_unread` tokens are chosen, and the host does not know them yet: they are `UNREAD` as long.
    """

    request: Request
    codec: Codec
    queued: float
    tokens: list[int] = field(init=False)
    answer: OpenAnswer = field(init=False)
    num_prompt: int = field(init=False)
    num_unread: int = field(default=0, init=False)
    slot: Allocation | None = field(default=None, init=False)
    started: float | None = None
    reached: int = 0
    """Tokens that it had when its slot was taken from it: it asks for as much room from the start the next time."""
    num_whole: int = field(init=False)
    """Tokens that it has at most: then no further one may be chosen, though the last ones may not be read."""
    num_reported: int = 0
    """Tokens of the answer that the listener knows: none is told twice when an answer is computed again."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the answer so far, to be computed again from the prompt."""
        self.tokens = list(self.request.prompt_ids)
        self.num_prompt = len(self.tokens)
        self.num_whole = self.num_prompt + self.request.settings.max_new_tokens
        self.answer = OpenAnswer(self.request, self.codec)
        self.num_unread = 0
        self.slot = None

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

    @property
    def num_known(self) -> int:
        """How many of its tokens the host knows."""
        return len(self.tokens) - self.num_unread

    def choose(self) -> None:
        """The answer's next token is chosen, and will be read later."""
        self.tokens.append(UNREAD)
        self.num_unread += 1

    def read(self, token_id: int, logprob: Logprob | None) -> None:
        """The first of the tokens that were not known. Where the answer ends with it, there are no others."""
        self.tokens[-self.num_unread] = token_id
        self.num_unread -= 1
        self.answer.add(token_id, logprob)
        if self.answer.done:
            self.drop_unread()

    def drop_unread(self) -> None:
        """The tokens that are not known belong to no answer."""
        del self.tokens[self.num_known :]
        self.num_unread = 0

    def completion(self, now: float, error: str | None = None) -> Completion:
        """What became of the request; with `error`, in one sentence, it failed."""
        if error is not None:
            self.answer.fail(error)
        self.answer.finished_at = now
        return self.answer.completion(self.queued, now if self.started is None else self.started)
