"""Lines of an OpenAI Batch file: one request each, answered by a result line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from batchchat.chats.formats import completions, responses
from batchchat.chats.formats.calls import read_tools, with_argument_text
from batchchat.chats.formats.entries import whole_entry, with_turns
from batchchat.chats.formats.messages import read_message, read_messages
from batchchat.chats.formats.options import Facts, Format, ReadOptions, Whole
from batchchat.chats.formats.segments import build_chat
from batchchat.chats.formats.values import kind
from batchchat.chats.json_text import encodable
from batchchat.chats.types import Chat, Message, SourceRow
from batchchat.errors import BadRow

URL = "/v1/chat/completions"

_SETTINGS: Mapping[str, str] = {
    "max_completion_tokens": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "n": "samples",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop",
    "stop_token_ids": "stop_token_ids",
    "ignore_eos": "ignore_eos",
}
"""Parameters of the body by what the recipe's `generation` section calls them. Beside OpenAI's own they hold those
that inference servers with the same API have added."""

_IGNORED = {
    "model", "user", "metadata", "store", "stream", "stream_options", "service_tier", "safety_identifier",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "prediction",
}  # fmt: skip
"""Parameters that do not change the answer: who asks, what is kept, how fast and how it travels; the recipe names the
model."""

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "function_call": ("auto", "none"),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
}
"""Parameters that are understood only at these values."""

_READ_APART = ("messages", "tools", "functions", "logprobs", "top_logprobs")

_FINISH_REASONS = {"stop_string": "stop"}

_LEAST = -9999.0
"""What the API writes for a token without any probability."""

Row = Mapping[str, Any]


def matches(data: Row, options: ReadOptions) -> bool:
    return isinstance(data.get("body"), Mapping)


def is_batch_line(data: Row) -> bool:
    """Whether a row is one of a batch file, and so is answered by a line with its `custom_id`."""
    return "custom_id" in data and isinstance(data.get("body"), Mapping)


def failure(data: Row, reason: str) -> dict[str, Any]:
    """What a line of a batch's error file says of a request that was not answered."""
    return {
        "custom_id": data["custom_id"],
        "response": None,
        "error": {"code": "invalid_request", "message": encodable(reason)},
    }


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    """The request's chat. One request asks for one answer, to its last turn, whatever `chat.turns` says of other
    formats; `regenerate` would ask for several and is refused. Raises BadRow for a parameter that would change the
    answer and is not understood."""
    data = row.data
    if "body" not in data and "response" in data:
        raise BadRow("this is a result line of an OpenAI batch (it has a response), not a request (which has a body)")
    body = data.get("body")
    if not isinstance(body, Mapping):
        raise BadRow(
            f"body is {kind(body) if 'body' in data else 'absent'}, not the object of a chat completion request"
        )
    if data.get("method", "POST") != "POST":
        raise BadRow(f"method is {data['method']!r}; a chat completion request has POST")
    if data.get("url", URL) not in (URL, completions.URL, responses.URL):
        raise BadRow(f"url is {data['url']!r}; only {URL}, {completions.URL} and {responses.URL} are understood")
    if options.simulated:
        raise BadRow("a batch request has one answer, so no simulated user can go on with it: leave simulate out")
    if options.turns == "regenerate":
        raise BadRow("a batch request has one answer, so chat.turns=regenerate does not fit it: set chat.turns=last")
    if data.get("url") == responses.URL:
        body = {**responses.as_chat_body(body), "n": 1}
    prompt = completions.read_prompt(body) if data.get("url") == completions.URL else None
    if prompt is not None:
        body, options = completions.as_chat_body(body, prompt), replace(options, system=None)
    settings, further = _read_parameters(body, options.server)
    tools = _read_offered(body)
    messages = read_messages(body.get("messages"), "body.messages")
    if "id" not in options.columns:
        options = replace(options, columns={**options.columns, "id": "custom_id"})
    chat = build_chat(row, index, replace(options, turns="last"), messages, tools=tools, settings=settings)
    return replace(chat, parameters=further, prompt=prompt) if further or prompt is not None else chat


def write(
    data: Row, chat: Chat, answers: Sequence[Message], options: ReadOptions, facts: Facts | None = None
) -> dict[str, Any]:
    """The line with `response` and `error` as OpenAI's result lines have them. Token usage and log-probabilities (as
    the facts hold them) are given where they are known."""
    facts = facts or {}
    turn = (facts.get("turns") or [{}])[-1]
    answer = answers[-1]
    message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        calls = with_argument_text(answer.tool_calls)
        known = {"type": "function"}
        message["tool_calls"] = [{"id": f"call_{number}", **known, **call} for number, call in enumerate(calls)]
    finish = turn.get("finish_reason")
    choice = {
        "index": facts.get("sample", 0),
        "message": message,
        "logprobs": _logprobs(turn.get("logprobs")),
        "finish_reason": _FINISH_REASONS.get(finish, finish),
    }
    name = blake2b(f"{chat.id}/{turn.get('seed')}".encode(), digest_size=12).hexdigest()
    body = {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": facts.get("created", 0),
        "model": facts.get("model", data["body"].get("model")),
        "choices": [choice],
    }
    prompt, completion = turn.get("prompt_tokens"), turn.get("completion_tokens")
    if prompt is not None and completion is not None:
        body["usage"] = _usage(prompt, completion, turn.get("cached_tokens"), turn.get("reasoning_tokens"))
    if data.get("url") == responses.URL:
        body = responses.as_response(body, data["body"])
    elif chat.prompt is not None:
        body = completions.as_text_completion(body)
    return {
        **data,
        "id": data.get("id", f"batch_req_{name}"),
        "response": {"status_code": 200, "request_id": name, "body": body},
        "error": None,
    }


def apart(row: SourceRow, options: ReadOptions) -> Whole:
    """The request's turns, and the answer where the line has one. What is asked besides goes to the columns that other
    formats know: tools, generation, and parameters for what is no setting."""
    exact = row.exact
    body = row.data.get("body")
    if not isinstance(body, Mapping):
        raise BadRow(f"body is {kind(body) if 'body' in row.data else 'absent'}, not the object of a request")
    if row.data.get("url", URL) != URL:
        raise BadRow(f"url is {row.data['url']!r}; only requests to {URL} can be taken apart")
    messages, lost = read_messages(body.get("messages"), "body.messages"), list[str]()
    choices = _choices(row.data)
    if choices:
        messages.append(read_message(choices[0].get("message"), "response.body.choices[0].message"))
        lost += ["what the response says besides its first answer"]
    columns = {name: value for name, value in exact.items() if name not in _LINE}
    columns.setdefault("id", row.data.get("custom_id"))
    settings: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for name, value in exact["body"].items():
        if name not in ("messages", "tools"):
            setting = _SETTINGS.get(name)
            (further if setting is None or setting in settings else settings)[setting or name] = value
    found = {"tools": exact["body"].get("tools"), "generation": settings, "parameters": further}
    for name, value in found.items():
        if value:
            lost += [f"the column {name}, whose name holds a part of the request"] if name in columns else []
            columns[name] = value
    return Whole(tuple(messages), columns, tuple(lost))


def together(whole: Whole) -> tuple[dict[str, Any], Sequence[str]]:
    """A request; an id that is no text, or has another name, stays beside the request's."""
    columns = dict(whole.columns)
    if columns.get("id", whole.id) == whole.id:
        columns.pop("id", None)
    tools, settings, further = (columns.pop(name, None) for name in ("tools", "generation", "parameters"))
    names = {setting: name for name, setting in reversed(list(_SETTINGS.items()))} | {"logit_bias": "logit_bias"}
    lost = []
    body: dict[str, Any] = dict(further) if isinstance(further, Mapping) else {}
    body["messages"] = [_api_entry(message) for message in whole.messages]
    offered = read_tools(tools, "tools")
    if offered:
        body["tools"] = [dict(tool) for tool in offered]
    for setting, value in (settings if isinstance(settings, Mapping) else {}).items():
        if setting in names:
            body[names[setting]] = value
        elif value is not None:
            lost.append(f"generation.{setting}, which the API does not have")
    line = {"custom_id": whole.id, "method": "POST", "url": URL, "body": body}
    row, clashes = with_turns(columns, line)
    return row, [*lost, *clashes]


def _api_entry(message: Message) -> dict[str, Any]:
    """A turn as the API has it, with arguments as text."""
    entry = whole_entry(message)
    if message.tool_calls:
        entry["tool_calls"] = with_argument_text(entry["tool_calls"])
    return entry


def _choices(data: Row) -> Sequence[Mapping[str, Any]]:
    response = data.get("response")
    body = response.get("body") if isinstance(response, Mapping) else None
    found = body.get("choices") if isinstance(body, Mapping) else None
    return found if isinstance(found, list) and all(isinstance(choice, Mapping) for choice in found) else ()


_LINE = ("custom_id", "method", "url", "body", "response", "error")


def join(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One line for one request: the choices of its samples, the prompt's tokens counted once. `batchchat.turns` has one
    entry for each choice."""
    first = lines[0]
    if len(lines) == 1:
        return first
    bodies = [line["response"]["body"] for line in lines]
    body = {**bodies[0], "choices": [choice for one in bodies for choice in one["choices"]]}
    if "usage" in body:
        completion = sum(one["usage"]["completion_tokens"] for one in bodies)
        body["usage"] = {**body["usage"], **_usage(body["usage"]["prompt_tokens"], completion)}
        reasoning = [one["usage"].get("completion_tokens_details", {}).get("reasoning_tokens") for one in bodies]
        if any(reasoning):
            body["usage"]["completion_tokens_details"] = {"reasoning_tokens": sum(count or 0 for count in reasoning)}
    turns = [turn for line in lines for turn in line["batchchat"]["turns"]]
    return {
        **first,
        "response": {**first["response"], "body": body},
        "batchchat": {**first["batchchat"], "turns": turns},
    }


def _usage(prompt: int, completion: int, cached: int | None = None, reasoning: int | None = None) -> dict[str, Any]:
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    usage["total_tokens"] = prompt + completion
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def _logprobs(steps: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Log-probabilities as the API writes them."""
    if steps is None:
        return None

    def token(step: Mapping[str, Any]) -> dict[str, Any]:
        text = step["token"]
        whole = "\N{REPLACEMENT CHARACTER}" not in text  # else the token is a part of a character
        logprob = _LEAST if step["logprob"] is None else step["logprob"]
        spelled = step.get("bytes", list(text.encode()) if whole else None)
        return {"token": text, "logprob": logprob, "bytes": spelled}

    content = [{**token(step), "top_logprobs": [token(other) for other in step.get("top", ())]} for step in steps]
    return {"content": content, "refusal": None}


def _read_offered(body: Row) -> tuple[Mapping[str, Any], ...] | None:
    """The tools that the request offers, those of the older `functions` as well."""
    if body.get("tool_choice") == "none" or body.get("function_call") == "none":
        return None
    tools = read_tools(body.get("tools"), "body.tools") or ()
    return (*tools, *(read_tools(body.get("functions"), "body.functions") or ())) or None


def _read_parameters(body: Row, server: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body's parameters as settings of the recipe's `generation` section, and those that only a `server` can
    follow. Null is as good as absent."""
    settings: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in _IGNORED or name in _READ_APART:
            continue
        if server and name == "ignore_eos":
            further[name] = value
        elif name in _SETTINGS:
            setting = _SETTINGS[name]
            if setting in settings and settings[setting] != value:
                raise BadRow("body has max_tokens and max_completion_tokens, which differ: keep one")
            settings[setting] = value
        elif name == "logit_bias":
            settings[name] = _read_bias(value)
        elif name == "response_format" and (structured := _read_format(value)) is not None:
            settings["structured"] = structured
            if server:  # which may know more of it: its name, say
                further[name] = value
        elif value in _NEUTRAL.get(name, ()):
            continue
        elif server:
            further[name] = value
        else:
            only = f"; only {_NEUTRAL[name][0]!r} is" if name in _NEUTRAL else ""
            raise BadRow(f"body.{name} = {value!r} changes the answer and is not supported{only}: remove it")
    if settings.get("top_p") == 0:  # of the likeliest tokens no more than the first: what greedy decoding takes
        del settings["top_p"]
        settings["temperature"] = 0
    if body.get("logprobs"):
        settings["logprobs"] = body.get("top_logprobs") or 0
    elif body.get("top_logprobs"):
        raise BadRow("body.top_logprobs needs logprobs: true")
    return settings, further


def _read_format(value: Any) -> dict[str, Any] | None:
    """A response format as `generation.structured` has it; None for any other than JSON."""
    if not isinstance(value, Mapping):
        return None
    if value.get("type") == "json_object":
        return {"json": True}
    described = value.get("json_schema")
    if value.get("type") != "json_schema" or not isinstance(described, Mapping):
        return None
    return {"json_schema": described.get("schema", {})}


def _read_bias(value: Any) -> dict[int, Any]:
    """Token id -> bias; JSON only has string keys."""
    try:
        return {int(token): bias for token, bias in value.items()}
    except (AttributeError, ValueError):
        raise BadRow("body.logit_bias is not an object from token ids to numbers") from None


OPENAI = Format("openai", matches, read, write, join, apart=apart, together=together)
