"""Prompts without a tokenizer: UTF-8 bytes as ids. For runs without a model, which must start in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats import Completion, Message
from batchchat.errors import BadRow
from batchchat.prompts.answers import ParsedAnswer, plain_answer
from batchchat.prompts.literal import within_vocabulary
from batchchat.prompts.token_texts import TokenTexts

_END = 256


class ByteCodec:
    """Ids 0 to 255 are bytes, 256 ends a turn. A turn is rendered as its role, a newline, its text and the end."""

    vocab_size = 257
    eos_token_ids: tuple[int, ...] = (_END,)
    context_length: int | None = None
    template: str | None = None

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, *, prefill: bool = False
    ) -> tuple[int, ...]:
        """Byte ids of the chat, open for the assistant's turn (or for the rest of it with `prefill`)."""
        if not messages:
            raise BadRow("the chat has no messages; give it at least one user turn")
        ids: list[int] = []
        if tools:
            ids += [*self._encode("tools\n" + json.dumps(list(tools), ensure_ascii=False)), _END]
        for message in messages:
            ids += [*self._encode(f"{message.role}\n{_body(message)}"), _END]
        if prefill:
            return tuple(ids[:-1])
        return (*ids, *b"assistant\n")

    def render_query(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Byte ids of the chat, open for a user's turn."""
        said = self.render(messages)[: -len(b"assistant\n")] if messages else ()
        return (*said, *b"user\n")

    def query_ends(self) -> tuple[tuple[int, ...], str | None]:
        return self.eos_token_ids, None

    def render_text(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, *, prefill: bool = False
    ) -> str:
        """The chat as text, each turn's end as a newline."""
        return self.decode(self.render(messages, tools, prefill=prefill))

    def encode_prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """A text's bytes, or ids as they are."""
        return tuple(self._encode(prompt)) if isinstance(prompt, str) else within_vocabulary(prompt, self.vocab_size)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """The text's bytes."""
        return tuple(self._encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of byte ids; bytes that are no UTF-8 become U+FFFD, a turn's end a newline."""
        return bytes(10 if number == _END else number for number in ids).decode("utf-8", "replace")

    def token_texts(self) -> TokenTexts:
        """Each byte is itself, and a turn's end no text."""
        return TokenTexts([*(bytes([number]) for number in range(_END)), b""])

    def pieces(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        """The ids as text, turn ends marked as special."""
        out: list[tuple[str, bool]] = []
        start = 0
        for place, number in enumerate(ids):
            if number == _END:
                out += [(self.decode(ids[start:place]), False), ("<end>", True)]
                start = place + 1
        out.append((self.decode(ids[start:]), False))
        return [(text, special) for text, special in out if text]

    def parse(self, completion: Completion) -> ParsedAnswer:
        """The assistant turn that a completion holds: the message that its engine made of it, else all of its text."""
        if completion.message is not None:
            return ParsedAnswer(completion.message, completion.note)
        return plain_answer(completion, lambda text: text)

    def _encode(self, text: str) -> bytes:
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRow(
                f"a text holds the lone surrogate U+{ord(text[error.start]):04X}, which is no character; "
                "write the row again with valid Unicode"
            ) from error


def _body(message: Message) -> str:
    if not message.tool_calls:
        return message.content or ""
    calls = json.dumps([dict(call) for call in message.tool_calls], ensure_ascii=False)
    return f"{message.content or ''}{calls}"
