"""The processor that kernels are compiled for, and what its vectors hold."""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm


@cache
def host() -> tuple[str, str]:
    """Its name and features as LLVM knows them: this one's, or those that numba is told (`NUMBA_CPU_NAME`,
    `NUMBA_CPU_FEATURES`)."""
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    return name or llvm.get_host_cpu_name(), features or llvm.get_host_cpu_features().flatten()


@cache
def features() -> frozenset[str]:
    """What it can."""
    return frozenset(flag[1:] for flag in host()[1].split(",") if flag.startswith("+"))


def has_pairs() -> bool:
    """Whether it multiplies pairs of numbers in bfloat16."""
    return "avx512bf16" in features()


VECTORS = 2
"""Vectors of outputs that are summed up side by side."""


class Registers(NamedTuple):
    """What its registers hold."""

    lanes: int
    """Floats in a vector."""
    rows: int
    """Rows whose sums stay in registers beside the weights."""

    @property
    def panel(self) -> int:
        """Outputs that are multiplied at once."""
        return VECTORS * self.lanes


class Level(NamedTuple):
    """A set of vector instructions."""

    name: str
    registers: Registers
    in_bytes: bool
    """Whether it multiplies bytes and adds up four of them at once."""
    looks_up: bool
    """Whether it looks numbers up in a vector."""
    has_tiles: bool = False
    """Whether it has matrix units for bfloat16 and for bytes, and rounds vectors to bfloat16."""


LEVELS = (
    Level("amx", Registers(16, 12), in_bytes=True, looks_up=True, has_tiles=True),
    Level("avx512-vnni", Registers(16, 12), in_bytes=True, looks_up=True),
    Level("avx512", Registers(16, 12), in_bytes=False, looks_up=True),
    Level("avx2-vnni", Registers(8, 6), in_bytes=True, looks_up=True),
    Level("avx2", Registers(8, 6), in_bytes=False, looks_up=True),
    Level("plain", Registers(4, 6), in_bytes=False, looks_up=False),
)
"""From the best one downwards. The last needs nothing."""
_AVX512_VNNI = {"avx512f", "avx512bw", "avx512vnni"}
_NEEDED = {
    "amx": {*_AVX512_VNNI, "avx512bf16", "amx-bf16", "amx-int8", "amx-tile"},
    "avx512-vnni": _AVX512_VNNI,
    "avx512": {"avx512f", "avx512bw"},
    "avx2-vnni": {"avx2", "fma", "avxvnni"},
    "avx2": {"avx2", "fma"},
    "plain": set[str](),
}


@cache
def has_tiles() -> bool:
    """Whether this processor has matrix units, and the system lets this process use them."""
    import torch

    try:
        return _NEEDED["amx"] <= features() and torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()
    except AttributeError:  # a torch that does not know of them
        return False


@cache
def levels() -> list[Level]:
    """Those that code can run with, the best first."""
    usable = [level for level in LEVELS if _NEEDED[level.name] <= features()]
    return [level for level in usable if not level.has_tiles or has_tiles()]


def registers() -> Registers | None:
    """None where products in single precision would not be worth it."""
    best = levels()[0]
    return None if best.name == "plain" else best.registers
