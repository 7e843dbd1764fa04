"""The section `matrix`: settings with several values each, every combination a run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from batchchat.recipe.section import AsTuple, Text

Values = (
    Annotated[tuple[JsonValue, ...], AsTuple, Field(min_length=1)]
    | Annotated[Mapping[Text, JsonValue], Field(min_length=1)]
)
Matrix = Mapping[Text, Values]
"""Dotted setting -> its values, in a list, or by the names that runs get from them."""
