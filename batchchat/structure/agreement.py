"""Whether an answer has its form, found from its text alone: whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from batchchat.chats import Structure
from batchchat.scoring.json_patterns import schema_check
from batchchat.structure.backends import byte_matchers
from batchchat.structure.calls import Schemas

_SECONDS = 2.0
"""For the patterns of a schema on one answer."""


class Agreement(NamedTuple):
    """What was found. `reason` is None for `valid`."""

    state: Literal["valid", "cut off", "invalid"]
    reason: str | None = None


def agreement(structure: Structure, text: str, *, cut: bool) -> Agreement:
    """`cut`: the answer ended at its limit of tokens. Raises EnvironmentFault without the library that checks."""
    mistake = _mistake(structure, text)
    if mistake is None:
        return Agreement("valid")
    if cut:
        return Agreement("cut off", f"the answer was cut off by max_new_tokens before its form was whole ({mistake})")
    return Agreement("invalid", f"the answer does not have the form that was asked for: {mistake}")


def calls_agreement(schemas: Schemas, calls: Sequence[Mapping[str, Any]]) -> Agreement:
    """Whether calls take what these tools do. Raises EnvironmentFault without the library that checks."""
    for call in calls:
        name, arguments = call["function"]["name"], call["function"].get("arguments")
        if name not in schemas:
            return Agreement("invalid", f"the answer calls {name}, which is none of its tools")
        mistake = _schema_mistake(json.dumps(schemas[name]), arguments)
        if mistake is not None:
            return Agreement("invalid", f"the arguments of {name} are not those that its schema asks for: {mistake}")
    return Agreement("valid")


def _mistake(structure: Structure, text: str) -> str | None:
    match structure.kind:
        case "json_schema" | "json":
            return _json_mistake(structure, text)
        case "choice":
            return None if text in json.loads(structure.text) else "it is none of the choices"
        case "calls":
            return None  # the text is free, and calls are looked at by themselves
        case "regex" | "grammar":
            matcher = byte_matchers(structure.backend).matcher(structure)
            if matcher.take(text.encode("utf-8", "surrogatepass")) and matcher.may_end:
                return None
            return f"the {structure.kind} does not match it"


def _json_mistake(structure: Structure, text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"it is not JSON: {error}"
    except RecursionError:
        return "its JSON is nested too deeply"
    if structure.kind == "json":
        return None if isinstance(value, dict) else "it is not a JSON object"
    return _schema_mistake(structure.text, value)


def _schema_mistake(schema: str, value: Any) -> str | None:
    try:
        mistake = next(iter(_check(schema)(value)), None)
    except Exception as error:  # the schema may refer to what is not there, and its patterns take too long
        return (
            f"it could not be checked against the schema ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        )
    return None if mistake is None else f"{mistake.json_path}: {mistake.message[:200]}"


@lru_cache(maxsize=256)
def _check(schema: str) -> Callable[[Any], Any]:
    return schema_check(json.loads(schema), _SECONDS, "generation.structured", "structured", ecmascript=True)
