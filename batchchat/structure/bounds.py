"""What of a form is as long as the model likes, so that an answer may go on until its limit cuts it off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from batchchat.chats import Structure
from batchchat.structure.calls import by_tool
from batchchat.structure.schemas import parts

_CLOSED = ("enum", "const", "$ref", "format", "pattern")
"""A string with one of these has its length from elsewhere, or is short as a rule."""


def unbounded(structure: Structure) -> list[str]:
    """One phrase for each kind of value without a limit, with the first place where there is one."""
    if structure.kind == "calls":
        return [f"{what} of the tool {name}" for name, arguments in by_tool(structure) for what in unbounded(arguments)]
    if structure.kind != "json_schema":
        return []
    found = dict[str, list[str]]()
    for place, node in parts(json.loads(structure.text)):
        for what in _open_parts(node) if isinstance(node, Mapping) else ():
            found.setdefault(what, []).append(place)
    return [
        f"{what} at {places[0]}" + (f" and {len(places) - 1} more" if len(places) > 1 else "")
        for what, places in found.items()
    ]


def _open_parts(node: Mapping[str, Any]) -> Iterator[str]:
    kinds = node.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "array" in kinds and "maxItems" not in node and node.get("items", True) is not False:
        yield "an array without maxItems"
    if "string" in kinds and "maxLength" not in node and not any(name in node for name in _CLOSED):
        yield "a string without maxLength"
    if "object" in kinds and not node.get("properties") and node.get("additionalProperties", True) is not False:
        yield "an object with any number of properties"
