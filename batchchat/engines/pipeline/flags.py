"""How flags of `GenerationConfig` reach `generate` when the row-wise sampler chooses the tokens.

Most flags make logits processors, which run before the sampler and need nothing here. Others are of four kinds:

- those that only say how the model computes (`use_cache`, …): rows with any settings share a batch;
- cuts that `generate` makes when it samples itself (`typical_p`, `epsilon_cutoff`, `eta_cutoff`, `top_h`): they become
  a warp of our sampler, after temperature and before top-k, top-p and min-p;
- `watermarking_config`, which `generate` applies last of all, where one chosen token is left: it runs before the
  sampler;
- those with which a row is not one sequence that grows token by token (`num_beams`, prompt lookup and other
  speculation): the whole call is handed over to `generate`, its settings as arguments, our sampler left out. Sampled
  rows then run alone, with torch's generator seeded by the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import (
    CompileConfig,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessor,
    LogitsProcessorList,
    TopHLogitsWarper,
    TypicalLogitsWarper,
    WatermarkingConfig,
)

from batchchat.chats import Request, Settings
from batchchat.recipe.flags import thaw_flags

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
_WARPS: Mapping[str, Callable[[float], LogitsProcessor]] = {
    "top_h": TopHLogitsWarper,
    "typical_p": TypicalLogitsWarper,
    "epsilon_cutoff": EpsilonLogitsWarper,
    "eta_cutoff": EtaLogitsWarper,
}
_OFF = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
_SPECULATING = ("prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
_ROW_ONLY = ("presence_penalty", "frequency_penalty", "logprobs")
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
    if is_handed_over(settings) and (settings.temperature > 0 or _speculates(flags)):
        return [[request] for request in batch]

    def key(request: Request) -> tuple[int, str]:
        return len(request.prompt_ids), repr(request.settings)

    return [list(group) for _, group in groupby(sorted(batch, key=key), key)]


def is_handed_over(settings: Settings) -> bool:
    """Whether `generate` chooses the tokens, because a row is more than one growing sequence."""
    flags = dict(settings.flags)
    return flags.get("num_beams", 1) > 1 or _speculates(flags)


def takes_drafts(settings: Settings) -> bool:
    """Whether a row can be handed over to `generate` with a draft."""
    return not any(getattr(settings, name) for name in _ROW_ONLY) and _COMPUTING.issuperset(dict(settings.flags))


def generate_arguments(settings: Settings) -> dict[str, Any]:
    """Arguments for a call in which our sampler chooses: the flags that `generate` applies. Raises ValueError for
    flags that cannot be used with chats."""
    flags = _arguments(settings)
    if _COMPUTING.issuperset(flags):
        return flags
    inside = {*_WARPS, "watermarking_config"}
    return {name: value for name, value in flags.items() if name not in inside} | _end_ids(settings)


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
    if settings.logit_bias:
        values["sequence_bias"] = [[[token], bias] for token, bias in settings.logit_bias]
    if settings.stop:
        values |= {"stop_strings": list(settings.stop), "tokenizer": tokenizer}
    flags = _arguments(settings)
    if "sequence_bias" in flags and "sequence_bias" in values:
        flags["sequence_bias"] = [*values["sequence_bias"], *flags["sequence_bias"]]
    return values | _end_ids(settings) | flags


def warp(settings: Settings) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The cuts that sampled rows get from flags; None without such."""
    flags = dict(settings.flags)
    warps = [make(flags[name]) for name, make in _WARPS.items() if flags.get(name, _OFF.get(name)) != _OFF.get(name)]
    if not warps:
        return None
    chain = LogitsProcessorList(warps)
    none = torch.empty(0, dtype=torch.long)  # these processors read scores only
    return lambda logits: chain(none, logits)


def watermark(settings: Settings, vocab_size: int, device: torch.device) -> list[LogitsProcessor]:
    """The processor of `watermarking_config`, to run before the sampler."""
    config = thaw_flags(settings.flags).get("watermarking_config")
    return [] if config is None else [WatermarkingConfig(**config).construct_processor(vocab_size, device)]


def _arguments(settings: Settings) -> dict[str, Any]:
    flags = thaw_flags(settings.flags)
    if isinstance(flags.get("compile_config"), dict):
        flags["compile_config"] = CompileConfig(**flags["compile_config"])
    return flags


def _end_ids(settings: Settings) -> dict[str, Any]:
    return {"eos_token_id": list(settings.stop_token_ids)} if settings.stop_token_ids else {}


def _speculates(flags: Mapping[str, Any]) -> bool:
    return any(flags.get(name) for name in _SPECULATING)
