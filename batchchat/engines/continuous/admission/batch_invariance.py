"""Whether a token's numbers depend on how many others are computed with it. Where they do not, strict mode needs no
passes of fixed shape: any may be computed with any."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from batchchat.engines.continuous.acceleration import acceleration
from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.model_runner import ModelRunner

_CROWD = ((40, 1, 1), (7, 5, 1), (64, 30, 1), (1, 1, 1))
"""How many tokens of each of four prompts the passes of the trial take."""


def rows_are_independent(model: Any, sizes: Collection[int]) -> bool:
    """Whether the model, packed for the CPU, gives a token the same bits in passes of all these sizes (2 or more).

    The products of every shape that occurs are tried in every size, and a few prompts alone and together.
    """
    faster = acceleration(model.get_input_embeddings().weight.device)
    return faster is not None and faster.products_are_invariant(model, sizes) and _crowd_is_independent(model)


def _crowd_is_independent(model: Any) -> bool:
    together = _logits(model, range(len(_CROWD)))
    return all(torch.equal(_logits(model, [number])[0], together[number]) for number in range(len(_CROWD)))


def _logits(model: Any, chosen: Collection[int]) -> list[torch.Tensor]:
    """Logits `[tokens, vocabulary]` of the chosen ones of the trial's prompts, computed together."""
    taken = [_CROWD[number] for number in chosen]
    tokens = probe.prompts(model.config.get_text_config().vocab_size, [sum(counts) for counts in taken])
    runner = ModelRunner(model, KVCache(budget=4096))
    return probe.logits(runner, list(zip(*taken, strict=True)), tokens, least=2, batch_invariant=True)
