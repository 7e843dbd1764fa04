"""Answers of a scripted engine that misbehaves: named in recipes as `tests.support.misbehaving:NAME`."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def dies(messages: list[dict[str, Any]]) -> str:
    """Ends the process over a poisoned row."""
    if "poison" in messages[-1]["content"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return str(messages[-1]["content"]).upper()


def hangs(messages: list[dict[str, Any]]) -> str:
    """Never answers a poisoned row."""
    if "poison" in messages[-1]["content"]:
        time.sleep(3600)
    return str(messages[-1]["content"]).upper()


def always_dies(messages: list[dict[str, Any]]) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return ""


def slow(messages: list[dict[str, Any]]) -> str:
    """Takes as long as a small model."""
    time.sleep(0.01)
    return str(messages[-1]["content"]).upper()


def lingers(messages: list[dict[str, Any]]) -> str:
    """Takes much longer for one row."""
    time.sleep(2.0 if "linger" in messages[-1]["content"] else 0.005)
    return str(messages[-1]["content"]).upper()
