"""Patterns with a time limit. Python's `re` has none, and there are patterns, and texts, that take for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import regex

Pattern = str | regex.Pattern[str]

_end: ContextVar[float | None] = ContextVar("end", default=None)


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Within, the searches of this module take at most so long together. Raises TimeoutError, naming `what`."""
    token = _end.set(time.monotonic() + seconds)
    try:
        yield
    except TimeoutError:
        raise TimeoutError(f"{what} took longer than {seconds:g} s on this answer") from None
    finally:
        _end.reset(token)


def search(pattern: Pattern, text: str, flags: int = 0) -> regex.Match[str] | None:
    return _compiled(pattern, flags).search(text, timeout=_left())


def findall(pattern: Pattern, text: str, flags: int = 0) -> list[str]:
    found: list[str] = _compiled(pattern, flags).findall(text, timeout=_left())
    return found


def finditer(pattern: Pattern, text: str, flags: int = 0) -> Iterator[regex.Match[str]]:
    return _compiled(pattern, flags).finditer(text, timeout=_left())


def split(pattern: Pattern, text: str, flags: int = 0) -> list[str]:
    found: list[str] = _compiled(pattern, flags).split(text, timeout=_left())
    return found


def _compiled(pattern: Pattern, flags: int) -> regex.Pattern[str]:
    return regex.compile(pattern, flags) if isinstance(pattern, str) else pattern


def _left() -> float | None:
    end = _end.get()
    return None if end is None else max(end - time.monotonic(), 1e-3)
