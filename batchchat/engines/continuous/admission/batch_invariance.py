"""Whether a token's numbers depend on how many others are computed with it. Where they do not, strict mode needs no
passes of fixed shape: any may be computed with any."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.cpu.kernels import compiled
from batchchat.engines.cpu.packing import is_packed, product_of, product_shapes

_CROWD = ((40, 1, 1), (7, 5, 1), (64, 30, 1), (1, 1, 1))
"""How many tokens of each of four prompts the passes of the trial take."""


def rows_are_independent(model: Any, sizes: Collection[int]) -> bool:
    """Whether the model, packed for the CPU, gives a token the same bits in passes of all these sizes (2 or more).

    The products of every shape that occurs are tried in every size, and a few prompts alone and together.
    """
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    if not compiled() or not linears or not all(map(is_packed, linears)):
        return False
    alike = all(_product_is_independent(*shape, sizes) for shape in product_shapes(model))
    return alike and _crowd_is_independent(model)


@torch.inference_mode()
def _product_is_independent(width: int, outputs: int, dtype: torch.dtype, sizes: Collection[int]) -> bool:
    """Sums that cancel out leave nothing but rounding, which shows in what order they were summed."""
    generator = torch.Generator().manual_seed(width)
    half = torch.randn(outputs, width // 2, generator=generator)
    order = torch.randperm(width // 2, generator=generator)
    weight = torch.cat((half, -half[:, order], torch.zeros(outputs, width % 2)), dim=1).to(dtype)
    start = torch.randn(max(sizes), width // 2, generator=generator)
    rows = torch.cat((start, start[:, order], torch.zeros(len(start), width % 2)), dim=1).to(dtype)[None]
    product = product_of(weight)
    whole = product(rows)
    return all(torch.equal(product(rows[:, :size]), whole[:, :size]) for size in sizes)


def _crowd_is_independent(model: Any) -> bool:
    together = _logits(model, range(len(_CROWD)))
    return all(torch.equal(_logits(model, [number])[0], together[number]) for number in range(len(_CROWD)))


def _logits(model: Any, chosen: Collection[int]) -> list[torch.Tensor]:
    """Logits `[tokens, vocabulary]` of the chosen ones of the trial's prompts, computed together."""
    taken = [_CROWD[number] for number in chosen]
    tokens = probe.prompts(model.config.get_text_config().vocab_size, [sum(counts) for counts in taken])
    runner = ModelRunner(model, KVCache(budget=4096))
    return probe.logits(runner, list(zip(*taken, strict=True)), tokens, least=2, exact=True)
