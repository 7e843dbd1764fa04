"""The base of every section of a recipe, and the field types that several sections share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the recipe: strict (`"5"` is not a number), frozen, and closed to unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        """A section whose lines are all commented out is null to YAML; it says nothing, so it sets nothing."""
        return {} if data is None else data


def _as_tuple(value: Any) -> Any:
    """YAML has lists only; a frozen recipe holds tuples."""
    return tuple(value) if isinstance(value, list) else value


def as_texts(value: Any) -> Any:
    """One text stands for a list of it."""
    return (value,) if isinstance(value, str) else _as_tuple(value)


def _whole_number_keys(value: Any) -> Any:
    """JSON, and so a recipe written as JSON, has text keys only: `{"15": 2.0}` means 15."""
    if not isinstance(value, Mapping):
        return value
    keys = [int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key for key in value]
    if len(set(keys)) < len(keys):
        raise ValueError("has the same number as a name twice, once as text; keep one")
    return dict(zip(keys, value.values(), strict=True))


Text = Annotated[str, Field(min_length=1)]
"""Text that says something: the empty text is a mistake wherever this is used."""

Texts = Annotated[tuple[Text, ...], BeforeValidator(as_texts, json_schema_input_type=Text | list[Text])]
"""A list of texts, or one text alone."""

TokenId = Annotated[int, Field(ge=0)]

TokenIds = Annotated[tuple[TokenId, ...], BeforeValidator(_as_tuple, json_schema_input_type=list[TokenId])]

NumberedKeys = BeforeValidator(_whole_number_keys)
"""Lets text keys in where whole numbers are meant."""

TokenBias = Annotated[Mapping[TokenId, float], NumberedKeys]
"""Token id -> number that is added to its logit."""

AsTuple = BeforeValidator(_as_tuple)
"""Lets a YAML list in where a tuple is kept."""

MAY_CHANGE: dict[str, Any] = {"x-may-change-on-resume": True}
"""Mark (`json_schema_extra`) of a setting that changes neither the answers nor the set of chats, so that a run
may be resumed with another value of it."""
