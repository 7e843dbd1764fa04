"""What a server answered, as a completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchchat.chats import FinishReason, Message, Request, TextLogprob, Usage
from batchchat.chats.formats.calls import read_calls
from batchchat.chats.formats.values import as_json, check_text, kind
from batchchat.errors import BadRow

_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop",
    "stop_sequence": "stop_string", "length": "length", "max_tokens": "length",
    "tool_calls": "tool_calls", "function_call": "tool_calls",
}  # fmt: skip
_REASONING = ("reasoning", "reasoning_content", "thinking")


@dataclass(frozen=True, slots=True)
class Reading:
    """A server's answer. `text` is what it gave as its content; `note` says what could not be read from it."""

    text: str
    message: Message
    finish_reason: FinishReason
    logprobs: tuple[TextLogprob, ...] | None
    note: str | None = None


def read_answer(data: Mapping[str, Any], request: Request) -> Reading:
    """The first choice of an answer. Raises BadRow, saying why, where it holds none that could be kept."""
    choice = data["choices"][0]
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise BadRow(f"the server's choice has {kind(message)} as its message, not an object")
    refusal = message.get("refusal")
    content = _content(message.get("content") if not refusal or message.get("content") else refusal)
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise BadRow("the server withheld the answer, or a part of it (content_filter)")
    note = None
    try:
        calls = read_calls(message.get("tool_calls"), "tool_calls")
    except BadRow as error:
        calls, note = (), f"the tool calls could not be read, and are in the text as they came: {error}"
        content = f"{content or ''}{as_json(message['tool_calls'])}"
    thoughts = next((message[key] for key in _REASONING if isinstance(message.get(key), str) and message[key]), None)
    if thoughts is not None:
        check_text(thoughts, "the server's reasoning")
    text = content or ""
    return Reading(
        text=text,
        message=Message("assistant", content if calls else text, reasoning=thoughts, tool_calls=calls),
        finish_reason=finish_reason(reason, choice, request),
        logprobs=_logprobs(choice.get("logprobs")) if request.settings.logprobs is not None else None,
        note=note,
    )


def read_usage(data: Mapping[str, Any]) -> Usage | None:
    """How many tokens the server counted; None where it does not say."""
    usage = data.get("usage")
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    return Usage(
        prompt,
        completion,
        cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _content(value: Any) -> str | None:
    """A text, or the texts of a list of parts."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = "".join(str(part.get("text") or "") for part in value if isinstance(part, Mapping))
    return None if value is None else check_text(value, "the server's content")


def finish_reason(reason: Any, choice: Mapping[str, Any], request: Request) -> FinishReason:
    """What ended the answer; a reason that is not known, or none, counts as its end."""
    found = _REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
    if found == "stop" and choice.get("stop_reason") in request.settings.stop:  # as vLLM says it
        return "stop_string"
    return found


def _logprobs(value: Any) -> tuple[TextLogprob, ...]:
    """Raises BadRow where a server that was asked for log-probabilities gives none."""
    content = value.get("content") if isinstance(value, Mapping) else None
    if not isinstance(content, Sequence):
        raise BadRow("the server gave no log-probabilities, though they were asked for; leave generation.logprobs out")
    return tuple(_step(step) for step in content)


def _step(step: Any) -> TextLogprob:
    try:
        token, logprob, raw = step["token"], float(step["logprob"]), step.get("bytes")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadRow("the server's log-probabilities are not in the form of OpenAI's API") from None
    top = tuple(_step(other) for other in step.get("top_logprobs") or ())
    spelled = tuple(raw) if isinstance(raw, list) else None
    return TextLogprob(check_text(token, "a token of the server"), logprob, spelled, top)


def _count(value: Any, name: str) -> int | None:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
