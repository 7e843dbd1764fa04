"""Why an answer cannot be kept in a form, said before any model is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from batchchat.chats import Structure
from batchchat.errors import BadRow
from batchchat.scoring.extras import need
from batchchat.structure.backends import BACKENDS, byte_matchers
from batchchat.structure.calls import by_tool
from batchchat.structure.grammars import endless_rule
from batchchat.structure.schemas import endless

_MOST_BYTES = 1_000_000
"""Of a form: one of this size takes under a second to read."""
_LONGEST_TEXT = 10_000
"""Characters of one text in a form: where a text is the only way to go on, all of it is looked at for every token."""
_LONGEST_PATTERN = 100_000
_MOST_REPEATS = 20_000
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


@lru_cache(maxsize=1024)
def refusal(structure: Structure) -> str | None:
    """In one sentence, without its beginning and end; None for a form that every answer can be kept in. Raises
    EnvironmentFault without the libraries that it takes."""
    if structure.kind == "calls":
        return _of_some_tool(structure, refusal) or _not_kept(structure)
    return _too_large(structure) or _malformed(structure) or _not_kept(structure) or _matches_nothing(structure)


def _not_kept(structure: Structure) -> str | None:
    return BACKENDS[structure.backend].not_kept(structure)


def malformed(structure: Structure) -> str | None:
    """What is wrong with a form whoever keeps answers in it."""
    if structure.kind == "calls":
        return _of_some_tool(structure, malformed)
    return _too_large(structure) or _malformed(structure)


def _of_some_tool(structure: Structure, wrong: Callable[[Structure], str | None]) -> str | None:
    """What is wrong with the first tool with which something is."""
    for name, arguments in by_tool(structure):
        if (reason := wrong(arguments)) is not None:
            return f"of the tool {name}, {reason}"
        if json.loads(arguments.text).get("type") != "object":
            return f"of the tool {name}, its json_schema is not one of an object, which arguments are"
    return None


def _too_large(structure: Structure) -> str | None:
    if (size := len(structure.text.encode("utf-8", "surrogatepass"))) > _MOST_BYTES:
        return f"its {structure.kind} has {size:,} bytes, more than the {_MOST_BYTES:,} that are allowed"
    longest = _LONGEST_PATTERN if structure.kind in ("regex", "grammar") else _LONGEST_TEXT
    for text in _texts(structure):
        if len(text) > longest:
            return (
                f"its {structure.kind} holds a text of {len(text):,} characters, more than the {longest:,} that are "
                "allowed"
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            return f"its {structure.kind} holds half a surrogate pair, which is no character"
    for pattern in _patterns(structure):
        if (times := _repeats(pattern)) > _MOST_REPEATS:
            return f"its pattern {_short(pattern)} repeats a part {times:,} times, more than {_MOST_REPEATS:,}"
    return None


def _malformed(structure: Structure) -> str | None:
    if structure.kind == "grammar" and (rule := endless_rule(structure.text)) is not None:
        return f"its grammar has the rule {rule}, which never ends: whatever way it takes, it needs itself again"
    if structure.kind != "json_schema":
        return None
    library = need("jsonschema", "generation.structured", "structured")
    schema = json.loads(structure.text)
    kind = library.validators.validator_for(schema, default=library.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except library.SchemaError as error:
        place = "/".join(["#", *(str(part) for part in error.absolute_path)])
        return f"its json_schema is none at {place}: {error.message[:200]}"
    except RecursionError:
        return "its json_schema is nested too deeply"
    stuck = endless(schema)
    if stuck is not None:
        return f"its json_schema asks at {stuck} for a value that holds another one like it without end"
    return None


def _matches_nothing(structure: Structure) -> str | None:
    matchers = byte_matchers(structure.backend)
    try:
        matcher = matchers.matcher(structure)
    except BadRow as error:
        return str(error)
    some = matchers.allowed([matcher]).any()
    if matcher.failure is not None or not (some or matcher.may_end):
        return f"its {structure.kind} matches no text at all"
    return None


def _texts(structure: Structure) -> Iterator[str]:
    """The texts in a form that may have to be written as they stand."""
    if structure.kind in ("json_schema", "choice"):
        yield from _leaves(json.loads(structure.text))
    else:
        yield structure.text


def _leaves(value: Any) -> Iterator[str]:
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value


def _patterns(structure: Structure) -> Iterator[str]:
    """Regular expressions, and whatever may hold some."""
    if structure.kind in ("regex", "grammar"):
        yield structure.text
    elif structure.kind == "json_schema":
        left = [json.loads(structure.text)]
        while left:
            node = left.pop()
            if isinstance(node, Mapping):
                patterns, further = node.get("patternProperties"), node.get("pattern")
                yield from patterns if isinstance(patterns, Mapping) else ()
                yield from (further,) if isinstance(further, str) else ()
                left += node.values()
            elif isinstance(node, list):
                left += node


def _repeats(pattern: str) -> int:
    """How often a part may be repeated, where all repetitions are within one another: at least as often as it is."""
    times = 1
    for found in _REPEAT.finditer(pattern):
        times *= max(1, int(found[2] or found[1]))
    return times


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
