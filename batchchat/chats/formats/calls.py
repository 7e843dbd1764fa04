"""Tool calls and tool schemas as rows hold them, brought to OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats.formats.values import as_json, check_encodable, check_text, kind, parse_json
from batchchat.chats.types import TextArguments
from batchchat.errors import BadRow

Call = Mapping[str, Any]


def read_calls(value: Any, where: str) -> tuple[Call, ...]:
    """The calls of a turn's `tool_calls` list; null and [] are none."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRow(f"{where} is {kind(value)}, not a list of tool calls")
    return tuple(read_call(call, f"{where}[{number}]") for number, call in enumerate(value))


def read_entry_calls(entry: Mapping[str, Any], where: str) -> tuple[Call, ...]:
    """The calls that a turn has beside its text: in `tool_calls`, and in `function_call` as older APIs wrote it."""
    calls = read_calls(entry.get("tool_calls"), f"{where}.tool_calls")
    if entry.get("function_call") is not None:
        calls = (*calls, *read_call_text(entry["function_call"], f"{where}.function_call"))
    return calls


def read_call(value: Any, where: str) -> Call:
    """One call, `{"function": {"name", "arguments"}}` or `{"name", "arguments"}`; `arguments` may be JSON text."""
    if not isinstance(value, Mapping):
        raise BadRow(f"{where} is {kind(value)}, not a tool call")
    if value.get("type") not in (None, "function"):
        raise BadRow(f"{where} is of type {value['type']!r}: only function calls are understood")
    function = value.get("function") if value.get("function") is not None else value
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRow(f"{where} names no function: give it a name and arguments")
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) and arguments.strip() else None
    if text is not None:
        arguments = parse_json(text, f"the text of {where}.arguments")
    if arguments is None or (isinstance(arguments, str) and text is None):
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise BadRow(f"{where}.arguments is {kind(arguments)}, not an object")
    if text is not None:
        arguments = TextArguments(arguments, text)
    call: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if value.get("id") is not None:
        call = {"id": check_text(value["id"], f"{where}.id"), **call}
    check_encodable(call, where)
    return call


def read_call_text(text: Any, where: str) -> tuple[Call, ...]:
    """The calls of a turn whose text is JSON: one `{"name", "arguments"}` or a list of them."""
    value = parse_json(text, where) if isinstance(text, str) else text
    if not isinstance(value, list):
        return (read_call(value, where),)
    if not value:
        raise BadRow(f"{where} is an empty list: a turn that calls a tool needs a call")
    return read_calls(value, where)


def call_text(calls: Sequence[Call]) -> str:
    """The inverse of `read_call_text`: `{"name", "arguments"}` as JSON text, in a list unless it is a single one."""
    plain = [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in calls]
    return as_json(plain[0] if len(plain) == 1 else plain)


def with_argument_text(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """The calls as OpenAI's API writes them: `arguments` is JSON text."""
    return [
        {**call, "function": {**call["function"], "arguments": _argument_text(call["function"].get("arguments"))}}
        for call in calls
    ]


def _argument_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else as_json({} if arguments is None else arguments)


def read_tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...] | None:
    """Tool schemas, from a list or its JSON text; null, "" and [] are none (None).

    A bare function schema `{"name", …}` is wrapped as `{"type": "function", "function": …}`, which is what chat
    templates read.
    """
    if isinstance(value, str):
        value = parse_json(value, where) if value.strip() else None
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise BadRow(f"{where} is {kind(value)}, not a list of tools or its JSON text")
    tools = tuple(_read_tool(tool, f"{where}[{number}]") for number, tool in enumerate(value))
    check_encodable(tools, where)
    return tools


def _read_tool(value: Any, where: str) -> Mapping[str, Any]:
    tool = parse_json(value, where) if isinstance(value, str) else value
    if not isinstance(tool, Mapping):
        raise BadRow(f"{where} is {kind(tool)}, not a tool")
    function = tool.get("function")
    if isinstance(function, Mapping) and isinstance(function.get("name"), str):
        return tool
    if function is None and isinstance(tool.get("name"), str):
        return {"type": "function", "function": tool}
    raise BadRow(f"{where} is no function with a name, and other tools are not understood")
