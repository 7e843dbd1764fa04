"""Formulas among numbers: LaTeX and typography brought to plain text, and what is no single rational number marked."""

from __future__ import annotations

import math
import unicodedata

import regex

PART = "\ue000"
"""Stands for a piece of a formula that is no rational number: a root, pi, a power of a letter."""

_VULGAR = regex.compile(r"(\d?)[ ]?([¼½¾⅐-⅞↉])")
_SUPERSCRIPT = regex.compile(r"(?<=[\d)\p{L}])[⁻⁺]?[⁰¹²³⁴-⁹]+")
_SCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_TYPOGRAPHY = str.maketrans({"−": "-", "–": "-", "⁄": "/", "∕": "/", "٫": ".", "٬": ",", "٪": "%"})
_WIDE = regex.compile(r"[\uff01-\uff5e]")
_SPACED_GROUPS = regex.compile(r"\W*\d{1,3}(?:[ ~]\d{3})+(?![\d])(?:[.,]\d+)?\W*")

_WRAPPER = regex.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_DEGREES = regex.compile(r"\^\s*\{?\s*(?:\\circ|∘|°)\s*\}?|\\degree(?!\p{L})")
_ORDINAL = regex.compile(r"(?<=\d)\s*\^\s*\{?\s*(?:st|nd|rd|th)(?!\p{L})\s*\}?")
_SPACE = regex.compile(r"\\[,;:> ]|\\quad|\\qquad|(?<=\d)~(?=\d)")
_FRACTION = regex.compile(r"(\d?)\s*\\[dtc]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d))")
_ROOT = regex.compile(
    r"\\sqrt\s*(?P<order>\[[^\[\]]*\])?\s*(?:\{(?P<in>[^{}]*)\}|(?P<in>\w))|√\s*(?:\((?P<in>[^()]*)\)|(?P<in>[\d.]+))"
)
_TIMES_TEN = regex.compile(
    r"(?<=\d)\s*(?:\\times|\\cdot|[×·*xX])\s*10\s*(?:\^|\*\*)\s*"
    r"(?:\{\s*([+-]?\d+)\s*\}|\(\s*([+-]?\d+)\s*\)|([+-]?\d+))"
)
_POWER = regex.compile(
    r"(?:(?<![\w.,])(?P<base>\d[\d.,]{0,40}))?(?:\s?\^\s?|(?<=\d)\*\*(?=[\d(-])(?!\d+\*\*))"
    r"(?:\{(?P<to>[^{}]*)\}|\((?P<to>[^()]*)\)|(?P<to>[+-]?\d+(?:[./]\d+)?|\p{L}|\\\p{L}+))"
)
_OTHER = regex.compile(r"\\(?:binom|log|ln|sin|cos|tan|pi|tau|infty|exp)(?!\p{L})(?:_?\{[^{}]*\})*|[π∞]")
_JOINED = regex.compile(
    rf"(?:\d[\d.,/]{{0,40}}[ ]?(?:\\cdot|\\times|[-+*/·×])?[ ]?){{0,4}}{PART}"
    rf"(?:[ ]?(?:\\cdot|\\times|[-+*/·×])?[ ]?(?:\d[\d.,/]{{0,40}}|{PART})){{0,4}}"
)
_IMAGINARY = regex.compile(r"(?<=\d)i(?!\w)")
_PLAIN = regex.compile(r"[+-]?(?:\d[\d.,_ \u2009]*|\.\d+)")
_WHOLE = regex.compile(r"[+-]?\d+")
_DEEPEST = 8


def plain_formulas(text: str) -> str:
    """`text` with its numbers spelt plainly: fractions as `3/4`, powers as `10^6` or `e6`.

    A root of a square is its number; whatever else makes a number irrational or leaves a letter in it becomes `PART`
    together with the digits that it is multiplied with or added to.
    """
    if not text.isascii():
        text = _plain_typography(text)
    if " " in text and len(text) < 40 and _SPACED_GROUPS.fullmatch(text):
        return text.replace(" ", "\u2009")
    if "**" in text or "^" in text or "\\" in text or PART in text or "{,}" in text:
        text = _plain_latex(text)
    if "i" in text and _IMAGINARY.search(text):
        text = _JOINED.sub(PART, _IMAGINARY.sub(PART, text))
    return text


def _plain_typography(text: str) -> str:
    text = _WIDE.sub(lambda found: chr(ord(found[0]) - 0xFEE0), text.replace(PART, " ").translate(_TYPOGRAPHY))
    text = _VULGAR.sub(lambda found: f"{found[1]} {_vulgar(found[2])}" if found[1] else _vulgar(found[2]), text)
    text = _SUPERSCRIPT.sub(lambda found: f"^{found[0].translate(_SCRIPTS)}", text)
    if "√" in text or "π" in text or "∞" in text:
        text = _JOINED.sub(PART, _OTHER.sub(PART, _ROOT.sub(_root, text)))
    return text


def _vulgar(character: str) -> str:
    return unicodedata.normalize("NFKC", character).replace("⁄", "/")


def _plain_latex(text: str) -> str:
    text = text.replace("\\$", "$").replace("\\%", "%").replace("\\!", "").replace("{,}", ",")
    text = _SPACE.sub("\u2009", text)
    text = _DEGREES.sub("°", text)
    for _ in range(_DEEPEST):  # from the innermost braces outwards
        before = text
        text = _WRAPPER.sub(r" \1 ", text)
        text = _ROOT.sub(_root, text)
        text = _FRACTION.sub(_fraction, text)
        if text == before:
            break
    text = _ORDINAL.sub("", text)
    text = _TIMES_TEN.sub(lambda found: f"e{found[1] or found[2] or found[3]}", text)
    text = _POWER.sub(_power, text)
    text = _OTHER.sub(PART, text)
    if PART in text:
        text = _JOINED.sub(PART, text)
    return text


def _fraction(found: regex.Match[str]) -> str:
    whole, over, under = found[1], found[2] or found[4] or "", found[3] or found[5] or ""
    if not (_PLAIN.fullmatch(over.strip()) and _PLAIN.fullmatch(under.strip())):
        return f"{whole}{PART}"
    return f"{whole} {over.strip()}/{under.strip()}" if whole else f"{over.strip()}/{under.strip()}"


def _root(found: regex.Match[str]) -> str:
    inside = next((text for text in found.captures("in")), "")
    if found["order"] is None and inside.isascii() and inside.isdigit() and len(inside) <= 100:
        root = math.isqrt(int(inside))
        if root * root == int(inside):
            return str(root)
    return PART


def _power(found: regex.Match[str]) -> str:
    base, to = found["base"], next(iter(found.captures("to")), "").strip()
    if base is None:
        return PART
    if _WHOLE.fullmatch(to):
        return f"{base}^{to}"
    return PART
