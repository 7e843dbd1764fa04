"""Which samples are wanted, said as a small expression: `numeric < 0.5 and finish_reason != "length"`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from batchchat.errors import UsageError
from batchchat.results.sample import Sample
from batchchat.scoring.base import column
from batchchat.scoring.scorers.language import language_detector

Wanted = Callable[[Sample], bool]

FIGURES: Mapping[str, Callable[[Sample], Any]] = {
    "id": lambda sample: sample.id,
    "index": lambda sample: sample.answered.index,
    "sample": lambda sample: sample.answered.sample,
    "state": lambda sample: sample.state,
    "finish_reason": lambda sample: sample.finish_reason,
    "question": lambda sample: sample.question,
    "answer": lambda sample: sample.answer,
    "characters": lambda sample: len(sample.answer),
    "completion_tokens": lambda sample: sample.tokens("completion_tokens"),
    "prompt_tokens": lambda sample: sample.tokens("prompt_tokens"),
    "turns": lambda sample: len(sample.answered.answers),
    "tool_calls": lambda sample: sample.num_tool_calls,
    "reason": lambda sample: sample.reason,
}
"""What every sample has, by the name that an expression uses."""

FUNCTIONS: Mapping[str, Callable[[], Callable[[str], Any]]] = {
    "words": lambda: lambda text: len(text.split()),
    "language": lambda: language_detector("language(…) in a condition"),
}
"""What an expression may ask of a text."""

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, several: value in several,
    ast.NotIn: lambda value, several: value not in several,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_LONGEST = 2000


def parse_where(text: str, metrics: tuple[str, ...] = (), setting: str = "--where") -> Wanted:
    """What an expression says of a sample. Comparisons, `in`, `and`, `or`, `not` and brackets; names are figures,
    metrics and columns, those with other characters as `score["my-metric"]` and `column["a b"]`;
    `matches(answer, "regular expression")` searches, `words(answer)` counts, and `language(answer)` is the two-letter
    code of the most likely one. A comparison with what a sample does not have is false.

    Raises UsageError for what is no such expression, with the `setting` in which it stands, and EnvironmentFault where
    the library that tells languages is missing.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval") if len(text) <= _LONGEST else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None:
        raise _mistake(text, "it cannot be read", setting)
    value = _Reader(text, metrics, setting).value(tree.body)
    return lambda sample: bool(value(sample))


Value = Callable[[Sample], Any]


class _Reader:
    """Turns the parts of an expression into functions of a sample. Nothing of it is run as Python."""

    def __init__(self, text: str, metrics: tuple[str, ...], setting: str):
        self._text = text
        self._metrics = metrics
        self._setting = setting

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=constant) if isinstance(constant, str | int | float | bool | None):
                return lambda sample: constant
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=number)) if isinstance(number, int | float):
                return lambda sample: -number
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.value(operand)
                return lambda sample: not inner(sample)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                several = [self.value(part) for part in parts]
                return lambda sample: [part(sample) for part in several]
            case ast.BoolOp(op=op, values=parts):
                joined = all if isinstance(op, ast.And) else any
                several = [self.value(part) for part in parts]
                return lambda sample: joined(part(sample) for part in several)
            case ast.Compare():
                return self._compared(node)
            case ast.Name(id=name):
                return self._named(name)
            case ast.Attribute() | ast.Subscript():
                return self._placed(node)
            case ast.Call(func=ast.Name(id="matches"), args=[what, ast.Constant(value=str(pattern))], keywords=[]):
                return self._matching(what, pattern)
            case ast.Call(func=ast.Name(id=name), args=[what], keywords=[]) if name in FUNCTIONS:
                return self._told(what, FUNCTIONS[name]())
        raise self._mistake(f"`{ast.unparse(node)}` is not understood")

    def _compared(self, node: ast.Compare) -> Value:
        sides = [self.value(side) for side in (node.left, *node.comparators)]
        compares = [_COMPARE[type(op)] for op in node.ops]

        def holds(sample: Sample) -> bool:
            values = [side(sample) for side in sides]
            try:
                return all(
                    compare(one, other) for compare, one, other in zip(compares, values, values[1:], strict=False)
                )
            except TypeError:  # what is missing, or of another kind, is neither more nor less
                return False

        return holds

    def _named(self, name: str) -> Value:
        if name in FIGURES:
            return FIGURES[name]
        if name.lower() in _CONSTANTS:
            return lambda sample: _CONSTANTS[name.lower()]
        if name in self._metrics:
            return lambda sample: sample.means.get(name)
        return lambda sample: column(sample.answered.columns, name)

    def _placed(self, node: ast.expr) -> Value:
        match node:
            case ast.Subscript(value=ast.Name(id="score"), slice=ast.Constant(value=str(name))):
                return lambda sample: sample.means.get(name)
            case ast.Subscript(value=ast.Name(id="column"), slice=ast.Constant(value=str(name))):
                return lambda sample: column(sample.answered.columns, name)
        dotted = ast.unparse(node)
        if not re.fullmatch(r"\w+(\.\w+)+", dotted):
            raise self._mistake(f"`{dotted}` is not understood")
        return lambda sample: column(sample.answered.columns, dotted)

    def _matching(self, what: ast.expr, pattern: str) -> Value:
        try:
            found = re.compile(pattern)
        except re.error as error:
            raise self._mistake(f"the regular expression {pattern!r} is wrong ({error})") from error
        inner = self.value(what)
        return lambda sample: isinstance(text := inner(sample), str) and found.search(text) is not None

    def _told(self, what: ast.expr, tell: Callable[[str], Any]) -> Value:
        inner = self.value(what)
        return lambda sample: tell(text) if isinstance(text := inner(sample), str) else None

    def _mistake(self, why: str) -> UsageError:
        return _mistake(self._text, why, self._setting)


def names_in(text: str) -> set[str]:
    """The plain names that an expression uses."""
    return {node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)}


def refuse_unknown(text: str, known: set[str], setting: str = "--where") -> None:
    """Raises UsageError for a name that is no figure, metric or column of the run."""
    builtin = {"score", "column", "matches", *FUNCTIONS, *_CONSTANTS, *(name.title() for name in _CONSTANTS)}
    for name in sorted(names_in(text) - known - builtin - FIGURES.keys()):
        near = get_close_matches(name, [*known, *FIGURES], n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted({*known, *FIGURES}))}"
        raise UsageError(f"{setting} {text!r} names `{name}`, which is no figure, metric or column of this run; {hint}")


def _mistake(text: str, why: str, setting: str) -> UsageError:
    return UsageError(
        f"{setting} {text!r} is no condition: {why}; write one such as 'numeric < 0.5 and finish_reason != \"length\"'"
    )
