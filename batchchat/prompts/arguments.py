"""Arguments of tool calls in the form that a chat template wants: a mapping, or the JSON text that APIs send.

Some templates write `arguments | tojson`, which makes of a text a quoted text; some join `arguments` to other texts,
which fails with a mapping; some look what they got. Which it is shows when the template is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchchat.chats import TextArguments
from batchchat.chats.formats.values import as_json
from batchchat.errors import BadRow

_PROBE = "batchchat_probe"

Chat = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ArgumentForms:
    """Whether a template takes arguments as a mapping, and whether it writes those that are a text as they are."""

    mapping: bool
    text: bool

    def choose(self, arguments: Any) -> Any:
        """The arguments as they came where the template takes that, else in the other form."""
        came_as_text = isinstance(arguments, TextArguments)
        if not isinstance(arguments, Mapping):
            return arguments
        if self.text and (came_as_text or not self.mapping):
            return arguments.text if isinstance(arguments, TextArguments) else as_json(arguments)
        return dict(arguments)


def find_forms(chat: Chat, render: Callable[[Chat], str]) -> ArgumentForms | None:
    """Try both forms on a chat that calls tools. None where the template refuses both, which is the chat's fault."""
    mapping = _rendered(chat, {_PROBE: "a"}, render)
    text = _rendered(chat, as_json({_PROBE: "a"}), render)
    if mapping is None and text is None:
        return None
    as_it_is = text is not None and f'"{_PROBE}"' in text
    return ArgumentForms(mapping is not None and (not as_it_is or not _is_repr(mapping)), as_it_is)


def with_arguments(chat: Chat, choose: Callable[[Any], Any]) -> Chat:
    """The chat with every call's arguments as `choose` makes them."""
    return [
        {**message, "tool_calls": [_with(call, choose) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in chat
    ]


def _with(call: Mapping[str, Any], choose: Callable[[Any], Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or "arguments" not in function:
        return dict(call)
    return {**call, "function": {**function, "arguments": choose(function["arguments"])}}


def _rendered(chat: Chat, arguments: Any, render: Callable[[Chat], str]) -> str | None:
    try:
        return render(with_arguments(chat, lambda _: arguments))
    except BadRow:
        return None


def _is_repr(rendered: str) -> bool:
    """Whether a mapping was written as Python writes it, which no model was trained on."""
    return f"'{_PROBE}'" in rendered
