"""A request as the JSON body that a server reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from batchchat.chats import Message, Request, Settings, Structure
from batchchat.chats.formats.calls import with_argument_text
from batchchat.engines.endpoint.options import EndpointOptions
from batchchat.engines.endpoint.text import text_body
from batchchat.engines.endpoint.tokens import token_body
from batchchat.errors import BadRow


class BodyWriter:
    """Writes the bodies of one run's requests."""

    def __init__(self, options: EndpointOptions, model: str, in_pieces: bool = False):
        """`in_pieces`: ask for answers as they are written, where that is known."""
        self._options = options
        self._in_pieces = in_pieces
        self._model = options.model or model
        self._limit = options.max_tokens_name or _limit_name(options.url)

    def write(self, request: Request) -> bytes:
        """The body of a chat completion, or of a completion by token ids. Raises BadRow for a setting that no server's
        API has."""
        settings = {self._limit: request.settings.max_new_tokens, **dict(_settings(request.settings))}
        if self._options.prompts == "tokens":
            body = {"model": self._model, **token_body(request, settings)}
        elif request.prompt is not None:
            body = {"model": self._model, **text_body(request, settings, self._limit)}
        else:
            body = {"model": self._model, **self._asked(request), **settings}
            if self._in_pieces:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
        if request.settings.temperature > 0:
            body["seed"] = request.seed
        body |= {**request.parameters, **self._options.extra_body}
        for name in self._options.omit:
            body.pop(name, None)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")

    def _asked(self, request: Request) -> dict[str, Any]:
        asked: dict[str, Any] = {"messages": [self._message(message) for message in request.messages]}
        if request.tools:
            asked["tools"] = [dict(tool) for tool in request.tools]
        if request.messages[-1].role == "assistant":  # the turn that the answer continues
            asked |= {"continue_final_message": True, "add_generation_prompt": False}
        return asked

    def _message(self, message: Message) -> dict[str, Any]:
        out: dict[str, Any] = {"role": message.role, "content": message.content}
        out |= {name: value for name, value in message.extra.items() if name not in out}
        if message.reasoning is not None and self._options.send_reasoning != "none":
            out[self._options.send_reasoning] = message.reasoning
        if message.tool_calls:
            out["tool_calls"] = with_argument_text(message.tool_calls)
        if message.tool_call_id is not None:
            out["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            out["name"] = message.name
        return out


def _settings(settings: Settings) -> Iterator[tuple[str, Any]]:
    """The settings that are not off, by their names in the API: OpenAI's own, and those that other servers share."""
    if settings.bad_texts or settings.bad_words:
        raise BadRow("no server's API has bad_words; leave generation.bad_words out")
    if settings.flags:
        raise BadRow(f"{settings.flags[0][0]} is a flag of transformers, which no server's API has; leave it out")
    if settings.logprobs_of == "processed" and settings.logprobs is not None:
        raise BadRow("servers give log-probabilities in their own way; set generation.logprobs_of=raw")
    yield "temperature", settings.temperature
    for name, value, off in (
        ("top_p", settings.top_p, 1.0),
        ("top_k", settings.top_k, 0),
        ("min_p", settings.min_p, 0.0),
        ("presence_penalty", settings.presence_penalty, 0.0),
        ("frequency_penalty", settings.frequency_penalty, 0.0),
        ("repetition_penalty", settings.repetition_penalty, 1.0),
        ("min_tokens", settings.min_new_tokens, 0),
        ("stop", list(settings.stop), []),
        ("stop_token_ids", list(settings.stop_token_ids), []),
        ("logit_bias", {str(token): bias for token, bias in settings.logit_bias}, {}),
    ):
        if value != off:
            yield name, value
    if settings.structured is not None:
        yield _form(settings.structured)
    if settings.logprobs is not None:
        yield "logprobs", True
        if settings.logprobs:
            yield "top_logprobs", settings.logprobs


def _form(structure: Structure) -> tuple[str, Any]:
    """OpenAI's `response_format` for JSON; what other servers have for all else."""
    match structure.kind:
        case "json":
            return "response_format", {"type": "json_object"}
        case "json_schema":
            described = {"name": "answer", "schema": json.loads(structure.text), "strict": True}
            return "response_format", {"type": "json_schema", "json_schema": described}
        case "choice":
            return "structured_outputs", {"choice": json.loads(structure.text)}
        case "regex" | "grammar":
            return "structured_outputs", {structure.kind: structure.text}
        case "calls":
            raise AssertionError("a server holds calls where its tools say that they are strict")


def _limit_name(url: str) -> str:
    host = urlsplit(url).hostname or ""
    of_openai = host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))
    return "max_completion_tokens" if of_openai else "max_tokens"
