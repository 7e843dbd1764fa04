"""Shapes of models that were loaded before: to find one out, the model is built a second time and passed through."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import TypeAdapter, ValidationError

from batchchat.cache import changing_cache, read_cache
from batchchat.models.shape import ModelShape, empty_like, shape_of

_FILE = "shapes.json"
_MOST = 100
"""Shapes that are kept, the newest ones."""
_SHAPE: TypeAdapter[ModelShape] = TypeAdapter(ModelShape)


def shape_like(model: Any) -> ModelShape:
    """The shape of a loaded model. Raises anything that a model may raise for numbers that are not there."""
    key = _key(model)
    try:
        return _SHAPE.validate_python(read_cache(_FILE)[key])
    except (KeyError, ValidationError):
        shape = shape_of(empty_like(model))
    if key and not shape.missing:
        with changing_cache(_FILE) as kept:
            kept[key] = _SHAPE.dump_python(shape, mode="json")
            for old in list(kept)[:-_MOST]:
                del kept[old]
    return shape


def _key(model: Any) -> str:
    """What a shape depends on; empty for a model whose code may change, which is not transformers' own."""
    kind = type(model)
    if not kind.__module__.startswith("transformers."):
        return ""
    what = f"1 {kind.__module__}.{kind.__qualname__}\n{model.config.to_json_string(use_diff=False)}"
    return hashlib.sha256(what.encode("utf-8")).hexdigest()
