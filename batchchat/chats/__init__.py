"""Chats, requests and completions as frozen values, and the row formats that they are read from and written to."""

from batchchat.chats.types import (
    ROLES,
    Chat,
    Completion,
    FinishReason,
    Logprob,
    Message,
    Place,
    Request,
    Role,
    RowError,
    Settings,
    SourceRow,
    TextArguments,
    TextLogprob,
    Timings,
    Usage,
)

__all__ = [
    "ROLES",
    "Chat",
    "Completion",
    "FinishReason",
    "Logprob",
    "Message",
    "Place",
    "Request",
    "Role",
    "RowError",
    "Settings",
    "SourceRow",
    "TextArguments",
    "TextLogprob",
    "Timings",
    "Usage",
]
