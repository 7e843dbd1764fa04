"""What makes two recipes the same job, and in what they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from batchchat.recipe.section import MAY_CHANGE


def identity(section: BaseModel) -> dict[str, Any]:
    """The section as plain JSON values, without the settings that a resumed run may change (`MAY_CHANGE`)."""
    plain = section.model_dump(mode="json")
    kept: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        if field.json_schema_extra is MAY_CHANGE:
            continue
        value, key = getattr(section, name), field.alias or name
        if isinstance(value, BaseModel):
            inner = identity(value)
            if inner:
                kept[key] = inner
        else:
            kept[key] = plain[key]
    return kept


def sha256_of(values: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of plain JSON values, the same on every machine."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def recipe_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Lines such as `generation.temperature: 0.7 -> 1.0`, in the recipe's order; a setting that one side does not
    have is "not set" there. Takes plain mappings: `Recipe.identity()`, or one that was read back from JSON."""
    return list(_differences("", before, after))


def _differences(name: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            path = f"{name}.{key}" if name else str(key)
            yield from _differences(path, before.get(key, _NOT_SET), after.get(key, _NOT_SET))
    elif _shown(before) != _shown(after):
        yield f"{name}: {_shown(before)} -> {_shown(after)}"


_NOT_SET = object()


def _shown(value: Any) -> str:
    return "not set" if value is _NOT_SET else json.dumps(value, sort_keys=True, ensure_ascii=False)
