"""What was said, and of each answer which batch run writes it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchchat.chats import Message
from batchchat.recipe import Recipe


@dataclass(frozen=True)
class Provenance:
    """The batch run that an answer belongs to.

    Its recipe is `recipe`; its one row has the id `id`, holds the conversation's first `num_given` answers as they
    are, and lets the others be written, turn by turn. Answers in a row share an origin until something happens that
    no row can say: other settings, a second try, an answer that was stopped or came from a file.
    """

    id: str
    num_given: int
    recipe: Recipe


@dataclass
class Conversation:
    """Messages, and the origin of each assistant turn: None where no run would write it."""

    messages: list[Message] = field(default_factory=list)
    origins: list[Provenance | None] = field(default_factory=list)
    tools: tuple[Mapping[str, Any], ...] | None = None

    @property
    def system(self) -> str | None:
        """The system turn's text."""
        first = self.messages[0] if self.messages else None
        return first.content if first is not None and first.role in ("system", "developer") else None

    @system.setter
    def system(self, text: str | None) -> None:
        if self.system is not None:
            del self.messages[0]
        if text is not None:
            self.messages.insert(0, Message("system", text))

    @property
    def question(self) -> Message | None:
        """The last message, if it waits for an answer."""
        last = self.messages[-1] if self.messages else None
        return last if last is not None and last.role in ("user", "tool") else None

    def answer(self, message: Message, origin: Provenance | None) -> None:
        """Add the answer to the question."""
        self.messages.append(message)
        self.origins.append(origin)

    def extend(self, messages: Sequence[Message]) -> None:
        """Add messages as they came from elsewhere."""
        self.messages += messages
        self.origins += [None for message in messages if message.role == "assistant"]

    def copy(self) -> Conversation:
        """The same conversation, to go back to."""
        return Conversation(list(self.messages), list(self.origins), self.tools)

    def take_back_answer(self) -> bool:
        """Take the last answer away, so that its question waits again; False where there is none."""
        if self.question is None and self.origins:
            self.messages.pop()
            self.origins.pop()
            return True
        return False

    def take_back_question(self) -> Message | None:
        """Take the last user turn and all behind it away; the turn, or None where there is none."""
        places = [place for place, message in enumerate(self.messages) if message.role == "user"]
        if not places:
            return None
        question = self.messages[places[-1]]
        gone = sum(message.role == "assistant" for message in self.messages[places[-1] :])
        del self.messages[places[-1] :], self.origins[len(self.origins) - gone :]
        return question

    def row(self) -> dict[str, Any] | None:
        """The row whose answers a run of the last answer's recipe writes, as the conversation has them; None where no
        run would write the last answer. `answers` are those of the conversation, to compare with."""
        origin = self.origins[-1] if self.origins and self.question is None else None
        if origin is None:
            return None
        kept: list[Message] = []
        written: list[Message] = []
        num_answers = 0
        for message in self.messages:
            num_answers += message.role == "assistant"
            is_written = message.role == "assistant" and num_answers > origin.num_given
            (written if is_written else kept).append(message)
        row: dict[str, Any] = {"id": origin.id, "messages": [plain(message) for message in kept]}
        if self.tools:
            row["tools"] = [dict(tool) for tool in self.tools]
        return {**row, "answers": [plain(message) for message in written]}


def plain(message: Message) -> dict[str, Any]:
    """A message as rows hold it."""
    return {**message.extra, **message.as_dict()}
