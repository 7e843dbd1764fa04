"""Grammars in Lark's notation as they stand: which of their rules never come to an end.

Only what that takes is read of the notation (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md);
whatever is not understood counts as something that ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|//[^\n]*|\#[^\n]*)
    | (?P<line>\n)
    | (?P<text>"(?:\\.|[^"\\\n])*"i?)
    | (?P<pattern>/(?:\\.|[^/\\\n])+/[a-z]*)
    | (?P<special><[^>\n]*>|@\w+)
    | (?P<directive>%\w+)
    | (?P<name>[A-Za-z_][\w-]*)
    | (?P<repeat>\{[ ]*\d*[ ]*(?:,[ ]*\d*[ ]*)?\})
    | (?P<mark>->|\.\.|.)""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    begins_line: bool


@dataclass(frozen=True)
class _Part:
    """What a rule may be: one of `ways`, each a row of names of rules and further parts; `optional` where it may also
    be nothing at all."""

    ways: tuple[tuple[str | _Part, ...], ...]
    optional: bool = False

    def ends(self, known: Callable[[str], bool]) -> bool:
        return self.optional or any(
            all(known(one) if isinstance(one, str) else one.ends(known) for one in way) for way in self.ways
        )

    def names(self) -> Iterator[str]:
        for way in self.ways:
            for one in way:
                yield from (one,) if isinstance(one, str) else one.names()


def endless_rule(text: str) -> str | None:
    """The name of a rule that a text may come to and that never ends, as it needs itself again; None where there is
    none."""
    try:
        rules = _rules(text)
    except RecursionError:  # the library refuses it by itself
        return None
    ending: set[str] = set()

    def ends(name: str) -> bool:
        return name in ending or name not in rules

    while found := {name for name, part in rules.items() if name not in ending and part.ends(ends)}:
        ending |= found
    reached, left = set[str](), ["start"]
    while left:
        name = left.pop()
        if name in reached or name not in rules:
            continue
        reached.add(name)
        left += rules[name].names()
    stuck = next((name for name in rules if name in reached and name not in ending), None)
    seen = set[str]()
    while stuck is not None and stuck not in seen:  # on to one that needs itself
        seen.add(stuck)
        stuck = next(name for name in rules[stuck].names() if not ends(name))
    return stuck


def with_patterns(text: str, written: Callable[[str], str]) -> str:
    """A grammar whose regular expressions, without the slashes around them, are written anew."""

    def part(found: re.Match[str]) -> str:
        pattern, flags = found.group()[1:].rsplit("/", 1) if found.lastgroup == "pattern" else ("", "")
        return f"/{written(pattern)}/{flags}" if pattern else found.group()

    return _TOKEN.sub(part, text)


def beyond_lark(text: str) -> str | None:
    """The first part of a grammar that is no more than a library's own: a directive that Lark does not have, a special
    token, a flag of a regular expression other than i, an attribute of a rule; None where there is none."""
    tokens = list(_tokens(text))
    for place, token in enumerate(tokens):
        flags = token.text.rpartition("/")[2] if token.kind == "pattern" else ""
        own = token.kind == "directive" and token.text not in ("%ignore", "%import")
        if own or token.kind == "special" or flags not in ("", "i"):
            return token.text
        body = _body(tokens, place)
        if body is not None and any(one.text == "[" for one in tokens[place:body]):
            return f"an attribute of {token.text}"
    return None


def _rules(text: str) -> Mapping[str, _Part]:
    tokens = list(_tokens(text))
    starts = [place for place in range(len(tokens)) if _body(tokens, place) is not None]
    ends = [place for place, token in enumerate(tokens) if token.kind == "directive" and token.begins_line]
    rules: dict[str, _Part] = {}
    for place in starts:
        body = _body(tokens, place)
        assert body is not None, "a rule has a body"
        end = min((one for one in (*starts, *ends) if one > place), default=len(tokens))
        name = next(token.text for token in tokens[place:body] if token.kind == "name")
        rules[name] = _Reader(tokens[body:end]).alternatives()
    return rules


def _tokens(text: str) -> Iterator[_Token]:
    begins = True
    for found in _TOKEN.finditer(text):
        kind = str(found.lastgroup)
        if kind == "line":
            begins = True
        elif kind != "skip":
            yield _Token(kind, found.group(), begins)
            begins = False


def _body(tokens: list[_Token], place: int) -> int | None:
    """Where the body of the rule begins that begins here: behind its name, its attributes in brackets and a colon."""
    if not tokens[place].begins_line:
        return None
    while place < len(tokens) and tokens[place].text in ("!", "?"):
        place += 1
    if place >= len(tokens) or tokens[place].kind != "name":
        return None
    place += 1
    depth = 0
    while place < len(tokens):
        text = tokens[place].text
        if text == ":" and depth == 0:
            return place + 1
        depth += {"[": 1, "]": -1}.get(text, 0)
        if depth == 0 and text not in ("]", ".") and not text.isdigit():
            return None
        place += 1
    return None


class _Reader:
    """Reads the body of one rule."""

    def __init__(self, tokens: list[_Token]):
        self._tokens = tokens
        self._place = 0

    def alternatives(self, closing: str = "") -> _Part:
        ways: list[tuple[str | _Part, ...]] = []
        way: list[str | _Part] = []
        while self._place < len(self._tokens):
            token = self._tokens[self._place]
            self._place += 1
            if closing and token.text == closing:
                break
            if token.text == "|":
                ways.append(tuple(way))
                way = []
            elif token.text == "->":  # a name for the way
                self._place += 1
            elif token.text in ("(", "["):
                inner = self.alternatives(")" if token.text == "(" else "]")
                way.append(self._repeated(_Part(inner.ways, token.text == "[")))
            elif token.kind == "name":
                way.append(self._repeated(token.text))
            elif token.kind == "directive":
                self._pass_braces()
        return _Part((*ways, tuple(way)))

    def _repeated(self, one: str | _Part) -> str | _Part:
        """With what stands behind it: none of it may be enough."""
        if self._place >= len(self._tokens):
            return one
        token = self._tokens[self._place]
        least = re.match(r"\{ *(\d*)", token.text) if token.kind == "repeat" else None
        if token.text in ("?", "*") or (least is not None and int(least[1] or 0) == 0):
            return _Part(((one,),), optional=True)
        return one

    def _pass_braces(self) -> None:
        """Over the object behind `%json` and its like."""
        depth = 0
        while self._place < len(self._tokens):
            text = self._tokens[self._place].text
            depth += text.count("{") - text.count("}") if self._tokens[self._place].kind in ("mark", "repeat") else 0
            self._place += 1
            if depth <= 0:
                return
