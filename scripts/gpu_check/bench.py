"""What parts compute on: a device, models of real shapes or toys in their place, and a meter that remembers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from batchchat.benchmarks.contenders import Silent

TOY: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 8000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}

T = TypeVar("T")


class Noted(Silent):
    """A meter that tells the time and keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def event(self, name: str, detail: str) -> None:
        self.events.append((name, detail))

    def count(self, name: str) -> int:
        return sum(known == name for known, _ in self.events)


@dataclass(frozen=True)
class Bench:
    """`toy`: the same at sizes that a CPU computes in moments."""

    device: str
    toy: bool = False

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def dtype(self) -> str:
        """The number type that models are measured in."""
        return "bfloat16" if self.on_gpu else "float32"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Those that results are tried in; the interpreter of Triton multiplies narrow ones wrongly."""
        return ("float32", "bfloat16") if self.on_gpu else ("float32",)

    def pick(self, real: T, toy: T) -> T:
        return toy if self.toy else real

    def shape(self, name: str, dtype: str | None = None) -> tuple[Any, Any]:
        """Model and codec of a shape with random weights, made on the device."""
        from batchchat.benchmarks.shapes import SHAPES
        from batchchat.benchmarks.worker import load

        if self.toy:
            SHAPES["toy"] = TOY
        return load(self.pick(name, "toy"), dtype or self.dtype)


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes, with what is queued on the device waited for before and after."""
    from batchchat.reporting.meters import synchronize

    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - began
