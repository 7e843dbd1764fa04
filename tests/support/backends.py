"""Backends of a device that is the CPU: some that fail in one way each, and last torch's operators."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from batchchat.engines.continuous.paged import attention as plain
from batchchat.engines.cuda.backend import Candidate, LayerKind

__all__ = ["LayerKind", "candidates", "offered"]


def _raises(*_: Any, **__: Any) -> Any:
    raise RuntimeError("ptxas\nfatal : Unsupported .version")


def _shifted(*tensors: Any, **settings: Any) -> torch.Tensor:
    return plain.decode(*tensors, **settings) + 0.2


def _not_numbers(*tensors: Any, **settings: Any) -> torch.Tensor:
    return plain.prefill(*tensors, **settings) * torch.nan


def _elsewhere(key: Any, value: Any, keys: Any, values: Any, slots: Any) -> None:
    plain.write(key, value, keys, values, slots.flip(0))


def _unlike(**other: Any) -> Any:
    return SimpleNamespace(**{"write": plain.write, "decode": plain.decode, "prefill": plain.prefill, **other})


KINDS = {
    "missing": (_unlike(), "Triton cannot be used: ModuleNotFoundError: No module named 'triton'."),
    "not compiled": (_unlike(decode=_raises), None),
    "wrong numbers": (_unlike(decode=_shifted), None),
    "no numbers": (_unlike(prefill=_not_numbers), None),
    "wrong places": (_unlike(write=_elsewhere), None),
    "right": (_unlike(), None),
}
offered: list[str] = []
"""Those that there are, in this order."""


def candidates(kind: LayerKind) -> Iterator[Candidate]:
    for name in offered:
        backend, why_not = KINDS[name]
        yield Candidate(name, backend, why_not)
    yield Candidate("gathered", _unlike(), None)
