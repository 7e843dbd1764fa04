"""The keyboard of a chat."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from batchchat.errors import EnvironmentFault


@contextmanager
def keyboard(interrupt: Callable[[], None]) -> Iterator[None]:
    """Within, Ctrl-C calls `interrupt`, and what is typed is seen in prompts only: while an answer is written it
    waits for the next one, instead of being drawn into the answer. Needs a terminal on standard input. Raises
    EnvironmentFault on a system without POSIX terminals."""
    try:
        import termios
    except ImportError:
        raise EnvironmentFault(
            "a chat in a terminal needs a POSIX system, such as Linux, macOS or WSL; here, pipe the question in: "
            "echo 'What is 2 plus 2?' | batchchat chat"
        ) from None

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
