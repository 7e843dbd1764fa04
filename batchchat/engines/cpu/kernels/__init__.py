"""What torch has no good operator for on the CPU, compiled by numba where that is installed (the extra `cpu`).

Everything here has a form in torch's operators, which is taken where numba or torch's OpenMP runtime is not there.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch


@cache
def compiled() -> bool:
    """Whether kernels can be compiled here."""
    if find_spec("numba") is None:
        return False
    try:
        from batchchat.engines.cpu.kernels import ops

        ops.add_kernel(torch.float32)
    except ImportError:
        return False
    return True


@cache
def programmable() -> bool:
    """Whether whole passes can be run by compiled code here."""
    from batchchat.engines.cpu.kernels import c_functions

    if not compiled() or not c_functions.are_trusted():
        return False
    try:
        import batchchat.engines.cpu.kernels.loop  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def tiled() -> bool:
    """Whether products can be computed by tiles here."""
    if not compiled():
        return False
    from batchchat.engines.cpu.kernels import processor

    return processor.has_tiles()


@cache
def widens(dtype: torch.dtype) -> bool:
    """Whether kernels multiply weights of a type in single precision here, reading them as they are."""
    if not compiled():
        return False
    from batchchat.engines.cpu.kernels import ops, processor

    return dtype in ops.STORED and processor.registers() is not None


def attends(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None) -> bool:
    """Whether a kernel does this attention."""
    tensors = [query, key, value, *([] if sinks is None else [sinks])]
    one_kind = {(tensor.device.type, tensor.dtype) for tensor in tensors}
    if len(one_kind) != 1 or not compiled():
        return False
    from batchchat.engines.cpu.kernels import ops

    ((place, dtype),) = one_kind
    return place == "cpu" and dtype in ops.STORED
