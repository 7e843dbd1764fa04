"""Prompts and answers as token ids, for servers that take and give them (vLLM's completions).

The prompt is the very one that a local engine would get: nothing depends on the server's own template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats import Completion, FinishReason, Logprob, Request, Timings, Usage
from batchchat.errors import BadRow
from batchchat.prompts import Codec

_MARK = "token_id:"
"""What a token's number stands behind in log-probabilities, with `return_tokens_as_token_ids`."""


def token_body(request: Request, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a completion request has in place of messages. `settings` are those of a chat completion."""
    body = {name: value for name, value in settings.items() if name not in ("logprobs", "top_logprobs")}
    if request.settings.logprobs is not None:
        body |= {"logprobs": request.settings.logprobs, "return_tokens_as_token_ids": True}
    return {"prompt": list(request.prompt_ids), "return_token_ids": True, **body}


def token_completion(
    data: Mapping[str, Any], request: Request, codec: Codec, usage: Usage | None, timings: Timings
) -> Completion:
    """The first choice as the completion that a local engine would give. Raises BadRow where the server gives no token
    ids."""
    choice = data["choices"][0]
    ids = choice.get("token_ids") if isinstance(choice, Mapping) else None
    if not (isinstance(ids, list) and all(type(number) is int and 0 <= number < codec.vocab_size for number in ids)):
        raise BadRow(
            "the server gave no token ids of this tokenizer with its answer; set engine.endpoint.prompts=messages"
        )
    ended = bool(ids) and ids[-1] in request.settings.stop_token_ids
    written = ids[:-1] if ended else ids
    return Completion(
        request,
        tuple(ids),
        codec.decode(written),
        _finish_reason(choice, request, ended),
        timings,
        logprobs=_logprobs(choice.get("logprobs"), ids) if request.settings.logprobs is not None else None,
        usage=usage,
    )


def _finish_reason(choice: Mapping[str, Any], request: Request, ended: bool) -> FinishReason:
    if choice.get("finish_reason") == "length":
        return "length"
    return "stop_string" if not ended and request.settings.stop else "stop"


def _logprobs(value: Any, ids: Sequence[int]) -> tuple[Logprob, ...]:
    if not isinstance(value, Mapping) or len(value.get("token_logprobs") or ()) != len(ids):
        raise BadRow("the server gave no log-probabilities, though they were asked for; leave generation.logprobs out")
    tops = value.get("top_logprobs") or [{}] * len(ids)
    return tuple(
        Logprob(number, float(logprob), tuple(_numbered(top)))
        for number, logprob, top in zip(ids, value["token_logprobs"], tops, strict=True)
    )


def _numbered(top: Mapping[str, float] | None) -> list[tuple[int, float]]:
    try:
        found = [(int(name.removeprefix(_MARK)), float(logprob)) for name, logprob in (top or {}).items()]
    except ValueError:
        raise BadRow("the server's log-probabilities name tokens by text, not by their numbers") from None
    return sorted(found, key=lambda pair: -pair[1])
