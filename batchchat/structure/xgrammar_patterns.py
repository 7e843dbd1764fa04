"""Regular expressions as xgrammar reads them: it passes over some of what they hold, which is found here.

What is refused would be read otherwise than it is meant: assertions, anchors within an expression, flags, sets within
sets. What means another set of characters there is written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SPACES = r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE = r"\t\n\v\f\r" + _SPACES
_NO_SPACE = _SPACE + r"\u0085\ufeff"
"""What is white space to some."""
_PLAIN = r'[^"\\\u0000-\u001f]'
"""A character of a JSON string that stands for itself: xgrammar writes no escapes where there is a pattern."""

_PART = re.compile(
    r"""(?P<any>\[\\s\\S\]|\[\\S\\s\]|\[\\d\\D\]|\[\\w\\W\])
    | (?P<set>\[\^?+(?:\\.|[^\]\\])+\])
    | (?P<group>\(\?:|\(\?P?<[A-Za-z_]\w*>|\((?!\?))
    | (?P<repeat>(?:[*+?]|\{\d+(?:,\d*)?\})\??(?![*+?{]))
    | (?P<escape>\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.))
    | (?P<other>[^\\\[(*+?{^$])""",
    re.VERBOSE | re.DOTALL,
)
_IN_SET = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)|&&|--|~~|.", re.DOTALL)


_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


class NotRead(ValueError):
    """`str` is the part of an expression that is not read as it is meant."""


def whole(pattern: str) -> str:
    """An expression that a whole text has to match. Raises NotRead."""
    return _anchored(pattern, _Reading(of_json=False)).body


def in_string(pattern: str) -> str:
    """What the characters of a JSON string match as a whole where its value has a match of `pattern`, which is read as
    ECMAScript does. Raises NotRead."""
    found = _anchored(pattern, _Reading(of_json=True))
    before, behind = ("" if anchored else f"{_PLAIN}*" for anchored in (found.begins, found.ends))
    return f"{before}(?:{found.body}){behind}"


def of_length(least: int, most: int | None) -> str:
    """The characters of a JSON string with so many: by itself xgrammar lets control characters through."""
    return f"{_PLAIN}{{{least},{'' if most is None else most}}}"


class _Reading:
    """How an expression is read: `of_json` as ECMAScript does, else as all of a text in Unicode."""

    def __init__(self, of_json: bool):
        self.of_json = of_json
        self.begins = self.ends = False
        self.body = ""

    def read(self, body: str) -> None:
        place, depth = 0, 0
        while place < len(body):
            found = _PART.match(body, place)
            if found is None:
                raise NotRead(body[place : place + 3])
            text = found.group()
            depth += {"(": 1, ")": -1}.get(text[0], 0) if found.lastgroup in ("group", "other") else 0
            if text == "|" and depth == 0 and (self.begins or self.ends):
                raise NotRead("an anchor on one side of |")
            if depth < 0:
                raise NotRead(text)
            self.body += self._written(str(found.lastgroup), text)
            place = found.end()
        if depth:
            raise NotRead("a parenthesis that is not closed")

    def _written(self, kind: str, text: str) -> str:
        match kind:
            case "set":
                return self._set(text)
            case "group":
                return "(" if text == "(" else "(?:"
            case "escape" if text in self._outside:
                return self._outside[text]
            case "other" if text == ".":
                return r"[^\n\r\u2028\u2029]" if self.of_json else r"[^\n]"
            case "any":
                return r"[\s\S]"
            case "escape" | "other":
                return self._character(text)
        return text

    @property
    def _outside(self) -> Mapping[str, str]:
        ascii_only = {r"\D": r"[^0-9]", r"\W": r"[^0-9A-Za-z_]"} if self.of_json else {}
        space = _SPACES if self.of_json else _SPACE
        return {r"\s": f"[{space}]", r"\S": f"[^{_NO_SPACE}]", r"\d": "[0-9]", r"\w": "[0-9A-Za-z_]", **ascii_only}

    def _set(self, text: str) -> str:
        negated = text.startswith("[^")
        within = {r"\s": _NO_SPACE if negated else _SPACES if self.of_json else _SPACE}
        if self.of_json or not negated:
            within |= {r"\d": "0-9", r"\w": "0-9A-Za-z_"}
        ones = _IN_SET.findall(text[2 if negated else 1 : -1])
        written = ""
        for place, one in enumerate(ones):
            if one in ("&&", "--", "~~") or (one == "[" and not self.of_json):
                raise NotRead(text[:20])
            if one in within:
                written += within[one]
            elif negated or not self._is_escaped(one):
                written += rf"\{one}" if one == "[" else self._character(one, negated)
            elif "-" in ones[max(0, place - 1) : place + 2]:  # the end of a range
                raise NotRead(text[:20])
        if not written:
            raise NotRead(text[:20])
        return f"[{'^' if negated else ''}{written}]"

    def _character(self, text: str, negated: bool = False) -> str:
        """A character by itself, or an escape that stands for one."""
        if _value(text) is None or (self._is_escaped(text) and not negated):
            raise NotRead(text)
        return text

    def _is_escaped(self, text: str) -> bool:
        """Whether a JSON string has the character as an escape, of which the library knows nothing."""
        value = _value(text)
        return self.of_json and value is not None and (value in '"\\' or value < " ")


def _value(text: str) -> str | None:
    """The character that a part of an expression stands for; None where it is none, or none that is known."""
    if text[0] != "\\" or len(text) == 1:
        return text
    if text[1] in "xu" and len(text) > 2:
        value = chr(int(text[2:], 16))
        return None if "\ud800" <= value <= "\udfff" else value
    return _CONTROLS.get(text[1], None if text[1].isalnum() else text[1])


def _anchored(pattern: str, reading: _Reading) -> _Reading:
    body = pattern.removeprefix("^")
    reading.begins = body != pattern
    reading.ends = body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\"))) % 2 == 1
    reading.read(body[:-1] if reading.ends else body)
    return reading
