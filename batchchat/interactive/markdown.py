"""Markdown as models write it, for a terminal."""

from __future__ import annotations

from markdown_it import MarkdownIt
from rich.markdown import Markdown

_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def markdown(text: str) -> Markdown:
    """`text` rendered. Tags are text, which rich alone would leave out; a line end is one, as models mean it; links
    show where they lead."""
    rendered = Markdown(text, hyperlinks=False, code_theme="ansi_dark")
    rendered.parsed = _PARSER.parse(text)
    for token in rendered.parsed:
        for inner in token.children or ():
            if inner.type == "softbreak":
                inner.type = "hardbreak"
    return rendered


def finished(text: str) -> int:
    """How many characters of `text`, which is still being written, are blocks that no further text changes: up to the
    last line that stands behind a blank one, at the margin, outside of code."""
    end = place = 0
    fence = ""
    after_blank = False
    for line in text.split("\n"):
        stripped = line.strip()
        if after_blank and stripped and not fence and not line[0].isspace():
            end = place
        if fence:
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
        elif stripped.startswith(("```", "~~~")):
            fence = stripped[: len(stripped) - len(stripped.lstrip(stripped[0]))]
        after_blank = not stripped
        place += len(line) + 1
    return end
