"""How many tokens the pages of an accelerator may hold: what is free after the weights and one trial pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from batchchat.chats import Request, Settings
from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.graphs import Record
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.continuous.paged.batch import Form
from batchchat.engines.continuous.paged.paged_cache import PagedCache
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE
from batchchat.engines.memory import free_bytes, is_out_of_memory, release_memory, unused_bytes
from batchchat.errors import EnvironmentFault
from batchchat.sampling import SamplerRows

_SHARE = 0.95
"""Of the free memory: what is freed is not always free in one piece."""
_PASSES = 1.5
"""Times what the trial pass took: attention over longer sequences takes more."""
_MOST = 1 << 24
"""Tokens beyond which more room is of no use."""


_SAMPLED = Request("", 0, 0, 0, (0,), Settings(max_new_tokens=1, temperature=1.0, top_p=0.9, repetition_penalty=1.1), 0)
"""A request whose choice takes as much memory as any."""


class Trial(NamedTuple):
    """What a run takes beside weights, keys and values."""

    pass_bytes: int
    """Of a pass of the largest size, and the choice of its tokens."""
    block_bytes: int
    """Of a block's keys and values in all layers."""
    recorded_bytes: int = 0
    """Of all recordings of steps."""


def peak_bytes(device: torch.device, run: Callable[[], None]) -> int:
    """What `run` allocates at most on an accelerator, beside what was allocated before."""
    torch.accelerator.reset_peak_memory_stats(device)
    before = torch.accelerator.memory_allocated(device)
    run()
    return int(torch.accelerator.max_memory_allocated(device) - before)


def try_largest(
    model: Any,
    places: int,
    rows: int,
    peak: Callable[[torch.device, Callable[[], None]], int] = peak_bytes,
) -> Trial:
    """Compute a pass of `places` tokens with `rows` logits, and choose a token from each. Raises EnvironmentFault where
    not even that fits."""
    cache, spans = _filled(model, places)
    runner = ModelRunner(model, cache)
    vocab_size = int(model.get_output_embeddings().weight.shape[0])

    def run() -> None:
        logits = runner.forward(cache.lay_out(spans, runner.device, num_logits=rows))
        SamplerRows.from_requests([_SAMPLED] * rows, vocab_size, runner.device).choose(logits.expand(rows, -1))

    with _fits(runner.device):
        most = peak(runner.device, run)
    pages = cache.pages
    return Trial(max(0, most - pages.num_blocks * pages.bytes_per_block), pages.bytes_per_block)


def _filled(model: Any, places: int) -> tuple[PagedCache, list[Span[probe.ProbePrompt]]]:
    """A cache with room for prompts of `places` tokens together, each no longer than the model has positions for; the
    last one's last token gets logits."""
    config = model.config.get_text_config()
    longest = min(places, getattr(config, "max_position_embeddings", None) or places)
    counts = [min(longest, places - begun) for begun in range(0, places, longest)]
    cache = PagedCache(budget=places + len(counts) * BLOCK_SIZE)
    spans = []
    for number, tokens in enumerate(probe.prompts(config.vocab_size, counts), start=1):
        table = cache.place(tokens, len(tokens))
        assert table is not None
        spans.append(Span(probe.ProbePrompt(tokens, table), 0, len(tokens), number == len(counts)))
    return cache, spans


def try_recording(
    model: Any,
    forms: Collection[Form],
    record: Record,
    batch_invariant: bool = False,
    free: Callable[[torch.device], int] = unused_bytes,
) -> int:
    """Bytes that recordings of such passes take together: two are made, of which the second stands for all others,
    which share the memory of the largest. 0 where none can be made."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    runner = ModelRunner(model, PagedCache(budget=BLOCK_SIZE, longest=longest))
    ordered = sorted(forms, key=lambda form: form.size, reverse=True)
    left = [free(runner.device)]

    def measured(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        replay = record(step)
        left.append(free(runner.device))
        return replay

    try:
        runner.record(measured, ordered[:2], batch_invariant)
    except Exception:  # the engine, which tries it again, says why
        return 0
    finally:
        runner.recordings = None
        release_memory()
    first, *others = (max(0, before - after) for before, after in pairwise(left)) if len(left) > 1 else (0,)
    return first + sum(others) * (len(ordered) - 1)


def page_tokens(trial: Trial, device: torch.device, free: Callable[[torch.device], int] = free_bytes) -> int:
    """Tokens in whole blocks. Raises EnvironmentFault where not even one block is left."""
    left = free(device)
    blocks = int(left * _SHARE - trial.pass_bytes * _PASSES - trial.recorded_bytes) // trial.block_bytes
    if blocks < 1:
        raise EnvironmentFault(
            f"{left / 1e9:.2f} GB are free on {device} beside the model's weights, too few for a pass of "
            f"{trial.pass_bytes / 1e9:.2f} GB, {trial.recorded_bytes / 1e9:.2f} GB of recorded steps, and keys and "
            "values; free the device, or set model.quantization=4bit"
        )
    return min(_MOST, blocks * BLOCK_SIZE)


@contextmanager
def _fits(device: torch.device) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release_memory()
        raise EnvironmentFault(
            f"too little memory is free on {device} beside the model's weights for one pass; free the device, lower "
            "engine.max_batch_rows, or set model.quantization=4bit"
        ) from error
