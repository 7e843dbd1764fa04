"""OpenAI's Responses API as its chat API: requests one way, results the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchchat.chats.formats.values import kind
from batchchat.errors import BadRow

URL = "/v1/responses"

_RENAMED = {"max_output_tokens": "max_completion_tokens"}
_STORED = ("previous_response_id", "conversation", "prompt")
"""Parameters that refer to what the provider keeps."""
_OFF: Mapping[str, tuple[Any, ...]] = {
    "background": (False,),
    "truncation": ("disabled",),
    "include": ([], ["reasoning.encrypted_content"]),
}
"""Parameters that are understood only at these values."""
_TEXTS = ("input_text", "output_text", "text")
_LOGPROBS = "message.output_text.logprobs"

_NONE_CACHED = {"cached_tokens": 0, "cache_write_tokens": 0}

Body = Mapping[str, Any]


def as_chat_body(body: Body) -> dict[str, Any]:
    """The same request as the body of a chat completion. Raises BadRow for what that cannot ask."""
    out: dict[str, Any] = {"messages": list(_messages(body))}
    for name, value in body.items():
        if value is None or name in ("input", "instructions"):
            continue
        if name in _STORED:
            raise BadRow(f"body.{name} refers to what the provider keeps, which is not in the file: write its turns")
        match name:
            case "tools":
                out["tools"] = [_nested(tool) for tool in _listed(value, "body.tools")]
            case "text":
                out |= _text_format(value)
            case "reasoning":
                effort = value.get("effort") if isinstance(value, Mapping) else None
                out |= {} if effort is None else {"reasoning_effort": effort}
            case "include" if isinstance(value, list) and _LOGPROBS in value:
                out["logprobs"] = True
            case _ if name in _OFF:
                if value not in _OFF[name]:
                    raise BadRow(f"body.{name} = {value!r} is not supported: remove it")
            case _:
                out[_RENAMED.get(name, name)] = value
    if "top_logprobs" in out and "logprobs" not in out:
        raise BadRow(f"body.top_logprobs needs {_LOGPROBS!r} in body.include")
    return out


def as_response(result: Body, request: Body) -> dict[str, Any]:
    """A chat completion as the result of a request of the Responses API."""
    (choice,) = result["choices"]
    message, name = choice["message"], str(result["id"]).removeprefix("chatcmpl-")
    cut = choice["finish_reason"] == "length"
    out = {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": float(result["created"]),
        "model": result["model"],
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": request.get("instructions"),
        "metadata": request.get("metadata") or {},
        "output": list(_output(message, choice["logprobs"], name, "incomplete" if cut else "completed")),
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "temperature": request.get("temperature"),
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools") or [],
        "top_p": request.get("top_p"),
    }
    usage = result.get("usage")
    if usage is not None:
        out["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {**_NONE_CACHED, **usage.get("prompt_tokens_details", {})},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage.get("completion_tokens_details", {"reasoning_tokens": 0}),
            "total_tokens": usage["total_tokens"],
        }
    return out


def _messages(body: Body) -> Iterator[dict[str, Any]]:
    if body.get("instructions"):
        yield {"role": "system", "content": body["instructions"]}
    given = body.get("input")
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    for number, item in enumerate(_listed(given, "body.input")):
        yield _message(item, f"body.input[{number}]")


def _message(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise BadRow(f"{where} is {kind(item)}, not an item")
    match item.get("type", "message"):
        case "message":
            return {"role": item.get("role"), "content": _content(item.get("content"), where)}
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        case "function_call_output":
            return {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")}
        case other:
            raise BadRow(
                f"{where} is of type {other!r}: only messages, function calls and their outputs are understood"
            )


def _content(value: Any, where: str) -> Any:
    if not isinstance(value, list):
        return value
    for part in value:
        if not isinstance(part, Mapping) or part.get("type") not in _TEXTS:
            raise BadRow(f"{where}.content has a part that is no text: only text is understood")
    return [{"type": "text", "text": part.get("text")} for part in value]


def _nested(tool: Any) -> Any:
    """A tool as the chat API has it."""
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        raise BadRow("body.tools has a tool that is no function, and others are not understood")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _text_format(value: Any) -> dict[str, Any]:
    """What the text is to be."""
    if not isinstance(value, Mapping):
        raise BadRow(f"body.text is {kind(value)}, not an object")
    out = {} if value.get("verbosity") is None else {"verbosity": value["verbosity"]}
    wanted = value.get("format")
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        schema = {name: part for name, part in wanted.items() if name != "type"}
        return {**out, "response_format": {"type": "json_schema", "json_schema": schema}}
    return out if wanted is None else {**out, "response_format": wanted}


def _output(message: Body, logprobs: Body | None, name: str, status: str) -> Iterator[dict[str, Any]]:
    if message.get("reasoning_content"):
        summary = [{"type": "summary_text", "text": message["reasoning_content"]}]
        yield {"type": "reasoning", "id": f"rs_{name}", "summary": summary}
    calls: Sequence[Any] = message.get("tool_calls") or ()
    if message["content"] or not calls:
        text: dict[str, Any] = {"type": "output_text", "text": message["content"] or "", "annotations": []}
        if logprobs is not None:
            text["logprobs"] = [{**step, "bytes": step["bytes"] or []} for step in logprobs["content"]]
            for step in text["logprobs"]:
                step["top_logprobs"] = [{**top, "bytes": top["bytes"] or []} for top in step["top_logprobs"]]
        yield {"type": "message", "id": f"msg_{name}", "role": "assistant", "status": status, "content": [text]}
    for number, call in enumerate(calls):
        yield {
            "type": "function_call",
            "id": f"fc_{name}_{number}",
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": call["function"]["arguments"],
            "status": "completed",
        }


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRow(f"{where} is {kind(value)}, not a list")
    return value
