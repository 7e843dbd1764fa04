"""OpenAI's completions API as its chat API: a prompt that no template renders, and its answer as a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from batchchat.chats.formats.values import kind
from batchchat.errors import BadRow

URL = "/v1/completions"

_MAX_TOKENS = 16
"""What the API takes where a request does not say."""
_FINISH_REASONS = {"length": "length"}
"""Any other is an end of the answer's own."""

Body = Mapping[str, Any]
Prompt = str | tuple[int, ...]


def read_prompt(body: Body) -> Prompt:
    """The prompt: a text, or token ids. Raises BadRow for several, and for what is no prompt."""
    value = body.get("prompt")
    if isinstance(value, list) and len(value) == 1 and not _is_id(value[0]):
        value = value[0]
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value:
        if all(map(_is_id, value)):
            return tuple(value)
        if all(isinstance(one, str | list) for one in value):
            raise BadRow(f"body.prompt holds {len(value)} prompts: give each a line of its own")
    what = "absent" if value is None else "empty" if value in ("", []) else kind(value)
    raise BadRow(f"body.prompt is {what}, not a text or a list of token ids")


def as_chat_body(body: Body, prompt: Prompt) -> dict[str, Any]:
    """The same request as the body of a chat completion, with the prompt as a user's turn. Raises BadRow for what that
    cannot ask."""
    out = {"max_tokens": _MAX_TOKENS, **{name: value for name, value in body.items() if value is not None}}
    del out["prompt"]
    if out.pop("echo", False):
        raise BadRow("body.echo gives back the prompt, and no engine here measures its tokens: remove it")
    best_of = out.pop("best_of", None)
    if best_of is not None and best_of != out.get("n", 1):
        raise BadRow(f"body.best_of is {best_of!r}, but answers are not chosen among several: remove it")
    count = out.pop("logprobs", None)
    if count is not None:
        if not _is_id(count):
            raise BadRow(f"body.logprobs is {kind(count)}, not the number of likeliest tokens")
        out |= {"logprobs": True, "top_logprobs": count}
    return {**out, "messages": [{"role": "user", "content": prompt if isinstance(prompt, str) else json.dumps(prompt)}]}


def as_text_completion(result: Body) -> dict[str, Any]:
    """A chat completion as the result of a request of the completions API."""
    return {
        **result,
        "id": str(result["id"]).replace("chatcmpl-", "cmpl-", 1),
        "object": "text_completion",
        "choices": [_choice(choice) for choice in result["choices"]],
    }


def _choice(choice: Body) -> dict[str, Any]:
    return {
        "index": choice["index"],
        "text": choice["message"]["content"] or "",
        "logprobs": None if choice["logprobs"] is None else _logprobs(choice["logprobs"]["content"]),
        "finish_reason": _FINISH_REASONS.get(choice["finish_reason"], "stop"),
    }


def _logprobs(steps: Sequence[Body]) -> dict[str, Any]:
    """By text, as this API has them: the chosen token is among the likeliest, and offsets count its characters."""
    tokens = [step["token"] for step in steps]
    return {
        "tokens": tokens,
        "token_logprobs": [step["logprob"] for step in steps],
        "top_logprobs": [
            {one["token"]: one["logprob"] for one in reversed((step, *step["top_logprobs"]))} for step in steps
        ],
        "text_offset": list(accumulate(map(len, tokens[:-1]), initial=0)) if tokens else [],
    }


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
