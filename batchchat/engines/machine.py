"""Which machine this is."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from batchchat.chats.record import Bytes, Record, Unit
from batchchat.process import num_cores


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
        cores=num_cores(),
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


def processor() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
