"""The texts of samples by which they are compared."""

from __future__ import annotations

import re
from collections.abc import Callable

from batchchat.chats.formats.segments import answer_text
from batchchat.chats.json_text import json_text
from batchchat.results.sample import Sample
from batchchat.scoring.base import column

TextOf = Callable[[Sample], str]

_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Letters of scripts that put no spaces between words: Thai, kana, Chinese characters."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def text_of(what: str) -> TextOf:
    """The text that a step is about: `question`, `answer`, `conversation`, or a column; empty where there is none."""
    return _TEXTS.get(what) or (lambda sample: _plain(column(sample.answered.columns, what)))


def words(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation; a letter of a script without spaces is one."""
    return _WORD.findall(text.casefold())


def _question(sample: Sample) -> str:
    chat = sample.answered.chat
    told = (message for segment in chat.segments for message in segment) if chat else ()
    return "\n".join(message.content or "" for message in told if message.role == "user")


def _conversation(sample: Sample) -> str:
    chat, answers = sample.answered.chat, sample.answered.answers
    parts: list[str] = []
    for turn, segment in enumerate(chat.segments if chat else ()):
        parts += (message.content or "" for message in segment if message.role == "user")
        if turn < len(answers):
            parts.append(answer_text(answers[turn]))
    return "\n".join(parts)


_TEXTS: dict[str, TextOf] = {
    "question": _question,
    "answer": lambda sample: sample.answer,
    "conversation": _conversation,
}

WITHIN_A_CHAT = frozenset({"answer", "conversation"})
"""Texts that differ between the samples of one chat, unless these are duplicates."""


def _plain(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json_text(value)
