"""A thread that records memory, utilisation and what was computed while the run works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from batchchat.reporting.report import Recording

_FIRST_INTERVAL = 0.5
_MOST_POINTS = 240


class Watcher:
    """Samples this process and its accelerators, as a context. However long the run, at most 240 points are kept:
    when they are full every second one is dropped, and samples are taken half as often from then on."""

    def __init__(
        self,
        interval: float = _FIRST_INTERVAL,
        most: int = _MOST_POINTS,
        counts: Callable[[], Mapping[str, float]] = dict,
    ):
        """`counts` are counters of the run's work, which a thread may read at any time."""
        import psutil

        self._counts = counts
        self._interval = interval
        self._most = most
        self._process = psutil.Process()
        self._began = time.perf_counter()
        self._points: list[dict[str, float]] = []
        self._devices = _nvml_devices()
        self._energy_before: dict[str, float] = {}
        self._energy: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._process.cpu_percent()  # the first call only sets its mark
        self._energy_before = self._energies()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the last sample and end the thread; nothing where it ended before."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        self._sample()
        self._energy = {
            name: joules - self._energy_before[name]
            for name, joules in self._energies().items()
            if name in self._energy_before
        }

    def recording(self) -> Recording:
        """What was recorded so far."""
        names = list(dict.fromkeys(name for point in self._points for name in point))
        columns = {name: tuple(point.get(name) for point in self._points) for name in names}
        found = Recording(interval_seconds=self._interval, columns=columns)
        if not self._energy:
            return found
        energy = {name: round(joules, 1) for name, joules in self._energy.items()}
        return found.model_copy(update={"energy_joules": energy})

    @property
    def missing(self) -> dict[str, str]:
        """What could not be recorded, and why."""
        if self._devices:
            return {} if self._energy else {"watch.energy_joules": "the driver does not count energy on these devices"}
        why = "no NVIDIA device could be asked (that takes a GPU, its driver, and `pip install 'batchchat[gpu]'`)"
        return {"watch.devices": why, "watch.energy_joules": why}

    def _watch(self) -> None:
        self._sample()
        while not self._ended.wait(self._interval):
            self._sample()
            if len(self._points) >= self._most:
                self._points = self._points[::2]
                self._interval *= 2

    def _sample(self) -> None:
        point = {
            "seconds": round(time.perf_counter() - self._began, 2),
            "host_bytes": float(self._process.memory_info().rss),
            "host_cpu_percent": self._process.cpu_percent(),
            **self._counts(),
        }
        for name, read in self._devices.items():
            point |= {f"{name}_{what}": value for what, value in read().items()}
        self._points.append(point)

    def _energies(self) -> dict[str, float]:
        found = {}
        for name, read in self._devices.items():
            joules = read(energy=True).get("joules")
            if joules is not None:
                found[name] = joules
        return found


def _nvml_devices() -> dict[str, Callable[..., dict[str, float]]]:
    """By name, what reads an NVIDIA device; empty where there is none or nvidia-ml-py is not installed."""
    try:
        import pynvml

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except Exception:  # without package, driver or device there is nothing to record; `missing` says so
        return {}

    def reader(handle: Any) -> Callable[..., dict[str, float]]:
        def read(energy: bool = False) -> dict[str, float]:
            found: dict[str, float] = {}
            with suppress(pynvml.NVMLError):  # a figure that this device or driver does not give is left out
                if energy:
                    found["joules"] = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
                    return found
                found["bytes"] = pynvml.nvmlDeviceGetMemoryInfo(handle).used
                found["percent"] = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
                found["watts"] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
            return found

        return read

    return {f"gpu{number}": reader(pynvml.nvmlDeviceGetHandleByIndex(number)) for number in range(count)}
