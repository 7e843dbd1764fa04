"""Memory: how much of it an accelerator has left, what is known to fit, and what happens where it runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

from batchchat.chats import Request

if TYPE_CHECKING:
    import torch


class Budget:
    """Token places (rows x longest row) that a batch may have.

    It starts without a limit and is halved by each batch that does not fit, for the rest of the run: later batches are
    planned within it instead of failing again. `on_change` hears of a new limit, so that a resumed run starts with it.
    """

    def __init__(self, tokens: int | None = None, on_change: Callable[[int], None] | None = None):
        self.tokens = tokens
        """The limit; None as long as everything fitted."""
        self._on_change = on_change

    def within(self, most: int) -> int:
        """`most` token places, or fewer where fewer fit."""
        return most if self.tokens is None else min(most, self.tokens)

    def did_not_fit(self, tokens: int) -> None:
        """A batch of several rows and `tokens` token places ran out of memory: half of that is the new limit."""
        learned = max(1, tokens // 2)
        if self.tokens is None or learned < self.tokens:
            self.tokens = learned
            if self._on_change is not None:
                self._on_change(learned)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or (which torch tells in words only) on the CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def release_memory() -> None:
    """Give back what a computation that failed held."""
    import torch

    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def unused_bytes(device: torch.device) -> int:
    """What no one uses of an accelerator's memory, torch included."""
    import torch

    return int(torch.accelerator.get_memory_info(device)[0])


def free_bytes(device: torch.device) -> int:
    """What an accelerator has left, memory that torch holds and does not use included."""
    import torch

    held = torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return unused_bytes(device) + int(held)


def too_large(request: Request) -> str:
    """Why a request is an error that ran out of memory alone."""
    return (
        f"its {len(request.prompt_ids)} prompt tokens and up to {request.settings.max_new_tokens} new ones do not fit "
        "into memory, even alone; lower generation.max_new_tokens, or load a smaller model with model.quantization=4bit"
    )
