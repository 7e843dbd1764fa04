"""How many tokens the pages of an accelerator may hold: what is free after the weights and one trial pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.continuous.paged.paged_cache import PagedCache
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE
from batchchat.engines.memory import free_bytes
from batchchat.errors import EnvironmentFault

_SHARE = 0.95
"""Of the free memory: what is freed is not always free in one piece."""
_PASSES = 1.5
"""Times what the trial pass took: attention over longer sequences takes more."""
_MOST = 1 << 24
"""Tokens beyond which more room is of no use."""


class Trial(NamedTuple):
    """What a pass of the largest size takes."""

    pass_bytes: int
    """Beside weights, keys and values."""
    block_bytes: int
    """Of a block's keys and values in all layers."""


def peak_bytes(device: torch.device, run: Callable[[], None]) -> int:
    """What `run` allocates at most on an accelerator, beside what was allocated before."""
    torch.accelerator.reset_peak_memory_stats(device)
    before = torch.accelerator.memory_allocated(device)
    run()
    return int(torch.accelerator.max_memory_allocated(device) - before)


def try_largest(
    model: Any, places: int, rows: int, peak: Callable[[torch.device, Callable[[], None]], int] = peak_bytes
) -> Trial:
    """Compute a pass of `places` tokens with `rows` logits."""
    (tokens,) = probe.prompts(model.config.get_text_config().vocab_size, [places])
    cache = PagedCache(budget=places + BLOCK_SIZE)
    runner = ModelRunner(model, cache)
    table = cache.place(tokens, places)
    assert table is not None

    def run() -> None:
        span = Span(probe.ProbePrompt(tokens, table), 0, places, True)
        runner.forward(cache.lay_out([span], runner.device, num_logits=rows))

    most = peak(runner.device, run)
    return Trial(max(0, most - cache.pages.num_blocks * cache.pages.bytes_per_block), cache.pages.bytes_per_block)


def page_tokens(trial: Trial, device: torch.device, free: Callable[[torch.device], int] = free_bytes) -> int:
    """Tokens in whole blocks. Raises EnvironmentFault where not even one block is left."""
    left = free(device)
    blocks = int(left * _SHARE - trial.pass_bytes * _PASSES) // trial.block_bytes
    if blocks < 1:
        raise EnvironmentFault(
            f"{left / 1e9:.2f} GB are free on {device} beside the model's weights, too few for a pass of "
            f"{trial.pass_bytes / 1e9:.2f} GB and its keys and values; free the device, or set model.quantization=4bit"
        )
    return min(_MOST, blocks * BLOCK_SIZE)
