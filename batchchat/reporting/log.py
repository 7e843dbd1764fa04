"""The run's log: lines for people."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchchat.credentials import without_credentials
from batchchat.errors import EnvironmentFault
from batchchat.reporting.escape import one_line


class PlainFormatter(logging.Formatter):
    """Each entry is one line that no terminal obeys and that tells no password."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(without_credentials(super().format(record)))


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append what the run says to its log file. Raises EnvironmentFault where that cannot be opened, or, at the end of
    what went well otherwise, where something could not be written."""
    try:
        handler = _File(path, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(
            f"the log {path} cannot be opened: {error.strerror}; move it away, or choose another directory with "
            "sink.directory=…"
        ) from error
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("batchchat")
    previous = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
        if handler.failure is not None:
            raise EnvironmentFault(
                f"the log {path} could not be written ({handler.failure}); everything else was: make room, and run the "
                "same command again to see it"
            )
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(previous)


class _File(logging.FileHandler):
    """Keeps what first went wrong instead of printing it."""

    failure: BaseException | None = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        self.failure = self.failure or sys.exc_info()[1]

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self.failure = self.failure or error
