"""Log lines on standard error."""

from __future__ import annotations

import logging
import sys

from batchchat.reporting.log import PlainFormatter

_NAME = "batchchat on standard error"


def log_to_stderr(quiet: bool) -> None:
    """Show what the run says; with `quiet`, only warnings."""
    logger = logging.getLogger("batchchat")
    for earlier in [handler for handler in logger.handlers if handler.name == _NAME]:
        logger.removeHandler(earlier)
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    handler.name = _NAME
    handler.setFormatter(PlainFormatter("%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
