"""The kernels, in Triton, which every CUDA build of torch brings along.

Their modules import Triton and so are imported only by who has asked `why_not`. With `TRITON_INTERPRET=1` in the
environment before Triton's first import they run on the CPU, slowly: that is how they are tested without a GPU.
"""

from __future__ import annotations

from functools import cache

import torch

_OLDEST = (8, 0)
"""Compute capability from which on matrix units take bfloat16 and copies run beside the arithmetic."""


@cache
def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, as a sentence; None where they can."""
    try:
        import triton

        from batchchat.engines.cuda.kernels import decode, prefill, rows, write  # noqa: F401
    except Exception as error:  # a broken installation raises anything
        return f"Triton cannot be used: {type(error).__name__}: {error}."
    if triton.knobs.runtime.interpret:
        return None if device.type == "cpu" else f"Triton's interpreter is on, which computes on the CPU, not {device}."
    if device.type != "cuda":
        return f"Triton compiles for CUDA devices, and this is {device}."
    if torch.cuda.get_device_capability(device) < _OLDEST:
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0."
    return None
