"""`numeric`: the number that the answer arrives at equals the reference's (as GSM8K is scored)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import regex
from pydantic import Field, field_validator

from batchchat.scoring.base import Answer, BadReference, Score, ScoreFunction, ScorerOptions, accepted
from batchchat.scoring.numbers import NumberFormat, boxed, last_number, only_number, show
from batchchat.scoring.scorers.pattern import captured_text, compiled_pattern, last_or_first

Found = Literal["pattern", "####", "\\boxed", "last number", "first number"]

_MARK = regex.compile(r"####[ \t]*([^\n]*)")
_HEADING = regex.compile(r"[^\d\n]*?\p{L}|\d+[.)]\s+\p{L}")
"""What follows `####` in a Markdown heading: letters before any number, or a section number and a title."""


class Options(ScorerOptions):
    """Options of `numeric`."""

    agrees_with: Literal["batchchat", "gsm8k", "gsm8k_flexible"] = Field(
        default="batchchat",
        alias="as",
        description="`gsm8k` takes what follows the first `#### ` and compares it as text without commas and dollar "
        "signs, as GSM8K's own grader and lm-evaluation-harness' strict-match do; `gsm8k_flexible` is that harness' "
        "flexible-extract, which takes the last number. The other options then play no part.",
    )
    extract: Literal["auto", "last", "first", "marked", "boxed"] = Field(
        default="auto",
        description="Where the number of the answer stands: after the last `####` (`marked`), in the last `\\boxed{}` "
        "(`boxed`), or it is the `last` or the `first` of the text. `auto` takes the first of marked, boxed and last "
        "that there is.",
    )
    pattern: str | None = Field(
        default=None,
        description="Regular expression whose last match holds the number, in group `answer`, group 1 or the whole "
        "match; it takes the place of `extract`.",
        examples=[r"answer is ([^\n]+)"],
    )
    decimal_mark: Literal[".", ","] = Field(
        default=".", description="Which sign begins the decimals; the other one may group thousands."
    )
    percent: Literal["ignore", "fraction"] = Field(
        default="ignore", description="Read `50%` as 50 (`ignore`) or as 0.5 (`fraction`)."
    )
    tolerance: float = Field(default=0.0, ge=0, description="Largest absolute difference that still counts as equal.")
    relative_tolerance: float = Field(
        default=0.0, ge=0, description="Largest difference as a share of the reference that still counts as equal."
    )
    seconds: float = Field(default=1.0, gt=0, description="Time limit of `pattern` per row.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else compiled_pattern(pattern)


def make(options: Options) -> ScoreFunction:
    """1 where the numbers agree exactly (as fractions, so 0.1 is 1/10) or within the tolerances, else 0.

    The reference is read by the same rules, `####` first. A reference without a number raises BadReference.
    """
    if options.agrees_with != "batchchat":
        return _as_gsm8k(flexible=options.agrees_with == "gsm8k_flexible")
    pattern = None if options.pattern is None else regex.compile(options.pattern)
    numbers = NumberFormat(options.decimal_mark, options.percent)

    def read(text: str) -> tuple[Fraction | None, Found]:
        if pattern is not None:
            found = last_or_first(pattern, text, "last", options.seconds)
            captured = None if found is None else (captured_text(found) if pattern.groups else found[0])
            return last_number(captured or "", numbers), "pattern"
        if options.extract in ("auto", "marked"):
            value = marked_number(text, numbers)
            if value is not None or options.extract == "marked":
                return value, "####"
        if options.extract in ("auto", "boxed"):
            content = boxed(text)
            if options.extract == "boxed" or (content is not None and content.strip()):
                return only_number(content or "", numbers), "\\boxed"
        if options.extract == "first":
            return next(numbers.all_in(text), None), "first number"
        return last_number(text, numbers), "last number"

    @lru_cache(maxsize=4096)
    def read_reference(text: str) -> Fraction:
        value = marked_number(text, numbers)
        content = boxed(text) if value is None else None
        if value is None:
            value = last_number(text if content is None else content, numbers)
        if value is None:
            raise BadReference(f"the reference {text[:80]!r} holds no number")
        return value

    def equal(given: Fraction, expected: Fraction) -> bool:
        if given == expected:
            return True
        allowed = max(Fraction(options.tolerance), Fraction(options.relative_tolerance) * abs(expected))
        return abs(given - expected) <= allowed

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        expected = [read_reference(text) for text in accepted(reference)]
        given, where = read(answer.text)
        if given is None:
            return Score(0.0, f"the answer holds no number ({where})", None, show(expected[0]))
        for value in expected:
            if equal(given, value):
                return Score(1.0, f"equal to the reference ({where})", show(given), show(value))
        return Score(0.0, f"another number than the reference ({where})", show(given), show(expected[0]))

    return score


def marked_number(text: str, numbers: NumberFormat) -> Fraction | None:
    """The first number after the last `####` that is an answer mark and not a Markdown heading."""
    if "####" not in text:
        return None
    for rest in reversed(_MARK.findall(text)):
        if not _HEADING.match(rest):
            value = next(numbers.all_in(rest), None)
            if value is not None:
                return value
    return None


_STRICT = regex.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = regex.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_BEFORE_MARK = regex.compile(r"(?s).*#### ")


def _as_gsm8k(flexible: bool) -> ScoreFunction:
    def stripped(text: str) -> str:
        return _BEFORE_MARK.sub("", text.replace(",", "").replace("$", "")).removesuffix(".").lower().strip()

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        references = accepted(reference)
        expected = [stripped(text) for text in references]
        if not all(_FLEXIBLE.search(text) for text in expected):
            raise BadReference(f"the reference {references[0][:80]!r} holds no number behind its `####`")
        found = list(_FLEXIBLE.finditer(answer.text)) if flexible else [_STRICT.search(answer.text)]
        if not found or found[-1] is None:
            where = "number" if flexible else "number behind `#### `"
            return Score(0.0, f"the answer holds no {where}", None, expected[0])
        given = stripped(found[-1][0])
        right = given in expected
        return Score(float(right), "the reference's number" if right else "another number", given, expected[0])

    return score
