"""Reading a judge's grade: the last one in double brackets counts, and one that is not a grade is a parse failure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from batchchat.scoring.grading import BRACKETS, Labels, Scale
from batchchat.scoring.reasoning import without_reasoning

Verdict = Literal["A", "B", "tie"]

_MARKS = " \t*_`'\"“”"
_GRADE = re.compile(
    r"(?:(?:final|overall|my)\s+)?(?:(?:rating|score|grade|mark)\s*(?:is|[:=])?\s*)?"
    r"(?P<number>[+-]?(?:\d+(?:[.,]\d*)?|\.\d+))\s*(?:(?:/|out\s+of|of)\s*(?P<best>\d+(?:\.\d+)?)|points?)?\.?",
    re.IGNORECASE,
)
"""What a judge writes between brackets: `8`, `8.`, `8/10`, `Rating: 8`, `8 out of 10`."""
_ASKED = re.compile(r"\b(rating|score|grade|mark)\b(?:\s*[:=]|\s+(?:from|between|of|on)\b)", re.IGNORECASE)
_WORDS: Mapping[str, Verdict] = {
    "A": "A",
    "B": "B",
    "C": "tie",
    "TIE": "tie",
    "DRAW": "tie",
    "A=B": "tie",
    "B=A": "tie",
}
_LEANING = re.compile(r"(?P<better>[AB])(?P<sign>>{1,2}|<{1,2})[AB]")
_NAMED = re.compile(r"(?:ASSISTANT|ANSWER|RESPONSE|MODEL|OPTION)\s+(?P<letter>[AB])(?:\s+(?:IS\s+BETTER|WINS))?")


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade that was read, or None with the reason why there is none."""

    value: float | None
    reason: str
    label: str | None = None


def read_grade(text: str, grades: Scale | Labels, asked: str = "") -> Grade:
    """The last grade in a judge's answer, its reasoning left aside.

    It stands in double brackets. Without one, and where the prompt `asked` for a rating or a score by that word, a
    line such as `Rating: 8/10` counts. A number off the scale is a failure and not cut to the scale; a word in
    brackets that is no grade (a judge that repeats the format, `[[rating]]`) is passed over.
    """
    text = without_reasoning(text)
    found = [mark.strip(_MARKS) for mark in BRACKETS.findall(text)]
    if isinstance(grades, Labels):
        known = {label.casefold(): label for label in grades.values}
        for mark in reversed(found):
            label = known.get(mark.rstrip(".").strip(_MARKS).casefold())
            if label is not None:
                return Grade(grades.values[label], f"graded {label}", label)
        return Grade(None, "the judge gave none of its grades in double brackets")
    for mark in (*reversed(found), *reversed(_rating_lines(text, asked))):
        number = _GRADE.fullmatch(mark)
        if number is None or (number["best"] is not None and float(number["best"]) != grades.high):
            continue
        value = float(number["number"].replace(",", "."))
        if grades.low <= value <= grades.high:
            return Grade(value, f"graded {value:g}", mark)
        return Grade(None, f"the judge graded {value:g}, off its scale of {grades.low:g} to {grades.high:g}", mark)
    return Grade(None, "the judge gave no number in double brackets")


def _rating_lines(text: str, asked: str) -> list[str]:
    """Lines that give a rating by the word that the prompt asks for it with, without the marks around."""
    words = {word.lower() for word in _ASKED.findall(asked)}
    if not words:
        return []
    line = re.compile(
        rf"^[\s*_#>-]*((?:(?:final|overall|my)\s+)?(?:{'|'.join(sorted(words))})[*_\s]*(?:is|[:=])[^\n]*)$", re.I | re.M
    )
    plain = [re.sub(r"[*_`\[\]]", "", found).strip() for found in line.findall(text)]
    return [re.sub(r"\s+", " ", found) for found in plain]


def read_verdict(text: str) -> Verdict | None:
    """The last of [[A]], [[B]] and [[C]] (a tie) in a judge's answer, also as [[A>B]], [[A>>B]], [[A=B]], [[Tie]] or
    [[Assistant A]]; None where there is none."""
    for mark in reversed(BRACKETS.findall(without_reasoning(text))):
        word = mark.strip(_MARKS).rstrip(".").strip(_MARKS).upper()
        leaning = _LEANING.fullmatch(word.replace(" ", ""))
        if leaning is not None:
            first = leaning["better"]
            return first if leaning["sign"][0] == ">" else _OTHER[first]  # type: ignore[return-value, index]
        named = _NAMED.fullmatch(word)
        verdict = _WORDS.get(named["letter"] if named else word.replace(" ", ""))
        if verdict is not None:
            return verdict
    return None


_OTHER: Mapping[Verdict, Verdict] = {"A": "B", "B": "A"}
