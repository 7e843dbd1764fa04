"""Which machine this is, and where facts about it are kept between runs."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import Field

from batchchat.chats.record import Bytes, Record, Unit

_PATIENCE = 60.0
"""Seconds for which a process waits for what another one measures."""


class Accelerator(Record):
    """A device that torch computes on."""

    name: str = Field(description="As its driver says.")
    bytes: Bytes = Field(description="Its memory.")


Cores = Annotated[int, Unit("cores")]


class Machine(Record):
    """What speed and memory depend on. Equal on machines that are alike."""

    processor: str = Field(description="As the system names it.")
    cores: Cores | None = Field(description="That this process may use; null where the system does not say.")
    memory_gib: Annotated[int, Unit("GiB")] = Field(description="Memory of the host, rounded.")
    accelerators: tuple[Accelerator, ...] = Field(description="CUDA devices; none where torch was not needed.")


def machine_facts() -> Machine:
    """This machine."""
    import psutil

    return Machine(
        processor=processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        accelerators=accelerators(),
    )


def accelerators() -> tuple[Accelerator, ...]:
    """The CUDA devices that torch sees; none where torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return tuple(Accelerator(name=properties.name, bytes=properties.total_memory) for properties in found)


def cache_file(name: str) -> Path:
    """A file of batchchat's in the user's cache folder (`XDG_CACHE_HOME`, or ~/.cache)."""
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "batchchat" / name


def read_cache(name: str) -> dict[str, Any]:
    """What a cache file holds; nothing where it is missing or broken: it is measured anew then."""
    try:
        found = json.loads(cache_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def changing_cache(name: str) -> Iterator[dict[str, Any]]:
    """What a cache file holds, to be changed and written while no other process changes it so. Where the system has no
    locks, the folder cannot be written, or another one stands still with the lock, it is as if there were no others."""
    path = cache_file(name)
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _lock(stack.enter_context(path.with_suffix(".lock").open("w")))
        except (ImportError, OSError):
            pass
        values = read_cache(name)
        yield values
        write_cache(name, values)


def _lock(file: IO[str]) -> None:
    """Wait for the lock of a file. Raises OSError after a minute, and ImportError where there are no locks."""
    import fcntl

    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def write_cache(name: str, values: dict[str, Any]) -> None:
    """Replace a cache file, whole or not at all. A folder that cannot be written costs the cache, never the run."""
    path = cache_file(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump(values, file, ensure_ascii=False, indent=1)
        Path(file.name).replace(path)
    except OSError:
        return


def processor() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
