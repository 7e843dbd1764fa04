"""A part, in its own process."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import parent_process
from pathlib import Path

from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding, record


def compute(part: str, function: str, bench: Bench, results: Path, log: Path) -> None:
    """Record what `function` ("module:name", from a bench to findings) finds. What it prints goes to `log`."""
    os.setsid()  # so that what it starts can be ended with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    print(f"\n== {part}", file=sys.stderr, flush=True)
    code = 0
    try:
        for finding in _function(function)(bench):
            record(results, part, finding)
    except BaseException as error:
        traceback.print_exc()
        record(results, part, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # threads that libraries leave behind are not waited for


def begins(device: str) -> None:
    """Ends well where a process that was started so can compute on the device."""
    import torch

    torch.ones(8, device=device).sum().item()


def _function(name: str) -> Callable[[Bench], Iterator[Finding]]:
    module, _, attribute = name.partition(":")
    found: Callable[[Bench], Iterator[Finding]] = getattr(importlib.import_module(module), attribute)
    return found


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.killpg(os.getpgid(0), signal.SIGKILL)
