"""`json`: the answer is JSON, matches a JSON schema, or holds the reference's values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import regex
from pydantic import Field, field_validator

from batchchat.scoring.base import Answer, BadReference, Score, ScoreFunction, ScorerOptions, Texts, column, is_missing
from batchchat.scoring.extras import need
from batchchat.scoring.fences import json_block
from batchchat.scoring.json_patterns import schema_check

NEEDS_REFERENCE = False

_OPENING = regex.compile(r"[{\[]")


class Options(ScorerOptions):
    """Options of `json`. Every check that is asked for must pass."""

    json_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema (draft 2020-12 unless `$schema` says otherwise) that must hold."
    )
    fields: Texts = Field(
        default=(),
        description="Fields that must equal the reference's, with dots for nested ones.",
        examples=[["name"]],
    )
    equal: bool = Field(default=False, description="The whole value must equal the reference's.")
    extract: Literal["whole", "fenced", "any"] = Field(
        default="fenced",
        description="Where the JSON stands: it is the `whole` answer; or the last code block where there is one "
        "(`fenced`); or else also the first object or array inside other text (`any`).",
    )
    seconds: float = Field(
        default=1.0,
        gt=0,
        description="Time limit of a schema's patterns per row; an answer that exceeds it is an error of that row.",
    )

    @field_validator("json_schema")
    @classmethod
    def _valid_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is None:
            return None
        library = need("jsonschema", "the scorer 'json' with json_schema")
        try:
            library.validators.validator_for(schema, default=library.Draft202012Validator).check_schema(schema)
        except library.SchemaError as error:
            place = ".".join(str(part) for part in error.absolute_path)
            raise ValueError(f"is not a JSON schema: {error.message}{f' at {place}' if place else ''}") from error
        return schema


def details(options: Options) -> tuple[str, ...]:
    """The names that the details of its scores have."""
    valid = () if options.json_schema is None else ("valid",)
    equal = ("equal",) if options.equal else ()
    return ("parses", *valid, *equal, *(f"field_{name}" for name in options.fields))


def make(options: Options) -> ScoreFunction:
    """1 where all checks pass, else 0; the details say which did. A reference that is text is read as JSON."""
    mistakes = None if options.json_schema is None else schema_check(options.json_schema, options.seconds)
    compares = options.equal or bool(options.fields)

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        if compares and is_missing(reference):
            return Score(None, "no reference to compare the fields with", status="unscored")
        expected = read_reference(reference) if compares else None
        try:
            value = find_json(answer.text, options.extract)
        except ValueError as error:
            return Score(0.0, f"not JSON: {error}", details={"parses": 0.0})
        found = {"parses": 1.0}
        wrong: list[str] = []
        if mistakes is not None:
            mistake = next(iter(sorted(mistakes(value), key=lambda error: str(error.path))), None)
            found["valid"] = float(mistake is None)
            if mistake is not None:
                wrong.append(f"{mistake.json_path}: {mistake.message[:200]}")
        if compares:
            if options.equal:
                found["equal"] = float(same_json(value, expected))
                wrong += [] if found["equal"] else ["the value is not the reference's"]
            for name in options.fields:
                right = same_json(field(value, name), field(expected, name))
                found[f"field_{name}"] = float(right)
                wrong += [] if right else [f"the field '{name}' is not the reference's"]
        return Score(float(not wrong), "; ".join(wrong) or "every check passes", shown(value), None, found)

    return score


_ABSENT = object()


def field(value: Any, path: str) -> Any:
    """The value at a dotted path of a JSON object; a mark that equals only itself where there is none."""
    if isinstance(value, Mapping):
        found = column(value, path)
        if found is not None or path in value:
            return found
    return _ABSENT


def same_json(left: Any, right: Any) -> bool:
    """Equality of JSON values, in which true is not 1 and 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(same_json(one, other) for one, other in zip(left, right, strict=True))
    return bool(left == right)


def read_reference(reference: Any) -> Any:
    """A reference's JSON value: text is read as JSON. Raises BadReference."""
    if not isinstance(reference, str):
        return reference
    try:
        return json.loads(reference)
    except (ValueError, RecursionError) as error:
        raise BadReference(f"the reference {reference[:80]!r} is not JSON: {error}") from error


def find_json(text: str, extract: Literal["whole", "fenced", "any"]) -> Any:
    """The JSON value of an answer; ValueError where there is none. NaN and Infinity are no JSON."""
    block = None if extract == "whole" else json_block(text)
    try:
        return json.loads((text if block is None else block).strip(), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        if extract != "any":
            raise
    found = next(json_values(text), None)
    if found is None:
        raise ValueError("the text holds no JSON object or array")
    return found


def json_values(text: str) -> Iterator[Any]:
    """Every JSON object and array of a text, one after the other, none inside another."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    place = 0
    while (start := _OPENING.search(text, place)) is not None:
        try:
            value, place = decoder.raw_decode(text, start.start())
            yield value
        except (ValueError, RecursionError):
            place = start.end()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def shown(value: Any) -> str:
    """A JSON value as one short line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"
