"""What the machine is."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from batchchat.engines.machine import machine_facts
from batchchat.reporting.limits import machine_limits
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding

_PACKAGES = ("torch", "transformers", "triton", "accelerate", "bitsandbytes", "nvidia-ml-py")


def run(bench: Bench) -> Iterator[Finding]:
    facts = machine_facts()
    yield Finding("host", {"what": f"{facts.processor}, {facts.cores} cores, {facts.memory_gib} GiB"})
    for number, device in enumerate(facts.accelerators):
        major, minor = torch.cuda.get_device_capability(number)
        what = f"{device.name}, {device.bytes / 1e9:.1f} GB, compute capability {major}.{minor}"
        yield Finding(f"cuda:{number}", {"what": what})
    yield Finding("driver", {"what": _driver()})
    yield Finding("Python", {"what": f"{platform.python_version()}, built for CUDA: {torch.version.cuda or 'no'}"})
    for package in _PACKAGES:
        yield Finding(package, {"what": _version(package)})
    for dtype in bench.dtypes:
        limits = machine_limits(dtype, "cuda:0" if bench.on_gpu else "cpu")
        rates = {"TFLOP/s": limits.flops_per_second / 1e12, "GB/s": limits.bytes_per_second / 1e9}
        yield Finding(f"limits in {dtype}", rates)


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # without package, driver or device it raises its own
        return f"not known ({type(error).__name__})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
