"""The keyboard of a chat."""

from __future__ import annotations

import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def keyboard(interrupt: Callable[[], None]) -> Iterator[None]:
    """Within, Ctrl-C calls `interrupt`, and what is typed is seen in prompts only: while an answer is written it
    waits for the next one, instead of being drawn into the answer. Needs a terminal on standard input."""

    def pressed(_number: int, _frame: FrameType | None) -> None:
        interrupt()

    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[0] &= ~termios.ICRNL  # Enter stays what prompts know it as
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    quiet[3] |= termios.NOFLSH  # Ctrl-C does not take away what was typed before it
    previous = signal.signal(signal.SIGINT, pressed)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        signal.signal(signal.SIGINT, previous)
