"""A chat while it is written: what was said so far, and who writes next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchchat.chats.types import Chat, Message, Writer


class Conversation:
    """One sample of a chat, turn by turn.

    Scripted turns are answered in their order; then a simulated user goes on, where the chat has one, until
    `chat.simulated` user turns were answered. Written turns come as records, in the order in which they were written:
    `message` (results of tools, where these are run, are turns, too), and where they apply `fault` (a user's turn that
    is not used and written anew) and `ends` (why the chat ends here: a user's last turn has no answer and is no part
    of it).
    """

    def __init__(self, chat: Chat, written: Iterable[Mapping[str, Any]] = ()):
        self.chat = chat
        self.segments: list[tuple[Message, ...]] = [chat.segments[0]]
        self.answers: list[Message] = []
        self.num_written = 0
        self.num_faults = 0
        """Of the user's turn that is written now."""
        self.ended: str | None = None
        """Why a simulated chat ended; None while it goes on."""
        self.rounds = 0
        """Answers in a row that called tools which were run."""
        self._calls: list[Mapping[str, Any]] = []
        """Calls of the last answer that have no result yet."""
        self._results: list[Message] = []
        self._made: set[int] = set()
        self._asked = 1
        """How many segments of the chat as it came were reached."""
        for record in written:
            self.add(record)

    @property
    def writer(self) -> Writer | None:
        """Who writes the next turn; None where nothing is left to write."""
        if self.ended is not None:
            return None
        if self._calls:
            return "tool"
        if len(self.segments) > len(self.answers):
            return "assistant" if not self.chat.simulated or _asks(self.segments[-1]) else "user"
        return "user" if self.chat.simulated else None

    @property
    def next_call(self) -> Mapping[str, Any]:
        """The call that is run now."""
        return self._calls[0]

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that was said."""
        said: list[Message] = []
        for turn, segment in enumerate(self.segments):
            said.extend(segment)
            if turn < len(self.answers):
                said.append(self.answers[turn])
        return tuple(said)

    @property
    def is_complete(self) -> bool:
        """Whether it is written to its end, with an answer to each turn of the row, and one at least."""
        return self.writer is None and bool(self.answers) and self.is_last_scripted

    @property
    def is_last_scripted(self) -> bool:
        """Whether the answer that is written now is that to the last segment of the chat as it came."""
        return self._asked == len(self.chat.segments)

    def add(self, record: Mapping[str, Any]) -> None:
        """The next turn as it was written."""
        message = message_from(record["message"])
        self.num_written += 1
        if message.role == "user":
            self._add_asked(message, record)
        elif message.role == "tool":
            self._add_result(message)
        else:
            self._add_answer(message, "ends" in record)
        self.ended = record.get("ends", self.ended)

    def as_chat(self) -> Chat:
        """The chat with the turns that others than the model wrote in their places, as far as they were written."""
        if not self._made:
            return self.chat
        whole = (*self.segments, *self.chat.segments[self._asked :])
        return replace(self.chat, segments=whole, made=frozenset(self._made))

    def _add_asked(self, message: Message, record: Mapping[str, Any]) -> None:
        if "fault" in record:
            self.num_faults += 1
            return
        self.num_faults = 0
        if "ends" in record:
            return
        if len(self.segments) > len(self.answers):  # the chat came without a user's turn
            self.segments[-1] = (*self.segments[-1], message)
        else:
            self.segments.append((message,))
        self._made.add(len(self.segments) - 1)

    def _add_result(self, message: Message) -> None:
        del self._calls[0]
        self._results.append(message)
        if not self._calls:
            self.segments.append(tuple(self._results))
            self._results = []
            self._made.add(len(self.segments) - 1)

    def _add_answer(self, message: Message, ends: bool) -> None:
        self.answers.append(message)
        if ends:
            return
        if self.chat.runs_tools and message.tool_calls:
            self._calls = list(message.tool_calls)
            self.rounds += 1
            return
        self.rounds = 0
        if self._asked < len(self.chat.segments):
            self.segments.append(self.chat.segments[self._asked])
            self._asked += 1
        elif self.chat.simulated and sum(map(_has_user, self.segments)) >= self.chat.simulated:
            self.ended = "turn_cap"


def message_from(data: Mapping[str, Any]) -> Message:
    """A written message (see `Message.as_dict`)."""
    return Message(
        role=data["role"],
        content=data["content"],
        reasoning=data.get("reasoning_content"),
        tool_calls=tuple(data.get("tool_calls", ())),
        tool_call_id=data.get("tool_call_id"),
        name=data.get("name"),
    )


def answers_in_place(chat: Chat, answers: Sequence[Message]) -> list[list[Message]]:
    """What goes to each place of the row where an answer goes: the answer, and all that was said behind it by others
    than the row's own turns."""
    places: list[list[Message]] = []
    for number, (segment, answer) in enumerate(zip(chat.segments, answers, strict=True)):
        if number in chat.made and places:
            places[-1] += [*segment, answer]
        else:
            places.append([answer])
    return places


def _has_user(segment: Sequence[Message]) -> bool:
    return any(message.role == "user" for message in segment)


def _asks(segment: Sequence[Message]) -> bool:
    """Whether there is something in it to answer."""
    return any(message.role in ("user", "tool") for message in segment)
