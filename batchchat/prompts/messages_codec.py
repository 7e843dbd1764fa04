"""Prompts for an engine that takes messages: no token ids and no template, which are its server's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats import Completion, Message
from batchchat.errors import BadRow, UsageError
from batchchat.prompts.answers import ParsedAnswer, plain_answer
from batchchat.prompts.token_texts import TokenTexts


class MessagesCodec:
    """Renders every chat to no ids; the request's messages are the prompt."""

    vocab_size = 0
    eos_token_ids: tuple[int, ...] = ()
    context_length: int | None = None
    template: str | None = None

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, *, prefill: bool = False
    ) -> tuple[int, ...]:
        if not messages:
            raise BadRow("the chat has no messages; give it at least one user turn")
        return ()

    def render_query(self, messages: Sequence[Message]) -> tuple[int, ...]:
        raise UsageError(
            "an engine that takes messages cannot write a user's turn from the beginning that its template has for it; "
            "set simulate.method=goal"
        )

    def query_ends(self) -> tuple[tuple[int, ...], str | None]:
        return self.render_query(()), None

    def render_text(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, *, prefill: bool = False
    ) -> str:
        """The tools and messages as JSON, one on each line."""
        return "\n".join(
            json.dumps(part, ensure_ascii=False)
            for part in (*_tools(tools), *(message.as_dict() for message in messages))
        )

    def encode_prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """None: the request's own `prompt` is sent."""
        return ()

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Raises BadRow: what is asked for by token ids cannot be."""
        raise BadRow(
            f"the text {text!r} cannot become token ids, as this engine has no tokenizer; leave out what needs them "
            "(generation.bad_words)"
        )

    def decode(self, ids: Sequence[int]) -> str:
        assert not ids, "there are no token ids without a tokenizer"
        return ""

    def token_texts(self) -> TokenTexts:
        """None: an engine that takes messages has no token ids."""
        return TokenTexts([])

    def pieces(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        assert not ids, "there are no token ids without a tokenizer"
        return []

    def parse(self, completion: Completion) -> ParsedAnswer:
        """The message that the server made of the answer, else all of its text as content."""
        if completion.message is not None:
            return ParsedAnswer(completion.message, completion.note)
        return plain_answer(completion, lambda text: text)


def _tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    return [{"tools": [dict(tool) for tool in tools]}] if tools else []
