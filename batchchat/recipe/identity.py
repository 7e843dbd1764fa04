"""What makes two recipes the same job, and in what they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from batchchat.recipe.open_section import OpenSection
from batchchat.recipe.section import MAY_CHANGE


def identity(section: BaseModel) -> dict[str, Any]:
    """The section as plain JSON values, without the settings that a resumed run may change (`MAY_CHANGE`)."""
    return _kept(section, section.model_dump(mode="json"), option=False)


def _kept(section: BaseModel, plain: Mapping[str, Any], option: bool) -> dict[str, Any]:
    """Of the options of an entry only those that are not at their default: whether a section names an entry whose
    options it leaves alone makes no difference."""
    kept: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), field.alias or name
        if field.json_schema_extra == MAY_CHANGE:
            continue
        if option and not field.is_required() and value == field.get_default(call_default_factory=True):
            continue
        if isinstance(value, BaseModel):
            is_option = isinstance(section, OpenSection) and field.alias is not None
            inner = _kept(value, plain[key], option or is_option)
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
    if (before is _NOT_SET and after) and isinstance(after, Mapping):
        before = {}
    if (after is _NOT_SET and before) and isinstance(before, Mapping):
        after = {}
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            path = f"{name}.{key}" if name else str(key)
            yield from _differences(path, before.get(key, _NOT_SET), after.get(key, _NOT_SET))
    elif _shown(before) != _shown(after):
        yield f"{name}: {_shown(before)} -> {_shown(after)}"


_NOT_SET = object()


def _shown(value: Any) -> str:
    return "not set" if value is _NOT_SET else json.dumps(value, sort_keys=True, ensure_ascii=False)
