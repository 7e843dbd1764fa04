"""Log lines on standard error."""

from __future__ import annotations

import logging
import sys


class _ToStderr(logging.Handler):
    """Writes to what is standard error now, above a progress line that is drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr)


def log_to_stderr(quiet: bool) -> None:
    """Show what the run says; with `quiet`, only warnings."""
    logger = logging.getLogger("batchchat")
    handler = _ToStderr(logging.WARNING if quiet else logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [*(other for other in logger.handlers if not isinstance(other, _ToStderr)), handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
