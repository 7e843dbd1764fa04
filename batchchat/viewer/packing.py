"""Plain values as text that a page can hold: JSON that no markup ends, and gzip in base64."""

from __future__ import annotations

import base64
import gzip
from typing import Any

from batchchat.chats.json_text import json_text

_LEVEL = 4
"""Half the time of level 6, for a tenth more bytes."""


def plain(value: Any) -> str:
    """JSON for a script element: `<` cannot end it."""
    return json_text(value).replace("<", "\\u003c")


def packed(value: Any) -> str:
    """JSON, compressed. The same values give the same text."""
    return packed_text(json_text(value))


def packed_text(text: str) -> str:
    """A text, compressed."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), _LEVEL, mtime=0)).decode("ascii")
