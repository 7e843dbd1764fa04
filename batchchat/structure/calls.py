"""Strict tools: answers that are free but for their tool calls, whose arguments are what their schemas allow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, NamedTuple

from batchchat.chats import CallSyntax, Structure

_NOTHING: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""What a tool takes that names no parameters."""
_ANYTHING: Mapping[str, Any] = {"type": "object"}

Schemas = Mapping[str, Any]
"""By the names of tools, the JSON schemas of their arguments."""


class CallsForm(NamedTuple):
    """What a structure of the kind `calls` says."""

    syntax: CallSyntax
    schemas: Schemas


def strict_schemas(tools: Sequence[Mapping[str, Any]] | None, every: bool) -> Schemas | None:
    """What the tools take: those that are strict what their schemas say, the others any object. With `every`, all are
    strict; None where none is. `tools` have the shape of OpenAI's API."""
    functions = [tool["function"] for tool in tools or ()]
    strict = {one["name"]: every or one.get("strict") is True for one in functions}
    if not any(strict.values()):
        return None
    return {one["name"]: _arguments(one) if strict[one["name"]] else _ANYTHING for one in functions}


def calls_structure(syntax: CallSyntax, schemas: Schemas) -> Structure:
    """The form of answers that call these tools as the syntax has it."""
    return Structure("calls", json.dumps({"syntax": asdict(syntax), "schemas": schemas}, ensure_ascii=False))


@lru_cache(maxsize=256)
def read_calls(structure: Structure) -> CallsForm:
    """The inverse of `calls_structure`."""
    said = json.loads(structure.text)
    syntax = CallSyntax(**{**said["syntax"], "closes": tuple(said["syntax"]["closes"])})
    return CallsForm(syntax, said["schemas"])


def by_tool(structure: Structure) -> Iterator[tuple[str, Structure]]:
    """The names of the tools of a structure of the kind `calls`, and the form of each one's arguments."""
    for name, schema in read_calls(structure).schemas.items():
        yield name, replace(structure, kind="json_schema", text=json.dumps(schema, ensure_ascii=False))


def head(syntax: CallSyntax, name: str) -> str:
    """A tool's name as it stands in a call, and what is between it and the arguments."""
    quoted = syntax.before.endswith('"') and syntax.between.startswith('"')
    return (json.dumps(name, ensure_ascii=False)[1:-1] if quoted else name) + syntax.between


def _arguments(function: Mapping[str, Any]) -> Any:
    parameters = function.get("parameters")
    if not parameters:
        return _NOTHING
    if isinstance(parameters, Mapping) and "type" not in parameters:
        return {**parameters, "type": "object"}
    return parameters
