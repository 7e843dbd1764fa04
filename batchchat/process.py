"""How a process that computes begins: with what libraries read once, when they are loaded, and on the cores that it
may use."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_SPINS = "6000"
"""How often a thread that waits for the others looks before it gives its core away: some hundred microseconds, as long
as Python takes from one of torch's operators to the next. GNU OpenMP's own number makes milliseconds, and beside
another busy process the core is what the awaited thread waits for."""
_SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_ALLOCATED = 50_000
"""Objects from which on the collector looks for cycles: imports make hundreds of thousands that stay."""
_GROUPS, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def begin() -> None:
    """To be called before anything heavy is imported. What the user has set stays."""
    gc.set_threshold(_ALLOCATED, *gc.get_threshold()[1:])
    os.environ.update(settings(os.environ))


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that an environment should have for what computes on a CPU, and does not say itself."""
    found = {}
    if not any(name in environment for name in _SPIN_VARIABLES):
        found["GOMP_SPINCOUNT"] = _SPINS
    threads = num_cores()
    if threads < len(cores()) and "OMP_NUM_THREADS" not in environment:  # libraries do not ask the control group
        found["OMP_NUM_THREADS"] = str(threads)
    return found


def cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def num_cores(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int:
    """How many of them it may keep busy: fewer where its control group (a container's) gets less time."""
    return min([len(cores()), *(max(1, math.ceil(quota)) for quota in _quotas(groups, mount))])


def _quotas(groups: Path, mount: Path) -> Iterator[float]:
    """Seconds of a core per second that the control groups of this process may take, of either version of them.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/scheduler/sched-bwc.html
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount if not controllers else mount / "cpu"
        inside = top / path.lstrip("/")
        for folder in (inside, *inside.parents[: len(inside.parts) - len(top.parts)]):
            yield from _quota(folder)


def _quota(group: Path) -> Iterator[float]:
    """That of one control group, where it has one."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((group / name).read_text(encoding="utf-8") for name in names).split()
            allowed, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # there is no such file, or it says "max"
            continue
        if allowed > 0:
            yield allowed / period
