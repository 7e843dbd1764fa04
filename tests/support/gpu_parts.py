"""Parts of a check that end in all the ways there are: a script, which is given a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.gpu_check.__main__ import check
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding, tried
from scripts.gpu_check.plan import Part


def well(bench: Bench) -> Iterator[Finding]:
    yield tried("sum", 1 + 1 == 2, {"sum": 2, "ms": 0.12345})


def wrong(bench: Bench) -> Iterator[Finding]:
    yield tried("a | b", False, {"difference": 12345.6}, "two\nlines")


def fails(bench: Bench) -> Iterator[Finding]:
    yield tried("before", True, {})
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def hangs(bench: Bench) -> Iterator[Finding]:
    sleeper = subprocess.Popen(["sleep", "600"])
    yield Finding("before", {"parent": os.getpid(), "child": sleeper.pid})
    time.sleep(600)


def killed(bench: Bench) -> Iterator[Finding]:
    yield tried("before", True, {})
    os.kill(os.getpid(), signal.SIGKILL)


def _part(name: str, limit: float = 60, least: float = 0, alone: bool = False) -> Part:
    return Part(name, f"It {name}", "Text.", f"{__spec__.name}:{name}", limit, least, alone)


PARTS = {
    "all": [
        _part("fails"),
        _part("hangs", limit=3),
        _part("killed", alone=True),
        _part("wrong"),
        _part("late", least=1000),
        _part("well", alone=True),
    ],
    "well": [_part("well")],
    "hangs": [_part("hangs")],
}

if __name__ == "__main__":
    sys.exit(check(PARTS[sys.argv[2]], Bench("cpu", toy=True), Path(sys.argv[1]), seconds=300))
