"""The `generation.structured` section: the form that an answer must have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from batchchat.chats import GrammarBackend, Structure
from batchchat.recipe.section import Section, Text, Texts

KINDS = ("json_schema", "regex", "choice", "grammar", "json")


class StructuredSection(Section):
    """The form that an answer must have: of each step's tokens only those are left that it allows, and the answer may
    end where it is whole. What the model reasons before is free."""

    model_config = ConfigDict(serialize_by_alias=True)  # `json` is a method of pydantic's models

    json_schema: Mapping[str, JsonValue] | None = Field(
        default=None,
        description="JSON schema of the answer. A keyword that cannot be enforced is a mistake.",
        examples=[
            {"type": "object", "properties": {"name": {"type": "string", "maxLength": 80}}, "required": ["name"]}
        ],
    )
    regex: Text | None = Field(
        default=None,
        description="Regular expression that the whole answer matches, without looking around or back.",
        examples=["[0-9]{1,3}"],
    )
    choice: Texts = Field(default=(), description="The answers to choose from.", examples=[["yes", "no"]])
    grammar: Text | None = Field(
        default=None,
        description="Grammar of the answer in Lark's notation, with a rule named start.",
        examples=['start: "(" start ")" | "x"'],
    )
    any_json: bool = Field(default=False, alias="json", description="true: any JSON object.")
    white_space: Literal["none", "capped", "free"] = Field(
        default="capped",
        description="Between the parts of JSON: none; a space, or a line break with up to 40 spaces (capped); or free, "
        "which a model may go on with until max_new_tokens. A server has its own rule.",
    )

    @model_validator(mode="after")
    def _has_one_form(self) -> StructuredSection:
        given = [kind for kind, value in self._forms().items() if value]
        if len(given) != 1:
            listed = f"{', '.join(KINDS[:-1])} and {KINDS[-1]}"
            raise ValueError(f"needs one of {listed}, and has {' and '.join(given) or 'none of them'}")
        return self

    def _forms(self) -> Mapping[str, Any]:
        return {
            "json_schema": self.json_schema is not None,
            "regex": self.regex,
            "choice": self.choice,
            "grammar": self.grammar,
            "json": self.any_json,
        }

    def as_structure(self, backend: GrammarBackend) -> Structure:
        """The same as a value."""
        return replace(self._as_structure(), backend=backend)

    def _as_structure(self) -> Structure:
        if self.json_schema is not None:
            return Structure("json_schema", json.dumps(self.json_schema, ensure_ascii=False), self.white_space)
        if self.choice:
            return Structure("choice", json.dumps(self.choice, ensure_ascii=False))
        if self.regex is not None or self.grammar is not None:
            return (
                Structure("regex", self.regex) if self.regex is not None else Structure("grammar", self.grammar or "")
            )
        return Structure("json", white_space=self.white_space)
