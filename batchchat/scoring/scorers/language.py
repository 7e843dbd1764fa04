"""`language`: whether the answer is written in the expected language."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from batchchat.scoring.base import Answer, BadReference, Score, ScoreFunction, ScorerOptions, accepted, is_missing
from batchchat.scoring.extras import need

NEEDS_REFERENCE = False


class Options(ScorerOptions):
    """Options of `language`."""

    expect: str | None = Field(
        default=None,
        pattern="^[a-z]{2}$",
        description="Two-letter code (ISO 639-1) of the language; by default the reference holds it.",
        examples=["de"],
    )


_FAMILY = {"yue": "zh", "wuu": "zh", "cmn": "zh", "nb": "no", "nn": "no", "iw": "he", "in": "id"}
"""Codes of one written language, which short texts do not tell apart."""
_SCRIPTS = {
    "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CJK": "zh", "THAI": "th", "GREEK": "el", "HEBREW": "he",
    "ARMENIAN": "hy", "GEORGIAN": "ka", "TAMIL": "ta", "TELUGU": "te", "KANNADA": "kn", "MALAYALAM": "ml",
    "GUJARATI": "gu", "GURMUKHI": "pa", "SINHALA": "si", "KHMER": "km", "LAO": "lo", "ORIYA": "or",
}  # fmt: skip
"""First word of a letter's Unicode name to the one language that is written so."""


def make(options: Options) -> ScoreFunction:
    """1 where the most likely language is the expected one, else 0; a text without letters scores 0."""
    detect = language_detector("the scorer 'language'")

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        if options.expect is None and is_missing(reference):
            return Score(None, "no reference names the expected language", status="unscored")
        expected = (options.expect,) if options.expect else tuple(_code(code) for code in accepted(reference))
        found = detect(answer.text)
        if found is None:
            return Score(0.0, "the answer holds no letters", None, expected[0])
        right = found in {_FAMILY.get(code, code) for code in expected}
        return Score(float(right), f"written in '{found}'", found, expected[0])

    return score


def language_detector(purpose: str) -> Callable[[str], str | None]:
    """A function from a text to the ISO 639-1 code of its most likely language, or None where it has no letters.

    py3langid is deterministic, reads 97 languages and brings its model. Case says nothing about the language and
    capitals are rare in what it learnt from, so the text is lowered first. A script that one language alone writes
    tells more than statistics of a few characters, and so it decides.
    """
    library = need("py3langid", purpose)

    def detect(text: str) -> str | None:
        if not any(character.isalpha() for character in text):
            return None
        by_script = language_of_script(text)
        if by_script is not None:
            return by_script
        code: str = library.classify(text.lower())[0]
        return _FAMILY.get(code, code)

    return detect


def language_of_script(text: str) -> str | None:
    """The language of a text more than half of whose letters are of a script that one language alone writes.

    Chinese characters beside a tenth or more of kana are Japanese, beside as much Hangul Korean.
    """
    letters = [character for character in text if character.isalpha()]
    counts = Counter(
        _SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]) for letter in letters
    )
    if sum(count for code, count in counts.items() if code is not None) * 2 <= len(letters):
        return None
    for code in ("ja", "ko"):
        if counts[code] * 10 >= len(letters):
            return code
    counts.pop(None, None)
    return counts.most_common(1)[0][0]


def _code(reference: str) -> str:
    """`zh-CN` and `ZH` as `zh`. Raises BadReference for what is no language code."""
    code = reference.strip().lower().replace("_", "-").partition("-")[0]
    if not (2 <= len(code) <= 3 and code.isascii() and code.isalpha()):
        raise BadReference(f"the reference {reference[:80]!r} is no language code such as en, de or zh")
    return _FAMILY.get(code, code)
