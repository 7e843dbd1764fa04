"""An answer that comes in pieces, as server-sent events, put together to what a server says otherwise at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from batchchat.chats import Message

_DATA = b"data:"
_DONE = b"[DONE]"
_REASONING = ("reasoning", "reasoning_content", "thinking")

Hide = Callable[[bytes], bytes]


class Pieces:
    """The pieces of one answer's first choice. `is_whole`: its end was among them."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: list[Any] = []
        self._finish_reason: Any = None
        self.is_whole = False

    def take(self, line: bytes) -> bool:
        """Take in a line; whether the answer has grown by it. What is no piece is passed over."""
        if not line.startswith(_DATA):
            return False
        value = line[len(_DATA) :].strip()
        if value == _DONE:
            self.is_whole = True
            return False
        try:
            piece = json.loads(value)
        except ValueError:
            return False
        if not isinstance(piece, Mapping):
            return False
        known = {name: one for name, one in piece.items() if name != "choices" and one is not None}
        self._head |= known
        self.is_whole = self.is_whole or "error" in known
        choices = piece.get("choices") or [None]
        return isinstance(choices, list) and isinstance(choices[0], Mapping) and self._grow(choices[0])

    def message(self, hide: Hide) -> Message:
        """What was said so far, without what `hide` takes out of it."""

        def said(name: str) -> str:
            return hide("".join(self._texts.get(name, ())).encode("utf-8", "replace")).decode("utf-8", "replace")

        thoughts = next((said(name) for name in _REASONING if name in self._texts), None)
        return Message("assistant", said("content"), reasoning=thoughts)

    def body(self) -> bytes:
        """The whole, as the body of an answer."""
        if "error" in self._head:
            return json.dumps(self._head).encode()
        message: dict[str, Any] = {"role": "assistant", "content": None}
        message |= {name: "".join(texts) for name, texts in self._texts.items()}
        if self._calls:
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        if self._logprobs:
            choice["logprobs"] = {"content": self._logprobs}
        return json.dumps({**self._head, "object": "chat.completion", "choices": [choice]}).encode()

    def _grow(self, choice: Mapping[str, Any]) -> bool:
        if choice.get("finish_reason") is not None:
            self._finish_reason, self.is_whole = choice["finish_reason"], True
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, Mapping) and isinstance(logprobs.get("content"), list):
            self._logprobs += logprobs["content"]
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return False
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        texts = {name: delta[name] for name in ("content", "refusal", *_REASONING) if isinstance(delta.get(name), str)}
        for name, text in texts.items():
            self._texts.setdefault(name, []).append(text)
        return any(texts.values())

    def _add_call(self, piece: Any) -> None:
        if not isinstance(piece, Mapping) or not isinstance(piece.get("index", 0), int):
            return
        call = self._calls.setdefault(piece.get("index", 0), {"type": "function", "function": {}})
        if piece.get("id"):
            call["id"] = piece["id"]
        function, more = call["function"], piece.get("function")
        for name in ("name", "arguments"):
            if isinstance(more, Mapping) and isinstance(more.get(name), str):
                function[name] = function.get(name, "") + more[name]
