"""Compiles what the launchers of the Triton kernels ask for, ahead, for a GPU that is not there: a script.

It prints a line of JSON per compiled kernel: its name, what it was asked for, registers per thread, bytes of stack,
where they spill, and of shared memory. The kernels are launched as ever, but each launch ends when its code is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.continuous.paged.pages import new_pages
from batchchat.engines.cuda import layers, paged

CPU = torch.device("cpu")
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class AbsentDevice:
    """As much of a device as compiling asks for."""

    def __init__(self, capability: int):
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def attention(
    dtype: torch.dtype,
    dims: tuple[int, int] = (128, 128),
    heads: tuple[int, int] = (32, 8),
    block_size: int = 64,
    count: int = 1,
    kinds: tuple[str, ...] = ("decode", "prefill", "write"),
    window: int | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    batch_invariant: bool = False,
    rows: int = 3,
) -> None:
    """Launch all attention kernels once, as a model's layer would."""
    key_dim, (num_heads, kv_heads) = dims[0], heads
    tables = torch.zeros(rows, 16, dtype=torch.int32)
    keys, values = (new_pages(8, block_size, kv_heads, dim, dtype, CPU) for dim in dims)
    lengths = torch.full((rows,), 20, dtype=torch.int32)
    scores = torch.zeros(num_heads, dtype=dtype) if sinks else None
    query = torch.zeros(rows * count, num_heads, key_dim, dtype=dtype)
    seen, spec = Seen(keys, values, tables, lengths), AttentionSpec(0.1, window, softcap, scores)
    if "decode" in kinds:
        paged.decode(query, seen, spec, batch_invariant=batch_invariant)
    if "prefill" in kinds:
        starts = torch.arange(rows + 1, dtype=torch.int32) * count
        paged.prefill(query, seen, starts, spec)
    if "write" in kinds:
        key, value = (torch.zeros(len(query), kv_heads, dim, dtype=dtype) for dim in dims)
        slots = torch.zeros(len(query), dtype=torch.int64)
        for rotary in {key_dim // 4 * 2, key_dim}:
            for interleaved in (False, True):
                angles = torch.zeros(len(query), rotary // 2, dtype=dtype)
                paged.rotate_and_write(query, key, value, angles, angles, keys, values, slots, interleaved)
        paged.write(key, value, keys, values, slots)


def between(dtype: torch.dtype, size: int) -> None:
    """Launch the kernels that lie between attentions."""
    x = torch.zeros(4, size, dtype=dtype)
    for form in layers.FORMS:
        layers.rms_norm(x, x[0], 1e-6, form)
    layers.add_rms_norm(x, x, x[0], 1e-6)
    for gelu in (False, True):
        layers.gated(x, x, gelu)


HALF, SINGLE = torch.bfloat16, torch.float32

FEW: list[Callable[[], None]] = [
    lambda: attention(HALF),
    lambda: attention(
        HALF, (64, 64), (64, 8), 16, 2, ("decode", "prefill"), window=128, sinks=True, batch_invariant=True
    ),
    lambda: attention(HALF, (192, 128), (16, 16), 32, kinds=("decode", "prefill")),
    lambda: attention(torch.float16, (80, 80), (32, 32), 256, 4, ("decode",)),
    lambda: attention(SINGLE, (256, 256), (8, 4), 64, kinds=("decode", "prefill"), window=512, softcap=50.0),
    lambda: between(HALF, 4096),
]
"""Each feature, kind of numbers and branch of the kernels at least once."""


def _many() -> list[Callable[[], None]]:
    """Every size of head in every type, and what else models have."""

    def case(*args: Any, **named: Any) -> Callable[[], None]:
        return lambda: attention(*args, **named)

    cases = []
    for dtype in paged.DTYPES:
        for dim in (64, 80, 96, 128, 192, 256):
            cases += [case(dtype, (dim, dim), (32, 8)), case(dtype, (dim, dim), (14, 2), 16, 16, ("decode", "prefill"))]
        for size in (128, 1000, 4096, 16384, layers.LARGEST):
            cases.append(lambda dtype=dtype, size=size: between(dtype, size))
        cases.append(case(dtype, (256, 256), (16, 8), 32, 1, ("decode", "prefill"), 4096, 50.0))
        cases.append(case(dtype, (64, 64), (64, 8), 128, 1, ("decode", "prefill"), 128, None, True, True))
        cases.append(case(dtype, (192, 128), (128, 128), 256, 4, ("decode", "prefill")))
        cases.append(case(dtype, (128, 128), (64, 1), 64, 2, ("decode", "prefill")))
        cases.append(case(dtype, rows=128, batch_invariant=True, kinds=("decode",)))
        cases.append(case(dtype, rows=300, kinds=("decode",)))
    return cases


def usage(cubin: bytes) -> dict[str, int]:
    """What the assembler says about compiled code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [_TOOLS / "cuobjdump", "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    (line,) = (line for line in done.stdout.splitlines() if "REG:" in line)
    found = dict(part.split(":", 1) for part in line.split() if ":" in part)
    return {"registers": int(found["REG"]), "stack": int(found["STACK"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--all", action="store_true", help="every size and type, which takes minutes")
    options = parser.parse_args()
    driver.set_active(AbsentDevice(options.capability))
    launch, seen = JITFunction.run, set()

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **named)
        if kernel.hash not in seen:
            seen.add(kernel.hash)
            asked = {name: value for name, value in named.items() if isinstance(value, bool | int)}
            pointers = [arg for arg in args if isinstance(arg, torch.Tensor)]
            line = {"kernel": self.fn.__name__, "dtype": str(pointers[0].dtype), "asked": asked}
            print(json.dumps({**line, **usage(kernel.asm["cubin"]), "shared": kernel.metadata.shared}), flush=True)
        return kernel

    JITFunction.run = compile_only
    for case in _many() if options.all else FEW:
        case()


if __name__ == "__main__":
    main()
