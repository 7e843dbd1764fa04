"""Text for a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """`text` with control characters, escape sequences and direction marks made visible: they never reach a terminal
    raw. Line ends and tabs stay."""
    return "".join(character if _harmless(character) else _name(character) for character in text)


def _harmless(character: str) -> bool:
    """Joiners belong to emoji and to several scripts."""
    return character in "\n\t\u200c\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")


def _name(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
