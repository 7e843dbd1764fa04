"""`tool_call`: the answer calls the expected tools with the expected arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from batchchat.scoring.base import Answer, BadReference, Score, ScoreFunction, ScorerOptions
from batchchat.scoring.scorers.json_value import json_values, same_json, shown

DETAILS = ("names",)


def missing(reference: Any) -> bool:
    """Whether there is no reference: an empty list is one, and says that no call is expected."""
    return reference is None or (isinstance(reference, str) and not reference.strip())


class Options(ScorerOptions):
    """Options of `tool_call`."""

    arguments: Literal["equal", "contain", "ignore"] = Field(
        default="equal",
        description="Arguments must be `equal` to the reference's, `contain` them, or are not looked at (`ignore`).",
    )
    ordered: bool = Field(default=False, description="Several calls must come in the reference's order.")
    extra_calls: bool = Field(default=False, description="Further calls beside the expected ones are allowed.")
    from_text: bool = Field(
        default=False,
        description="Where the answer has no tool calls, read the calls that stand in its text as JSON: alone, in a "
        "list, in `<tool_call>` tags or one after the other.",
    )


@dataclass(frozen=True)
class Call:
    """A tool's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]


def make(options: Options) -> ScoreFunction:
    """1 where the calls are the expected ones, else 0; the detail `names` says whether the names alone agree.

    A reference is one call or a list, each `{"name", "arguments"}` or in OpenAI's shape, as values or as JSON text;
    arguments may be JSON text too. An empty list expects no call. A reference of another
    shape raises BadReference.
    """

    def arguments_match(given: Call, expected: Call) -> bool:
        if options.arguments == "ignore":
            return True
        if options.arguments == "contain":
            return all(
                key in given.arguments and same_json(given.arguments[key], value)
                for key, value in expected.arguments.items()
            )
        return same_json(given.arguments, expected.arguments)

    def agree(given: Call, expected: Call) -> bool:
        return given.name == expected.name and arguments_match(given, expected)

    def names_agree(given: list[Call], expected: list[Call]) -> bool:
        names, wanted = [call.name for call in given], [call.name for call in expected]
        if options.extra_calls:
            return all(names.count(name) >= wanted.count(name) for name in wanted)
        return names == wanted if options.ordered else sorted(names) == sorted(wanted)

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        expected = read_reference(reference)
        try:
            given = [call_of(call) for call in answer.tool_calls]
            if not given and options.from_text:
                given = calls_in(answer.text)
        except ValueError as error:
            return Score(0.0, f"the answer's tool call cannot be read: {error}", details={"names": 0.0})
        names = names_agree(given, expected)
        match = _matched(given, expected, agree, options.ordered)
        enough = match == len(expected) and (options.extra_calls or len(given) == len(expected))
        if not expected:
            what = f"{len(given)} made" if given else "none made"
            return Score(float(enough), f"no call expected, {what}", shown_calls(given), "[]", {"names": float(names)})
        reason = f"{match} of {len(expected)} expected calls made, {len(given)} calls in the answer"
        return Score(float(enough), reason, shown_calls(given), shown_calls(expected), {"names": float(names)})

    return score


def _matched(given: list[Call], expected: list[Call], agree: Any, ordered: bool) -> int:
    """How many expected calls find a call of their own among those given (the largest possible number)."""
    if ordered:
        # Longest common subsequence: what was expected, in order, whatever stands between.
        row = [0] * (len(expected) + 1)
        for call in given:
            previous = row[:]
            for place, wanted in enumerate(expected):
                row[place + 1] = previous[place] + 1 if agree(call, wanted) else max(previous[place + 1], row[place])
        return row[-1]
    owner: dict[int, int] = {}

    def place_call(wanted: int, seen: set[int]) -> bool:
        # Augmenting paths: with `contain` one call may satisfy several expectations, so the first fit is not enough.
        for index, call in enumerate(given):
            if index not in seen and agree(call, expected[wanted]):
                seen.add(index)
                if index not in owner or place_call(owner[index], seen):
                    owner[index] = wanted
                    return True
        return False

    return sum(place_call(wanted, set()) for wanted in range(len(expected)))


def shown_calls(calls: list[Call]) -> str:
    """Calls as one short line."""
    return shown([[call.name, dict(call.arguments)] for call in calls])


def read_reference(reference: Any) -> list[Call]:
    """The calls that a reference expects. Raises BadReference."""
    try:
        return calls_of(json.loads(reference) if isinstance(reference, str) else reference)
    except (ValueError, RecursionError) as error:
        raise BadReference(
            f"the reference {str(reference)[:80]!r} is no tool call and no list of them: {error}"
        ) from error


def calls_in(text: str) -> list[Call]:
    """Every call that stands in a text as JSON; values of another shape are no calls. ValueError for arguments that
    are text and no JSON."""
    found: list[Call] = []
    for value in json_values(text):
        calls = value.get("tool_calls", value) if isinstance(value, Mapping) else value
        for entry in calls if isinstance(calls, list) else [calls]:
            if is_call(entry):
                found.append(call_of(entry))
    return found


def is_call(value: Any) -> bool:
    """Whether a JSON value has the shape of a call: a name, and nothing else that a call does not have."""
    if not isinstance(value, Mapping):
        return False
    body = value.get("function", value)
    if isinstance(body, str):  # {"function": "weather", "arguments": {…}}
        return any(key in value for key in _ARGUMENTS)
    return isinstance(body, Mapping) and isinstance(body.get("name"), str) and body.keys() <= _CALL_KEYS


_ARGUMENTS = ("arguments", "parameters", "args", "input")
"""What models call the arguments of a call."""
_CALL_KEYS = frozenset({"name", "id", "type", *_ARGUMENTS})


def calls_of(value: Any) -> list[Call]:
    """One call or a list of calls; ValueError where it is neither."""
    return [call_of(entry) for entry in value] if isinstance(value, list | tuple) else [call_of(value)]


def call_of(value: Any) -> Call:
    """A call in OpenAI's shape or as bare name and arguments; ValueError where the shape is another."""
    if isinstance(value, Mapping):
        body = value.get("function", value)
        if isinstance(body, str):
            body = {**value, "name": body}
        if isinstance(body, Mapping) and isinstance(body.get("name"), str):
            arguments: Any = next((body[key] for key in _ARGUMENTS if body.get(key) is not None), {})
            if isinstance(arguments, str):
                arguments = json.loads(arguments) if arguments.strip() else {}
            if isinstance(arguments, Mapping):
                return Call(body["name"], arguments)
    raise ValueError(f"a tool call is {{'name', 'arguments'}}, not {str(value)[:80]!r}")
