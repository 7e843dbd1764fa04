"""The run's clock, phases and counters: the only reader of clocks and device counters.

Phases are exclusive: time spent reading a row while the engine asks for its next request counts as `read`, not as
`generate`, so the phases add up to the wall time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batchchat.reporting.report import Device

PHASES = ("load", "read", "plan", "prompt", "generate", "store", "export", "score", "judge", "keep")


class Meters:
    """Counts what happens in one process. All seconds are of one monotonic clock that starts at 0."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stack: list[str] = []
        self._counting = threading.Lock()
        """Two engines may count at once. Phases are those of one thread."""
        self._since = self._start
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.batch_rows: Counter[int] = Counter()
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.padded_tokens = 0
        self._batches = 0
        self._rows = 0
        self.events: list[dict[str, str]] = []
        self.num_events: Counter[str] = Counter()

    def now(self, wait: bool = True) -> float:
        """Seconds since the run began; with `wait`, work queued on an accelerator is waited for first."""
        if wait:
            synchronize()
        return time.perf_counter() - self._start

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside as `name`; a phase entered within another takes its time from it."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def batch(self, rows: int, prompt_tokens: int, generated_tokens: int, padded_tokens: int) -> None:
        """One computed batch: see `engines.base.EngineMeter`."""
        with self._counting:
            self.batch_rows[rows] += 1
            self._batches += 1
            self._rows += rows
            self.prompt_tokens += prompt_tokens
            self.generated_tokens += generated_tokens
            self.padded_tokens += padded_tokens

    def counts(self) -> dict[str, float]:
        """What was computed so far, as counters that only grow."""
        return {
            "prompt_tokens": float(self.prompt_tokens),
            "generated_tokens": float(self.generated_tokens),
            "batches": float(self._batches),
            "batch_rows": float(self._rows),
        }

    def event(self, name: str, detail: str) -> None:
        """Something that the report must mention. The first hundred are kept in words, all are counted."""
        with self._counting:
            self.num_events[name] += 1
            if len(self.events) < 100:
                self.events.append({"event": name, "detail": detail})

    @property
    def elapsed(self) -> float:
        """Wall seconds since the run began."""
        return time.perf_counter() - self._start


def synchronize() -> None:
    """Wait for the accelerator, where this process uses one. Never imports torch by itself."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def host_peak_bytes() -> int:
    """The largest resident set of this process so far.

    Linux's `getrusage` begins with what the process that started this one held then, so its status file is read.
    macOS counts in bytes, other systems in KiB.
    """
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        memory: Any = psutil.Process().memory_info()
        return int(memory.peak_wset)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peaks() -> dict[str, Device]:
    """Per accelerator: its name, and the peak bytes that torch allocated and reserved on it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {
        f"cuda:{number}": Device(
            name=torch.cuda.get_device_name(number),
            peak_allocated_bytes=torch.cuda.max_memory_allocated(number),
            peak_reserved_bytes=torch.cuda.max_memory_reserved(number),
            total_bytes=torch.cuda.get_device_properties(number).total_memory,
        )
        for number in range(torch.cuda.device_count())
    }
