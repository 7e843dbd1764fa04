"""The logits processors and warpers of `generate`, in its order, for rows that set further flags.

They run before our sampler chooses, so that a row with flags gets what `generate` would give it, and the model's own
logits stay at hand for log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TopHLogitsWarper,
    TypicalLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
    WatermarkingConfig,
)

from batchchat.chats import Settings
from batchchat.prompts.token_texts import TokenTexts
from batchchat.recipe.flags import thaw_flags
from batchchat.sampling import Warps

ROW_SETTINGS: Mapping[str, Any] = {"logit_bias": (), "repetition_penalty": 1.0, "min_new_tokens": 0, "bad_words": ()}
"""Settings of the sampler that `processors` applies in its place, with the values that switch them off there."""


def processors(settings: Settings, model: Any, prompts: torch.Tensor) -> LogitsProcessorList:
    """What comes before sampling, for rows with these settings whose prompts [rows, tokens] have one length."""
    flags = thaw_flags(settings.flags)
    width = prompts.shape[-1]
    ends = list(settings.stop_token_ids)
    device = prompts.device
    made: list[LogitsProcessor] = []

    def add(value: Any, make: Callable[[Any], LogitsProcessor]) -> None:
        if value:
            made.append(make(value))

    guided = partial(
        UnbatchedClassifierFreeGuidanceLogitsProcessor, model=model, use_cache=flags.get("use_cache", True)
    )
    add(flags.get("guidance_scale"), guided)
    add(sequence_bias(settings), SequenceBiasLogitsProcessor)
    add(
        flags.get("encoder_repetition_penalty"),
        lambda value: EncoderRepetitionPenaltyLogitsProcessor(value, encoder_input_ids=prompts),
    )
    add(settings.repetition_penalty != 1.0 and settings.repetition_penalty, RepetitionPenaltyLogitsProcessor)
    add(flags.get("no_repeat_ngram_size"), NoRepeatNGramLogitsProcessor)
    add(
        flags.get("encoder_no_repeat_ngram_size"),
        lambda value: EncoderNoRepeatNGramLogitsProcessor(value, encoder_input_ids=prompts),
    )
    add([list(word) for word in settings.bad_words], partial(NoBadWordsLogitsProcessor, eos_token_id=ends or None))
    add(
        ends and settings.min_new_tokens,
        lambda value: MinNewTokensLengthLogitsProcessor(width, value, ends, device=str(device)),
    )
    add(flags.get("forced_bos_token_id"), ForcedBOSTokenLogitsProcessor)
    add(
        flags.get("forced_eos_token_id"),
        lambda value: ForcedEOSTokenLogitsProcessor(width + settings.max_new_tokens, value, device=str(device)),
    )
    add(flags.get("remove_invalid_values"), lambda _: InfNanRemoveLogitsProcessor())
    add(
        ends and flags.get("exponential_decay_length_penalty"),
        lambda value: ExponentialDecayLengthPenalty(tuple(value), torch.tensor(ends, device=device), width),
    )
    add(flags.get("suppress_tokens"), partial(SuppressTokensLogitsProcessor, device=str(device)))
    add(
        flags.get("begin_suppress_tokens"),
        lambda value: SuppressTokensAtBeginLogitsProcessor(value, width, device=str(device)),
    )
    if settings.temperature == 0:
        made += _watermark(flags, model)
    return LogitsProcessorList(made)


def warps(settings: Settings, model: Any) -> Warps:
    """What comes between temperature and draw besides the sampler's own cuts."""
    flags = thaw_flags(settings.flags)
    before = [TopHLogitsWarper(flags["top_h"])] if "top_h" in flags else []
    after: list[LogitsProcessor] = []
    if "typical_p" in flags:
        after.append(TypicalLogitsWarper(flags["typical_p"]))
    if "epsilon_cutoff" in flags:
        after.append(EpsilonLogitsWarper(flags["epsilon_cutoff"]))
    if "eta_cutoff" in flags:
        after.append(EtaLogitsWarper(flags["eta_cutoff"], device=str(model.device)))
    after += _watermark(flags, model)
    return Warps(
        LogitsProcessorList(before) if before else None,
        LogitsProcessorList(after) if after else None,
    )


def sequence_bias(settings: Settings) -> list[list[Any]]:
    """Biases of single tokens and of sequences as one list: those of the same tokens add up."""
    total: dict[tuple[int, ...], float] = {(token,): bias for token, bias in settings.logit_bias}
    for tokens, bias in thaw_flags(settings.flags).get("sequence_bias") or ():
        total[tuple(tokens)] = total.get(tuple(tokens), 0.0) + bias
    return [[list(tokens), bias] for tokens, bias in total.items()]


class BannedTexts(LogitsProcessor):
    """Keeps texts out of answers that `generate` chooses itself. It remembers nothing, as beams change places."""

    def __init__(self, settings: Settings, tokens: TokenTexts, width: int):
        """`width`: tokens of the prompt."""
        self._words = [text.encode("utf-8", "surrogatepass") for text in settings.bad_texts]
        self._tokens = tokens
        self._width = width
        held = {token for word in self._words for token in tokens.holding(word)}
        self._held = held.difference(settings.stop_token_ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [rows, vocabulary] with -inf at each token that would complete a text."""
        scores = scores.clone()
        for row, ids in enumerate(input_ids[:, self._width :].tolist()):
            tail = self._tokens.joined(ids)
            banned = self._held.union(*(self._tokens.completing(word, tail) for word in self._words))
            scores[row, [token for token in banned if token < scores.shape[-1]]] = -torch.inf
        return scores


def _watermark(flags: Mapping[str, Any], model: Any) -> list[LogitsProcessor]:
    """`generate` marks last of all, what is left after all cuts."""
    config = flags.get("watermarking_config")
    if config is None:
        return []
    return [WatermarkingConfig(**config).construct_processor(model.config.get_text_config().vocab_size, model.device)]
