"""Text of unknown origin for people: one function for each medium, through which everything printed or written goes."""

from __future__ import annotations

import html as standard_html
import re
import unicodedata

_SPACES = re.compile(r"\s+")
_MARKS = re.compile(r"([\\`*_~$#\[\]|])")
_BREAKS = str.maketrans({"\n": "\\n", "\t": "\\t"})


def printable(text: str) -> str:
    """For a terminal: `text` with control characters, escape sequences and direction marks made visible. Line ends and
    tabs stay."""
    if text.isprintable():
        return text
    return "".join(character if _harmless(character) else _name(character) for character in text)


def one_line(text: str) -> str:
    """For a terminal, where one line is meant: as `printable`, line ends and tabs made visible too."""
    return printable(text).translate(_BREAKS)


def quoted(text: str) -> str:
    """For a terminal: as `printable`, with a margin before every further line: none passes for the program's own."""
    return printable(text).replace("\n", "\n  │ ")


def markdown(text: str) -> str:
    """For Markdown: one line, or one cell of a table, that is shown as it is, whatever marks, HTML or breaks it has."""
    line = printable(_SPACES.sub(" ", text)).strip()
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\1", line)


def html(text: str) -> str:
    """For HTML, as text or as the value of an attribute."""
    return standard_html.escape(printable(text))


def xml(text: str) -> str:
    """For XML that a library writes: what XML cannot hold is made visible, marks are the library's to escape."""
    return "".join(_name(character) if character in "\ufffe\uffff" else character for character in printable(text))


def _harmless(character: str) -> bool:
    """Joiners belong to emoji and to several scripts."""
    return character in "\n\t\u200c\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _name(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
