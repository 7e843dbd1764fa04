"""Prompts that no template renders, and answers that are a text: the completions API, by texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats import Message, Request, TextLogprob
from batchchat.chats.formats.values import check_text, kind
from batchchat.engines.endpoint.answer import Reading, finish_reason
from batchchat.errors import BadRow


def text_body(request: Request, settings: Mapping[str, Any], limit: str) -> dict[str, Any]:
    """What a completion request has in place of messages. `settings` are those of a chat completion, which calls
    max_tokens `limit`."""
    assert request.prompt is not None, "the request has a prompt of its own"
    body = {name: value for name, value in settings.items() if name not in ("logprobs", "top_logprobs", limit)}
    if request.settings.logprobs is not None:
        body["logprobs"] = request.settings.logprobs
    prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    return {"prompt": prompt, "max_tokens": settings[limit], **body}


def read_text(data: Mapping[str, Any], request: Request) -> Reading:
    """The first choice of an answer. Raises BadRow, saying why, where it holds none that could be kept."""
    choice = data["choices"][0]
    text = choice.get("text") if isinstance(choice, Mapping) else None
    if not isinstance(text, str):
        raise BadRow(f"the server's choice has {kind(text)} as its text; it may not know completions")
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise BadRow("the server withheld the answer, or a part of it (content_filter)")
    return Reading(
        text=check_text(text, "the server's text"),
        message=Message("assistant", text),
        finish_reason=finish_reason(reason, choice, request),
        logprobs=_logprobs(choice.get("logprobs")) if request.settings.logprobs is not None else None,
    )


def _logprobs(value: Any) -> tuple[TextLogprob, ...]:
    tokens = value.get("tokens") if isinstance(value, Mapping) else None
    if not isinstance(tokens, Sequence):
        raise BadRow("the server gave no log-probabilities, though they were asked for; leave generation.logprobs out")
    tops = value.get("top_logprobs") or [None] * len(tokens)
    try:
        steps = list(zip(tokens, value["token_logprobs"], tops, strict=True))
        return tuple(TextLogprob(_token(token), float(logprob), None, _likeliest(top)) for token, logprob, top in steps)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadRow("the server's log-probabilities are not in the form of OpenAI's API") from None


def _likeliest(top: Mapping[str, float] | None) -> tuple[TextLogprob, ...]:
    found = [TextLogprob(_token(token), float(logprob)) for token, logprob in (top or {}).items()]
    return tuple(sorted(found, key=lambda step: -step.logprob))


def _token(token: Any) -> str:
    return check_text(token, "a token of the server")
