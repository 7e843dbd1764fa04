"""Accelerators: why one cannot be used, and what there is to say of those that are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from batchchat.errors import EnvironmentFault

if TYPE_CHECKING:
    import torch

_NONE_THERE = ("no nvidia driver", "no cuda gpus are available")
"""What torch says on a machine without a device for CUDA, or where the user hides them all."""
_OLD_DRIVER = (
    "the NVIDIA driver is older than the CUDA that torch was built for; update the driver, install a torch built for "
    "its CUDA, or set model.device_map=cpu"
)
_FAULTS = {
    "busy or unavailable": "the device is taken by another process, which has it for itself; end that process, or "
    "choose another device with model.device_map=cuda:1 or CUDA_VISIBLE_DEVICES",
    "driver on your system is too old": _OLD_DRIVER,
    "driver version is insufficient": _OLD_DRIVER,
    "no kernel image": "this torch was not built for this kind of device; install one that was, or set "
    "model.device_map=cpu",
    "invalid device ordinal": "there is no device of this number; set model.device_map=auto",
}
"""Words of CUDA's to what they mean, and what to do."""


class Device(NamedTuple):
    """What kind of device a model lies on."""

    name: str
    capability: tuple[int, int]


def cuda_fault(it: str, words: str) -> EnvironmentFault | None:
    """What an error of CUDA's means for `it`, which was to be loaded; None for the words of any other error."""
    said = next((sentence for part, sentence in _FAULTS.items() if part in words.lower()), None)
    if said is None and "CUDA error" not in words:
        return None
    return EnvironmentFault(
        f"{it} cannot be loaded: {said or f'the device fails ({words[:200]}); choose another one, or restart it'}"
    )


def require_usable_cuda(it: str) -> None:
    """Raises EnvironmentFault where there is a device for CUDA that cannot be used, as with an old driver: nobody
    wants to wait for a CPU instead."""
    import torch

    if torch.version.cuda is None or torch.cuda.is_available():
        return
    try:
        torch.cuda.init()
    except Exception as error:  # torch's own, whose kind depends on what is wrong
        words = " ".join(str(error).split())
        if any(part in words.lower() for part in _NONE_THERE):
            return
        raise cuda_fault(it, words) or EnvironmentFault(
            f"{it} cannot be loaded: the CUDA device of this machine cannot be used ({words[:200]}); set "
            "model.device_map=cpu to compute without it"
        ) from error


def cuda_device(device: torch.device) -> Device:
    import torch

    return Device(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


def remarks(model: Any, kind: Callable[[torch.device], Device] = cuda_device) -> Iterator[tuple[str, str]]:
    """What there is to say of the devices that a loaded model lies on: the event's name, and a sentence."""
    import torch

    places = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    devices = {kind(place) for place in places}
    for device in sorted(devices):
        if model.dtype == torch.bfloat16 and device.capability < (8, 0):
            yield (
                "slow_dtype",
                f"{device.name} has no units for bfloat16, in which the model is loaded, and takes many times as long; "
                "set model.dtype=float16, or float32 where that overflows",
            )
    if len(devices) > 1:
        names = " and ".join(sorted(device.name for device in devices))
        yield (
            "unlike_devices",
            f"the model lies on {names}: a step takes as long as on the slowest of them; set model.device_map=cuda:0 "
            "to use one alone, or choose like ones with CUDA_VISIBLE_DEVICES",
        )
