"""What a server's headers say of when to come back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_EPOCH = 1e9
"""A plain number above this is a time since 1970, not a span."""
_LONGEST = 86400.0


def pause_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds for which a refused client should wait: `Retry-After` (or its milliseconds), else the largest time until
    one of the limits begins anew. None where the headers say nothing; at most a day. Names are in lower case."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        found = read_wait(headers.get(name, ""), now, scale)
        if found is not None:
            return found
    resets = [
        found
        for name, text in headers.items()
        if "ratelimit" in name and "reset" in name and (found := read_wait(text, now)) is not None
    ]
    return max(resets, default=None)


def read_wait(text: str, now: datetime, scale: float = 1.0) -> float | None:
    """Seconds from now of `12`, `1m30s`, `500ms`, seconds since 1970, an ISO time or an HTTP date; None for 0, -1 and
    whatever else says nothing. Plain numbers are in `scale` seconds."""
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        number = _spelled(text, now)
    else:
        number = number - now.timestamp() if number > _EPOCH else number * scale
    return min(number, _LONGEST) if number > 0 else None


def _spelled(text: str, now: datetime) -> float:
    parts = _PART.findall(text)
    if parts and "".join(map("".join, parts)) == text.replace(" ", ""):
        return sum(float(count) * _SECONDS[unit] for count, unit in parts)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError):
            continue
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    return 0.0
