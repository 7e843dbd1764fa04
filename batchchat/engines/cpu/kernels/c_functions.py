"""Whether torch's C functions may be called by address: a changed signature would end the process, not raise."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import torch

TRIED = ("2.13",)
"""Versions of torch with which the tests of this package have called them."""
_TRIAL = "batchchat.engines.cpu.c_trial"
_SECONDS = 120


@cache
def are_trusted() -> bool:
    """True for a version that was tried; any other is tried now, in a process of its own."""
    if torch.__version__.startswith(tuple(f"{version}." for version in TRIED)):
        return True
    return survives([sys.executable, "-m", _TRIAL])


def survives(command: list[str]) -> bool:
    """Whether a trial process ends well in time."""
    try:
        return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
