r"""Reading numbers as people and models write them: 1,234.5  $18  -3/4  1 1/2  50%  1.2e3  2^{10}  1'000  \boxed{7}."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import regex

from batchchat.scoring.formulas import PART, plain_formulas

_BRACES = regex.compile(r"\\f?boxed\s*\{|\\fbox\s*\{|(?<!\\)[{}]")
_CURRENCY = r"[$€£¥₹]"
_GROUP_SPACE = "\u00a0\u202f\u2009"
_MAX_DIGITS = 400
"""Digits and powers of ten beyond the range of a double are no number that anybody meant; `1e999999999` would cost
gigabytes as an exact fraction."""


@dataclass(frozen=True)
class NumberFormat:
    """How digits are grouped and what a percent sign means."""

    decimal_mark: Literal[".", ","] = "."
    percent: Literal["ignore", "fraction"] = "ignore"

    def all_in(self, text: str) -> Iterator[Fraction]:
        """Every number of `text` in order, as exact fractions.

        A minus counts where it touches the number or its currency and nothing stands before it: `10-5` is two
        positive numbers and `- 5` a list item. Thousands may be grouped in threes by the mark that is not the decimal
        one, a narrow or no-break space, an apostrophe or an underscore, in the Indian way (`1,23,456`), or more than
        once by the decimal mark itself (`1.234.567`). A power (`10^6`) is one number. Digits that belong to a word
        (`x2`, `GPT-4`), dates (`3/4/2024`), exponents of anything else and factors of a root or of pi are no numbers;
        a unit may follow at once (`18kg`).
        """
        for found in _pattern(self.decimal_mark).finditer(plain_formulas(text)):
            value = self._value(found)
            if value is not None:
                yield value

    def _value(self, found: regex.Match[str]) -> Fraction | None:
        if len(found[0]) > _MAX_DIGITS:
            return None
        value = self._decimal(found["number"])
        if found["power"] is not None:
            power = int(found["power"])
            if abs(power) * len(found["number"]) > _MAX_DIGITS or (power < 0 and value == 0):
                return None
            value **= power
        elif found["numerator"] is not None:
            denominator = int(found["denominator"])
            if denominator == 0:
                return None
            value += Fraction(int(found["numerator"]), denominator)
        elif found["under"] is not None:
            under = self._decimal(found["under"])
            if under == 0:
                return None
            value /= under
        if found["exponent"] is not None:
            exponent = int(found["exponent"])
            if abs(exponent) > _MAX_DIGITS:
                return None
            value *= Fraction(10) ** exponent
        if found["percent"] is not None and self.percent == "fraction":
            value /= 100
        return -value if "-" in found["sign"] else value

    def _decimal(self, digits: str) -> Fraction:
        other = "," if self.decimal_mark == "." else "."
        # Groups marked by the decimal mark, twice or more: the other mark begins the decimals.
        mark = other if digits.count(self.decimal_mark) > 1 else self.decimal_mark
        whole, _, decimals = digits.partition(mark)
        plain = "".join(character for character in whole if character.isdecimal())
        return Fraction(int((plain + decimals) or "0"), 10 ** len(decimals))


def last_number(text: str, numbers: NumberFormat) -> Fraction | None:
    """The last number of `text`, or None. A number stands on one line, so lines are read from the end."""
    for line in reversed(text.split("\n")):
        values = list(numbers.all_in(line))
        if values:
            return values[-1]
    return None


def only_number(text: str, numbers: NumberFormat) -> Fraction | None:
    """The number that a whole answer states, as the content of a box: the one behind its last equals sign, or None
    where there are several different ones, as in `3, 5`."""
    values = set(numbers.all_in(text.rpartition("=")[2]))
    return values.pop() if len(values) == 1 else None


def boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{…}` or `\fbox{…}` holds, its braces balanced; None where there is none."""
    last = (-1, -1)
    opened: list[tuple[int, bool]] = []  # where the content of each open brace begins, and whether a box opened it
    for brace in _BRACES.finditer(text):
        if brace[0] != "}":
            opened.append((brace.end(), brace[0] != "{"))
        elif opened:
            start, is_box = opened.pop()
            if is_box and start > last[0]:
                last = (start, brace.start())
    return text[last[0] : last[1]] if last[0] >= 0 else None


def show(value: Fraction) -> str:
    """A number for a person: decimal where that is exact and short, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    digits = repr(float(value)) if abs(value) < 10**15 else ""
    return digits if digits and Fraction(digits) == value else f"{value.numerator}/{value.denominator}"


@lru_cache(maxsize=2)
def _pattern(decimal_mark: str) -> regex.Pattern[str]:
    point, group = (r"\.", ",") if decimal_mark == "." else (",", r"\.")
    separator = f"[{group}{_GROUP_SPACE}_'’]"
    indian = rf"\d{{1,2}}(?:{group}\d{{2}})+{group}\d{{3}}(?![\d_])"
    foreign = rf"\d{{1,3}}(?:{point}\d{{3}}){{2,}}(?!\d|{point}\d)(?:{group}\d+)?"
    digits = rf"(?:{indian}|\d{{1,3}}(?:{separator}\d{{3}})+(?![\d_])|\d+)"
    number = rf"(?:{foreign}|{digits}(?:{point}\d+)?|{point}\d+)"
    return regex.compile(
        rf"\d+/\d+(?:/\d+)+(*SKIP)(*FAIL)|"  # a date
        rf"(?<![\w{decimal_mark}{PART}]|\p{{L}}-)(?P<sign>(?:(?<!\w)-)?(?:{_CURRENCY}[ ]?)?(?:(?<!\w)-)?)"
        rf"(?P<number>{number})(?!{PART})"
        rf"(?:\^(?P<power>[+-]?\d+)|[ ](?P<numerator>\d+)/(?P<denominator>\d+)(?![\d/])"
        rf"|[ ]?/[ ]?(?P<under>{number})(?![\d/]))?"
        rf"(?:[eE](?P<exponent>[+-]?\d+))?[ ]?(?P<percent>%)?"
    )
