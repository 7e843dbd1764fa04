"""Code blocks of Markdown, as models write them: not always as the standard asks."""

from __future__ import annotations

from dataclasses import dataclass

import regex

_FENCE = regex.compile(
    r"(?:^[ \t>]*(?P<mark>`{3,}|~{3,})|(?P<mark>(?<!`)`{3,})(?=(?i:json\s)))[ \t]*(?P<rest>[^\r\n]*)", regex.MULTILINE
)
"""A fence that says it is JSON may also stand behind other text."""
_LANGUAGE = regex.compile(r"(?P<name>[A-Za-z][\w+#.-]*)?[ \t]*")
_JSON = frozenset({"json", "jsonc", "json5", "jsonl", "geojson", "ndjson"})


@dataclass(frozen=True, slots=True)
class Block:
    """What a code block holds, and the language it names (in lower case; empty where it names none)."""

    language: str
    text: str


def code_blocks(text: str) -> list[Block]:
    """The blocks of a text in order. Fences are backticks or tildes; lines may end in CR LF; the closing fence may
    stand at the end of a line; a block that is never closed reaches to the end."""
    found: list[Block] = []
    place = 0
    while (opening := _FENCE.search(text, place)) is not None:
        mark, rest = opening["mark"], opening["rest"]
        language = _LANGUAGE.match(rest)
        assert language is not None, "the pattern matches the empty text"
        # A fence whose content begins in its own line, as in ```{"a": 1}```, names no language.
        start = opening.start("rest") + (language.end() if language["name"] else 0)
        closing = _closing(mark).search(text, start)
        end = len(text) if closing is None else closing.start("mark")
        found.append(Block((language["name"] or "").lower(), text[start:end]))
        place = len(text) if closing is None else closing.end()
    return found


def _closing(mark: str) -> regex.Pattern[str]:
    """At the beginning of a line, or else at the end of one."""
    fence = rf"(?P<mark>{regex.escape(mark)}{regex.escape(mark[0])}*)"
    return regex.compile(rf"(?<=[\r\n])[ \t>]*{fence}|{fence}(?=[ \t]*(?:\r?\n|\r|$))")


def json_block(text: str) -> str | None:
    """The content of the last block that says it is JSON; else of the last that names no language; else of the last;
    None without blocks."""
    blocks = code_blocks(text)
    for wanted in (_JSON, {""}):
        chosen = [block for block in blocks if block.language in wanted]
        if chosen:
            return chosen[-1].text
    return blocks[-1].text if blocks else None
