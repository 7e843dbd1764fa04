"""Runs parts, each in a process of its own: one that fails, hangs or is killed ends no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from scripts.gpu_check.bench import Bench
from scripts.gpu_check.child import begins, compute
from scripts.gpu_check.findings import Outcome, read, record
from scripts.gpu_check.plan import Part

RESULTS, LOG, TABLE = "results.jsonl", "log.txt", "table.md"
_PRELOADED = (
    "torch",
    "transformers.generation",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3.modeling_qwen3",
    "batchchat.engines.continuous",
    "batchchat.engines.pipeline.engine",
    "batchchat.benchmarks.contenders",
)
"""Imported once, by a process from which those of the parts are forked: each then begins at once."""
_LOST = 255
"""What multiprocessing says of a process whose end nobody saw, as the one that forked it is gone."""
_ORPHANED = "with the process that it was forked from"
_TRIAL_SECONDS = 120
_MOST_WORKERS = 8
_CORES_EACH = 2
"""A part keeps some cores busy: its own thread, torch's and the compiler's."""


class Supervisor:
    """Parts within `seconds` in all; those that say so run alone, the others beside each other."""

    def __init__(self, bench: Bench, output: Path, seconds: float, say: Callable[[str], None]):
        self._bench = bench
        self._results, self._log = output / RESULTS, output / LOG
        self._deadline = time.monotonic() + seconds
        self._say = say
        self._running: set[BaseProcess] = set()
        self._context: Any = None

    def run(self, parts: Sequence[Part]) -> list[Outcome]:
        """In the order given; parts that need not be alone run beside those that follow them and need it as little."""
        workers = max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // _CORES_EACH))
        found: list[Outcome] = []
        try:
            self._context = self._quickest_start()
            for alone, some in groupby(parts, lambda part: part.alone):
                with ThreadPoolExecutor(1 if alone else workers) as pool:
                    found += pool.map(self._part, some)
            return found
        finally:
            for process in list(self._running):
                _end(process)

    def _quickest_start(self) -> Any:
        """Forking from a process that has imported everything, if the device can be used so; else starting afresh."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOADED))
        process = context.Process(target=begins, args=(self._bench.device,))
        with suppress(OSError, EOFError):  # where the process to fork from has died
            process.start()
            process.join(_TRIAL_SECONDS)
            if process.exitcode == 0:
                return context
        _end(process)
        self._say("processes cannot be forked here; each part imports everything anew")
        return multiprocessing.get_context("spawn")

    def _part(self, part: Part) -> Outcome:
        left = self._deadline - time.monotonic()
        if left < part.least:
            outcome = Outcome(
                part.name, "left out", 0.0, f"it takes {part.least:.0f} s, and {max(left, 0):.0f} were left"
            )
        else:
            began = time.monotonic()
            ended, why = self._computed(part, min(part.limit, left))
            if why == _ORPHANED and (left := self._deadline - time.monotonic()) >= part.least:
                ended, why = self._computed(part, min(part.limit, left))
            outcome = Outcome(part.name, ended, round(time.monotonic() - began, 1), why)
        record(self._results, part.name, outcome)
        self._say(f"{part.name}: {outcome.ended}, {outcome.seconds:.0f} s{outcome.why and f' ({outcome.why})'}")
        return outcome

    def _computed(self, part: Part, limit: float) -> tuple[Any, str]:
        """How a part ended, and why where it was not done."""
        arguments = (part.name, part.function, self._bench, self._results, self._log)
        process = self._context.Process(target=compute, args=arguments)
        self._running.add(process)
        try:
            process.start()
            process.join(limit)
            code = process.exitcode
            if code is None:
                return "out of time", f"it was ended after {limit:.0f} s"
            if code == 0:
                return "done", ""
            if code == _LOST:
                return "killed", _ORPHANED
            if code < 0:
                return "killed", f"by {signal.Signals(-code).name}"
            known = read(self._results).get(part.name)
            return "failed", (known and known.error) or f"with exit code {code}; see {LOG}"
        finally:
            _end(process)
            self._running.discard(process)


def _end(process: BaseProcess) -> None:
    """End a process and all that it started. One that hangs in the driver may outlast it; it is not waited for long."""
    if process.pid is None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.exitcode is None:
        process.kill()
        process.join(5)
