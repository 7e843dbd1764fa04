"""`math`: the answer is the same mathematical object as the reference, decided symbolically by math-verify."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import regex
from pydantic import Field

from batchchat.scoring.base import Answer, BadReference, Score, ScoreFunction, ScorerOptions, accepted
from batchchat.scoring.extras import need


class Options(ScorerOptions):
    """Options of `math`."""

    seconds: int = Field(default=5, ge=1, description="Time limit for reading and for comparing one answer.")
    decimals: int = Field(default=6, ge=0, description="Decimals to which two inexact numbers must agree.")


def make(options: Options) -> ScoreFunction:
    """1 where the last expression of the answer (LaTeX or plain) equals the reference, else 0.

    Works on the main thread only, because math-verify's time limit is a signal; elsewhere a row raises
    RuntimeError. Needs the extra `eval`.
    """
    library = need("math_verify", "the scorer 'math'")
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it logs whole answers that take too long
    need("latex2sympy2_extended", "the scorer 'math'")

    def parse(text: str) -> Any:
        return library.parse(text, parsing_timeout=options.seconds)

    def read_answer(text: str) -> Any:
        text = text.replace("\\$", "")  # a currency; unescaped it would open a formula
        if not _DELIMITED.search(text):
            # math-verify finds LaTeX only between dollar signs or in a box, and reads a bare formula in part.
            formula = bare_formula(text)
            if formula is not None:
                found = parse(f"${formula}$")
                return found if found else []
        return parse(text) or (parse(f"${text}$") if "\\" in text or "^" in text else [])

    @lru_cache(maxsize=4096)
    def read_reference(text: str) -> Any:
        plain = text.replace("\\$", "")
        gold = (parse(f"${plain}$") if "$" not in plain and "boxed" not in plain else []) or parse(plain)
        if not gold:
            raise BadReference(f"the reference {text[:80]!r} holds no mathematical expression")
        return gold

    def same(gold: Any, given: Any) -> bool:
        return bool(
            library.verify(
                gold, given, float_rounding=options.decimals, timeout_seconds=options.seconds, raise_on_error=False
            )
        ) and not differ(gold[0], given[0], options.decimals)

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("math scores on the main thread only, for its time limit is a signal")
        references = accepted(reference)
        golds = [read_reference(expected) for expected in references]
        given = read_answer(answer.text)
        shown = str(given[0]) if given else None
        if not given:
            return Score(0.0, "the answer holds no mathematical expression", None, references[0])
        for expected, gold in zip(references, golds, strict=True):
            if same(gold, given):
                return Score(1.0, "equal to the reference", shown, expected)
        return Score(0.0, "not equal to the reference", shown, references[0])

    return score


_DELIMITED = regex.compile(r"\$|\\\(|\\\[|\\f?boxed|\\begin\{")
_TOKEN = r"(?:\\[A-Za-z]+|\\[{},;!%]|\d+(?:[.,]\d+)*|[A-Za-z](?![A-Za-z])|[-+*/^_=<>≤≥≠±×·÷(){}\[\]|!,∪∩∞π√°%])"
_FORMULA = regex.compile(rf"(?<![A-Za-z\\]){_TOKEN}(?:\s*{_TOKEN})*+")
_OPERATOR = regex.compile(r"[(\[{].*,|\\[A-Za-z]|[-+*/^_=<>±×·÷√π]|\d[A-Za-z(\\]")
_UNIT = regex.compile(r"\d[\d.,]*\s*[A-Za-z]{1,3}")


def bare_formula(text: str) -> str | None:
    """The last formula of a text without delimiters, whole: `The answer is 10\\sqrt{3}.` gives `10\\sqrt{3}`.

    None where the last one is no more than a number or a word, which need no delimiters.
    """
    last = None
    for found in _FORMULA.finditer(text):
        formula = found[0].strip().rstrip(",.!").strip()
        if any(character.isdigit() for character in formula) or "\\" in formula or "^" in formula:
            last = formula
    if last is None or not _OPERATOR.search(last) or _UNIT.fullmatch(last) or last.startswith(("- ", "* ")):
        return None
    return last


def differ(gold: Any, given: Any, decimals: int) -> bool:
    """Whether two numbers that agree after rounding are different ones: exact numbers must agree exactly, and inexact
    ones that round to zero must agree in their leading digits."""
    if not (getattr(gold, "is_number", False) and getattr(given, "is_number", False)):
        return False
    try:
        one, other = gold.evalf(60), given.evalf(60)
        gap, size = abs(one - other), max(abs(one), abs(other))
        if size == 0:
            return False
        exact = not (gold.has(_float()) or given.has(_float()))
        if exact:
            return bool(gap > size * 10**-40)
        return bool(size < 10**-decimals and gap > size * 10**-decimals)
    except (TypeError, ValueError, AttributeError):
        return False


def _float() -> Any:
    return need("sympy", "the scorer 'math'").Float
