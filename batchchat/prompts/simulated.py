"""The turns of a simulated user: how a model is asked for one, and what is wrong with what it wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from batchchat.chats import Completion, Message, Settings, SourceRow
from batchchat.chats.conversation import Conversation
from batchchat.chats.formats.options import parse_template
from batchchat.chats.formats.prompt import fill
from batchchat.errors import BadRow
from batchchat.prompts.answers import answer_text
from batchchat.prompts.codec import Codec

Fault = Literal["empty", "cut", "repeats", "role_flip", "leak"]

_PATIENCE = {
    True: "You are patient: where an answer is no help, say what is missing and ask again in other words.",
    False: "You are in a hurry: where an answer is no help, say so once, and give up when the next one is none either.",
}
_WORDS = re.compile(r"\w+")
_SETTING = "simulate.instructions"


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What a simulated user wrote. `fault` says why it cannot be used, `ends` that the user ends the chat."""

    message: Message
    fault: Fault | None = None
    ends: bool = False


class SimulatedUser:
    """Asks for user turns and reads them.

    `section` is the recipe's `simulate`, `instructions` the text of its file, `codec` that of the model that plays the
    user. With `method: magpie` the model goes on behind the beginning of a user's turn in its own template (Xu et al.,
    arXiv 2406.08464); else it is told to play one, with the roles of the chat changed over. Raises UsageError where
    that cannot be done.
    """

    def __init__(self, section: Any, instructions: str, codec: Codec):
        self._section = section
        self._codec = codec
        self._instructions = instructions
        self._is_magpie = section.method == "magpie"
        self._flips = [re.compile(pattern) for pattern in section.role_flips]
        self._told = set[tuple[str, ...]]()
        self.ends: tuple[tuple[int, ...], str | None] = codec.query_ends() if self._is_magpie else ((), None)
        """Token ids that end a turn besides the model's own, and a text that does."""
        for name, text in (("goal", section.goal), ("persona", section.persona)):
            parse_template(text or "", f"simulate.{name}")
        if not self._is_magpie:
            for literal in (*(literal for literal, _ in parse_template(instructions, _SETTING)), *_PATIENCE.values()):
                self._told |= self._runs(literal)

    def instructions(self, row: SourceRow) -> str:
        """What the model is told for a row; empty where it is told nothing. Raises BadRow for a column that is not
        there."""
        if self._is_magpie:
            return ""
        section = self._section
        known = {
            name: "not said" if text is None else fill(text, row, f"simulate.{name}", {})
            for name, text in (("goal", section.goal), ("persona", section.persona))
        }
        known |= {"patience": _PATIENCE[self._is_patient(row)], "stop_mark": section.stop_mark}
        return fill(self._instructions, row, _SETTING, known)

    def settings(self, settings: Settings) -> Settings:
        """Those of a user's turn, from those that the recipe resolves to."""
        ids, text = self.ends
        return replace(
            settings,
            stop_token_ids=tuple(dict.fromkeys((*settings.stop_token_ids, *ids))),
            stop=settings.stop if text is None else (*settings.stop, text),
        )

    def messages(self, instructions: str, told: Conversation) -> tuple[Message, ...]:
        """The chat as the model that plays the user sees it."""
        if self._is_magpie:
            return told.messages
        seen = [Message("system", instructions), Message("user", self._section.greeting)]
        for message in told.messages:
            if message.role == "user":
                seen.append(Message("assistant", message.content))
            elif message.role == "assistant" and message.content:
                seen.append(Message("user", message.content))
        return tuple(_without_runs(seen))

    def render(self, messages: Sequence[Message], tools: Any = None, *, prefill: bool = False) -> tuple[int, ...]:
        """Prompt ids for `messages`."""
        return self._codec.render_query(messages) if self._is_magpie else self._codec.render(messages)

    def pieces(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        """As `Codec.pieces`."""
        return self._codec.pieces(ids)

    def read(self, completion: Completion, told: Conversation) -> UserTurn:
        """The turn in a completion, behind what was said so far."""
        if self._is_magpie:
            pieces = self._codec.pieces(completion.token_ids)
            whole = "".join(text for text, special in pieces if not special)
            stopped = completion.finish_reason == "stop_string"
            text = (answer_text(completion) if stopped else whole).strip()
        else:
            text = (self._codec.parse(completion).message.content or "").strip()
        message = Message("user", text)
        if not self._is_magpie and self._section.stop_mark in text:
            return UserTurn(message, ends=True)
        return UserTurn(message, self._fault(text, completion, told))

    def _fault(self, text: str, completion: Completion, told: Conversation) -> Fault | None:
        if not text:
            return "empty"
        if completion.finish_reason == "length":
            return "cut"
        if any(text == (message.content or "").strip() for message in told.messages[-2:]):
            return "repeats"
        if any(pattern.search(text) for pattern in self._flips):
            return "role_flip"
        if self._told and not self._told.isdisjoint(self._runs(text)):
            return "leak"
        return None

    def _runs(self, text: str) -> set[tuple[str, ...]]:
        """All runs of `leak_words` words."""
        length = self._section.leak_words
        words = _WORDS.findall(text.casefold())
        return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)} if length else set()

    def _is_patient(self, row: SourceRow) -> bool:
        patient = self._section.patient
        if isinstance(patient, bool):
            return patient
        value = row.data.get(patient)
        if not isinstance(value, bool):
            raise BadRow(
                f"simulate.patient asks for column {patient}, which is {value!r}; write true or false into it"
                if patient in row.data
                else f"simulate.patient asks for column {patient}, which the row has not; name another, or write true"
            )
        return value


def _without_runs(messages: Sequence[Message]) -> list[Message]:
    """Turns of one role behind each other as one: templates want roles by turns."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = replace(joined[-1], content=f"{joined[-1].content}\n\n{message.content}")
        else:
            joined.append(message)
    return joined
