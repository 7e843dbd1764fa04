"""A file that one process at a time holds, on any system, until it closes the file or ends."""

from __future__ import annotations

import os
from typing import IO, Any

_FAR = 2**30
"""Windows lets nobody else read the bytes that are locked, so one is taken that the file does not have."""


def hold(file: IO[Any]) -> None:
    """Hold the file. Raises BlockingIOError where another process does, OSError where it cannot be held at all."""
    try:
        import fcntl
    except ImportError:  # Windows
        _hold_far_byte(file.fileno())
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _hold_far_byte(number: int) -> None:
    import msvcrt

    os.lseek(number, _FAR, os.SEEK_SET)
    try:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except PermissionError as error:
        raise BlockingIOError(error.errno, error.strerror) from error
    finally:
        os.lseek(number, 0, os.SEEK_SET)
