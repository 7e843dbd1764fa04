"""Lines of a log for people."""

from __future__ import annotations

import logging

from batchchat.reporting.escape import one_line


class PlainFormatter(logging.Formatter):
    """Each entry is one line that no terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))
