"""How flags of `GenerationConfig` reach `generate` when the row-wise sampler chooses the tokens.

They are of three kinds:

- those that only say how the model computes (`use_cache`, …): rows with any settings share a batch;
- those that change logits or cut what is sampled from: they become `processors` and warps of our sampler, in the order
  of `generate`;
- those with which a row is not one sequence that grows token by token (`num_beams`, prompt lookup and other
  speculation): the whole call is handed over to `generate`, its settings as arguments, our sampler left out. Sampled
  rows then run alone, with torch's generator seeded by the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from transformers import CompileConfig

from batchchat.chats import Request, Settings
from batchchat.engines.pipeline.processors import ROW_SETTINGS, sequence_bias
from batchchat.recipe.flags import speculates, thaw_flags

_COMPUTING = frozenset(
    (
        "use_cache",
        "cache_implementation",
        "cache_config",
        "max_cache_len",
        "prefill_chunk_size",
        "compile_config",
        "disable_compile",
    )
)
_ROW_ONLY = ("presence_penalty", "frequency_penalty", "logprobs", "structured")
"""Settings that only our sampler knows."""


def call_groups(batch: Sequence[Request], drafts: bool = False) -> list[list[Request]]:
    """The requests of one batch, which have the same flags, as those that may share one call of `generate`.
    `drafts`: a draft speculates for rows that allow it.

    Flags other than computing ones apply to a whole call: its rows have equal settings. They may read the padding as
    part of the prompt too, so these rows also have equal prompt lengths.
    """
    if drafts:
        alone = [request for request in batch if takes_drafts(request.settings)]
        others = [request for request in batch if not takes_drafts(request.settings)]
        return [*([request] for request in alone), *(call_groups(others) if others else [])]
    flags = dict(batch[0].settings.flags)
    if _COMPUTING.issuperset(flags):
        return [list(batch)]
    settings = batch[0].settings
    if is_handed_over(settings) and (settings.temperature > 0 or speculates(flags)):
        return [[request] for request in batch]

    def key(request: Request) -> tuple[int, str]:
        return len(request.prompt_ids), repr(request.settings)

    return [list(group) for _, group in groupby(sorted(batch, key=key), key)]


def is_handed_over(settings: Settings) -> bool:
    """Whether `generate` chooses the tokens, because a row is more than one growing sequence."""
    flags = dict(settings.flags)
    return flags.get("num_beams", 1) > 1 or speculates(flags)


def takes_drafts(settings: Settings) -> bool:
    """Whether a row can be handed over to `generate` with a draft."""
    return not any(getattr(settings, name) for name in _ROW_ONLY) and _COMPUTING.issuperset(dict(settings.flags))


def generate_arguments(settings: Settings) -> dict[str, Any]:
    """Arguments for a call in which our sampler chooses: the flags that say how the model computes."""
    return {name: value for name, value in _arguments(settings).items() if name in _COMPUTING}


def changes_logits(settings: Settings) -> bool:
    """Whether flags change what the sampler chooses from."""
    return not _COMPUTING.issuperset(dict(settings.flags))


def without_processed(request: Request) -> Request:
    """The request as the sampler gets it where `processors` apply some of its settings."""
    return replace(request, settings=replace(request.settings, **ROW_SETTINGS))


def handed_over_arguments(settings: Settings, tokenizer: Any) -> dict[str, Any]:
    """Arguments for a call that is handed over: settings and flags. Raises ValueError for those that do not combine."""
    unknown = [name for name in _ROW_ONLY if getattr(settings, name)]
    if unknown:
        raise ValueError(f"{unknown[0]} cannot be combined with beam search or speculation; leave one of them out")
    values: dict[str, Any] = {"min_new_tokens": settings.min_new_tokens or None, "do_sample": settings.temperature > 0}
    if settings.temperature > 0:
        cuts = {"top_k": settings.top_k, "top_p": settings.top_p, "min_p": settings.min_p or None}
        values |= {"temperature": settings.temperature, **cuts}
    if settings.repetition_penalty != 1.0:
        values["repetition_penalty"] = settings.repetition_penalty
    if settings.bad_words:
        values["bad_words_ids"] = [list(word) for word in settings.bad_words]
    if settings.stop:
        values |= {"stop_strings": list(settings.stop), "tokenizer": tokenizer}
    if settings.stop_token_ids:
        values["eos_token_id"] = list(settings.stop_token_ids)
    values |= _arguments(settings)
    if biases := sequence_bias(settings):
        values["sequence_bias"] = biases
    return values


def _arguments(settings: Settings) -> dict[str, Any]:
    flags = thaw_flags(settings.flags)
    if isinstance(flags.get("compile_config"), dict):
        flags["compile_config"] = CompileConfig(**flags["compile_config"])
    return flags
