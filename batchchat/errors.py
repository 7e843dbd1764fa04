"""What can go wrong, as one tree. Every message is one sentence: what is wrong, where, and what to type next.

BatchchatError
├── UsageError         2  the recipe or the command line is wrong; nothing was written
├── EnvironmentFault   5  this machine cannot do it: a missing extra, no such device, a full disk
└── BadRow                one source row cannot be used; it costs that row and the run goes on
"""

from __future__ import annotations

EXIT_CODES = {
    0: "done",
    1: "a fault of batchchat itself; the traceback says where",
    2: "the recipe, its input or the command line is wrong; nothing was written",
    3: "more rows failed than max_error_rate allows; of check: a row would fail",
    4: "a gate failed",
    5: "this machine cannot do it: a missing extra, no such device, a full disk; of plan: not one row fits",
    130: "stopped by Ctrl-C; the same command goes on",
    143: "stopped by SIGTERM; the same command goes on",
}
"""All exit codes of the command line, and what each says."""


class BatchchatError(Exception):
    """Base of all errors that are meant for the user to read."""

    exit_code = 1


class UsageError(BatchchatError):
    """The recipe, the input's path or the command line is wrong."""

    exit_code = 2


class EnvironmentFault(BatchchatError):
    """The machine cannot do what was asked."""

    exit_code = 5


class BadRow(BatchchatError):
    """A row that cannot become a chat, or a chat that cannot become a prompt."""
