"""From the raw text of a completion to the assistant's message. Nothing is guessed: what is not marked is content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchchat.chats import Completion, Message

_OPEN, _CLOSE = "<think>", "</think>"
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The message that a completion holds. `note` says, in one sentence, what could not be read from it."""

    message: Message
    note: str | None = None


def answer_text(completion: Completion) -> str:
    """The raw text up to the stop string that ended it, if one did. The earliest match wins, as it ended the answer."""
    text = completion.text
    if completion.finish_reason != "stop_string":
        return text
    ends = [place for place in (text.find(stop) for stop in completion.request.settings.stop) if place >= 0]
    return text[: min(ends)] if ends else text


def plain_answer(completion: Completion, strip: Callable[[str], str]) -> ParsedAnswer:
    """All text as content; `strip` takes the special tokens out of it."""
    return ParsedAnswer(Message("assistant", strip(answer_text(completion))))


def thinking_answer(completion: Completion, prompt_end: str, strip: Callable[[str], str]) -> ParsedAnswer:
    """Content after `</think>` and reasoning before it, where the answer (or the prompt's end, as templates of
    reasoning models write it) opens with `<think>`. Reasoning that was cut short leaves an empty content."""
    text = answer_text(completion)
    body = text.lstrip()
    if body.startswith(_OPEN):
        body = body[len(_OPEN) :]
    elif prompt_end.rstrip().endswith(_OPEN):
        body = text
    else:
        return ParsedAnswer(Message("assistant", strip(text)))
    reasoning, closed, content = body.partition(_CLOSE)
    content = strip(content).lstrip("\n") if closed else ""
    return ParsedAnswer(Message("assistant", content, reasoning=strip(reasoning).strip("\n")))


def parsed_answer(parsed: Mapping[str, Any], prefill: str) -> Message:
    """The message that a response template read. Of a continued turn only the continuation is the answer, while the
    template reads the turn from its beginning, so `prefill` is taken off the content."""
    calls = tuple(map(_call, parsed.get("tool_calls") or ()))
    content = parsed.get("content")
    if content is not None and not isinstance(content, str):
        raise ValueError(f"its content is a {type(content).__name__}, not a text")
    reasoning = next((parsed[key] for key in _REASONING_KEYS if parsed.get(key) is not None), None)
    if prefill and content is not None:
        content = content.removeprefix(prefill)
    if content is None and not calls:
        content = ""
    return Message("assistant", content, reasoning=reasoning, tool_calls=calls)


def _call(call: Any) -> Mapping[str, Any]:
    """A call as templates read it: one without arguments has none, which is not the same to them as a key that is not
    there. Raises ValueError for what is no call."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise ValueError("a tool call in it has no function")
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError("a tool call in it names no function")
    arguments = {} if function.get("arguments") is None else function["arguments"]
    if not isinstance(arguments, Mapping | str):
        raise ValueError(f"the arguments of a tool call in it are a {type(arguments).__name__}, not an object")
    return {**call, "function": {**function, "arguments": arguments}}


def uses_thinking(tokenizer: Any, template: str | None) -> bool:
    """Whether the model is known to reason between think marks: they are in its vocabulary or its template."""
    vocabulary = tokenizer.get_vocab()
    return (_OPEN in vocabulary and _CLOSE in vocabulary) or (template is not None and _CLOSE in template)
