"""Whether a token's numbers depend on how many others are computed with it, or on its place among them. Where they do
not, strict mode needs no passes of fixed size, or may let tokens share those that it has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from batchchat.engines.continuous.acceleration import acceleration
from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.admission.cancelling import cancelling, same_at_any_place, same_at_any_size
from batchchat.engines.continuous.caches import make_cache
from batchchat.engines.continuous.model_runner import PROGRAMS, ModelRunner

_CROWD = ((40, 1, 1), (7, 5, 1), (64, 30, 1), (1, 1, 1))
"""How many tokens of each of four prompts the passes of the trial take."""
_WRITING = ((1, 1, 1),) * 5
"""The same of prompts whose tokens come one by one."""


def rows_are_independent(model: Any, sizes: Collection[int]) -> bool:
    """Whether the model gives a token the same bits in passes of all these sizes (2 or more): on a CPU once it is
    packed.

    The products of every shape that occurs are tried in every size, and a few prompts alone and together.
    """
    device = _device(model)
    if device.type == "cpu":
        faster = acceleration(device)
        products = faster is not None and faster.products_are_invariant(model, sizes)
    else:
        products = all(
            same_at_any_size(product, rows, sizes) and same_at_any_place(product, rows, max(sizes))
            for product, rows in _products(model, max(sizes))
        )
    return products and _crowd_is_independent(model, _CROWD, 2)


def passes_can_be_shared(model: Any, rows: int, places: int) -> bool:
    """Whether the model gives a token the same bits wherever it stands, and with whomever, in passes of `rows` rows
    that write and in passes of `places` tokens of prompts. Tried alike."""
    sizes = {rows, places}
    products = all(
        same_at_any_place(product, numbers, size) for product, numbers in _products(model, max(sizes)) for size in sizes
    )
    return products and _crowd_is_independent(model, _CROWD, places) and _crowd_is_independent(model, _WRITING, rows)


@torch.inference_mode()
def _products(model: Any, most: int) -> Iterator[tuple[partial[torch.Tensor], torch.Tensor]]:
    """A linear layer of each shape that occurs, and `most` rows for it."""
    program = PROGRAMS.get(model)
    if program is None:
        plain = [module.weight for module in model.modules() if type(module) is nn.Linear]
    else:
        plain = [*program.weights(), model.get_output_embeddings().weight]
    for (outputs, width), dtype, device in dict.fromkeys((tuple(w.shape), w.dtype, w.device) for w in plain):
        weight, rows = cancelling(width, outputs, most, dtype, device)
        yield partial(functional.linear, weight=weight), rows


def _crowd_is_independent(model: Any, crowd: tuple[tuple[int, ...], ...], least: int) -> bool:
    together = _logits(model, crowd, least)
    return all(
        torch.equal(_logits(model, [taken], least)[0], found) for taken, found in zip(crowd, together, strict=True)
    )


def _logits(model: Any, taken: Collection[tuple[int, ...]], least: int) -> list[torch.Tensor]:
    """Logits `[tokens, vocabulary]` of some of the trial's prompts, computed together in passes of `least` places."""
    tokens = probe.prompts(model.config.get_text_config().vocab_size, [sum(counts) for counts in taken])
    runner = ModelRunner(model, make_cache("auto", _device(model), 4096))
    return probe.logits(runner, list(zip(*taken, strict=True)), tokens, least=least, batch_invariant=True)


def _device(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    return device
