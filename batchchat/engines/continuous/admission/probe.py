"""Prompts to try a model with, computed together over slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from batchchat.engines.continuous.base import Allocation
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.model_runner import ModelRunner


@dataclass(eq=False, slots=True)
class ProbePrompt:
    tokens: list[int]
    placed: Allocation


def prompts(vocabulary: int, lengths: Sequence[int]) -> list[list[int]]:
    """Token ids of prompts of these lengths, which differ where the lengths do."""
    return [[(length * 7919 + place * 104729) % vocabulary for place in range(length)] for length in lengths]


def logits(
    runner: ModelRunner,
    takes: Sequence[Sequence[int]],
    tokens: Sequence[list[int]],
    least: int = 1,
    batch_invariant: bool = False,
    offsets: Sequence[int] = (),
) -> list[torch.Tensor]:
    """Logits `[tokens, vocabulary]` of each prompt, computed in passes of at least `least` places. `takes` says pass by
    pass how many tokens of each prompt it computes; those behind are not computed. `offsets` are the model's
    numbers for the first position of each prompt, where that is not 0."""
    tried = []
    for ids in tokens:
        slot = runner.cache.place(ids, len(ids))
        assert slot is not None, "the cache is too small for the trial"
        tried.append(ProbePrompt(ids, slot))
    found: dict[int, list[torch.Tensor]] = {id(prompt): [] for prompt in tried}
    first = dict(zip(map(id, tried), offsets, strict=False))
    for counts in takes:
        spans = [
            Span(prompt, prompt.placed.computed, count, False)
            for prompt, count in zip(tried, counts, strict=True)
            if count
        ]
        num_tokens = sum(span.count for span in spans)
        work = runner.cache.lay_out(spans, runner.device, max(least, num_tokens), batch_invariant=batch_invariant)
        moved = [first.get(id(span.sequence), 0) for span in work.spans for _ in range(span.count)]
        work.position_ids[0, :num_tokens] += torch.tensor(moved, device=runner.device)
        computed = runner.forward(work, every=True)[:num_tokens].clone()
        for span, part in zip(work.spans, computed.split([span.count for span in work.spans]), strict=True):
            found[id(span.sequence)].append(part)
            runner.cache.advance(span.slot, span.end, 0)
    return [torch.cat(found[id(prompt)]) for prompt in tried]
