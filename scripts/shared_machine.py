"""Measures how a run fares on a machine that it shares, beside the same run alone.

    python -m scripts.shared_machine [--engine continuous] [--model 135m] [--workload mixed16] [--dtype float32]
                                     [--rounds 2] [--cases alone busy …] [--spins N]

`busy`: beside a process that multiplies matrices with as many threads as there are cores. `pinned`: two at once, each
on a core of its own, as containers may be; `alone on one core` is what they are held against. `two`: two at once on the
same cores. Cases are measured in turns, and the middle of each counts; seconds are those of the workload, without
loading.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from statistics import median_low
from typing import Any

from batchchat.benchmarks.results import markdown
from batchchat.benchmarks.worker import MARK
from batchchat.process import cores

MOST = 2.3
"""Times as long as alone that a run may take beside one other busy process."""
_BUSY = """
import os, torch
left = right = torch.rand(1024, 1024)
print("busy", flush=True)
while os.getppid() == {parent}:
    torch.mm(left, right)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="continuous")
    parser.add_argument("--model", default="135m")
    parser.add_argument("--workload", default="mixed16")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--spins", help="GOMP_SPINCOUNT instead of ours; `none` is the library's own")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=tuple(CASES))
    options = parser.parse_args()
    job = {"rows": 48, **{name: getattr(options, name) for name in ("engine", "model", "workload", "dtype")}}
    environment = dict(os.environ)
    if options.spins == "none":
        environment["OMP_WAIT_POLICY"] = ""  # named, so that it is left alone, and empty, so that it says nothing
    elif options.spins is not None:
        environment["GOMP_SPINCOUNT"] = options.spins
    found: dict[str, list[float]] = {name: [] for name in options.cases}
    for _ in range(options.rounds):
        for name in options.cases:
            found[name].append(CASES[name](partial(start, job, environment)))
            print(f"{name}: {found[name][-1]:.1f} s", file=sys.stderr, flush=True)
    print("\n".join(table({name: median_low(seconds) for name, seconds in found.items()})))


def table(seconds: Mapping[str, float]) -> list[str]:
    """Each case beside the one that it is held against."""
    rows = []
    for name, taken in seconds.items():
        against = AGAINST.get(name)
        ratio = f"{taken / seconds[against]:.2f} × {against}" if against in seconds else ""
        rows.append((name, f"{taken:.1f}", ratio))
    return markdown(("case", "seconds", "ratio"), rows)


Start = Callable[[set[int]], "subprocess.Popen[str]"]


def start(job: Mapping[str, Any], environment: Mapping[str, str], on: set[int]) -> subprocess.Popen[str]:
    """One measurement, on these cores."""
    command = [sys.executable, "-m", "batchchat.benchmarks.worker", json.dumps(job)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(os.sched_setaffinity, 0, on),
    )


def seconds_of(process: subprocess.Popen[str]) -> float:
    out, _ = process.communicate()
    (line,) = (line for line in out.splitlines() if line.startswith(MARK))
    return float(json.loads(line.removeprefix(MARK))["seconds"])


@contextmanager
def busy() -> Iterator[None]:
    """Within, another process keeps all cores busy."""
    program = _BUSY.format(parent=os.getpid())
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def alone(start: Start) -> float:
    return seconds_of(start(set(cores())))


def beside_another(start: Start) -> float:
    with busy():
        return alone(start)


def on_one_core(start: Start) -> float:
    return seconds_of(start({cores()[0]}))


def pinned(start: Start) -> float:
    running = [start({core}) for core in cores()[:2]]
    return max(map(seconds_of, running))


def at_once(start: Start) -> float:
    running = [start(set(cores())) for _ in range(2)]
    return max(map(seconds_of, running))


CASES: dict[str, Callable[[Start], float]] = {
    "alone": alone,
    "busy": beside_another,
    "alone on one core": on_one_core,
    "pinned": pinned,
    "two": at_once,
}
AGAINST = {"busy": "alone", "two": "alone", "pinned": "alone on one core"}

if __name__ == "__main__":
    main()
