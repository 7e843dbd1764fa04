"""Flags of transformers' `GenerationConfig` that pass through to `generate` as they are.

Every flag of the installed version is either a field of `GenerationFlags`, a field of `RowSettings`, or named in
`REPLACED_FLAGS` with what to write instead; a test compares the three with `GenerationConfig` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from batchchat.recipe.section import AsTuple, Section, TokenId, TokenIds

TokenBiases = Annotated[tuple[Annotated[tuple[TokenIds, float], AsTuple], ...], AsTuple]
"""Pairs of a token sequence and its bias."""


class GenerationFlags(Section):
    """Further flags of `generate`. A row that sets one shares a batch only with rows that set the same ones."""

    num_beams: int | None = Field(
        default=None, ge=1, description="Width of the beam search; 1 is no beam search.", examples=[4]
    )
    early_stopping: bool | Literal["never"] | None = Field(
        default=None,
        description="When a beam search ends: true as soon as num_beams answers are complete, false when a better "
        'one is unlikely, "never" only when none can be better.',
        examples=[True],
    )
    length_penalty: float | None = Field(
        default=None,
        description="Exponent of the length by which a beam's score is divided; above 0 favours longer answers.",
        examples=[1.0],
    )
    no_repeat_ngram_size: int | None = Field(
        default=None, ge=0, description="Token sequences of this length may occur once only; 0 is off.", examples=[3]
    )
    encoder_no_repeat_ngram_size: int | None = Field(
        default=None,
        ge=0,
        description="Token sequences of this length that the prompt holds are not written again.",
        examples=[3],
    )
    encoder_repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        description="Above 1 favours tokens that the prompt holds, below 1 avoids them.",
        examples=[1.2],
    )
    top_h: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the most likely tokens that together hold at most this share of the entropy.",
        examples=[0.4],
    )
    typical_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the locally most typical tokens whose probabilities add up to this; 1 is off.",
        examples=[0.9],
    )
    epsilon_cutoff: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Drop tokens less likely than this before sampling; 0 is off.",
        examples=[0.0003],
    )
    eta_cutoff: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Drop tokens below a limit made from this and the entropy, before sampling; 0 is off.",
        examples=[0.0003],
    )
    renormalize_logits: bool | None = Field(
        default=None, description="Normalize the scores again after all changes to them.", examples=[True]
    )
    remove_invalid_values: bool | None = Field(
        default=None,
        description="Replace NaN and infinite logits of the model instead of failing on them.",
        examples=[True],
    )
    suppress_tokens: TokenIds | None = Field(
        default=None, description="Token ids that are never written.", examples=[[7, 9]]
    )
    begin_suppress_tokens: TokenIds | None = Field(
        default=None, description="Token ids that an answer must not begin with.", examples=[[7]]
    )
    sequence_bias: TokenBiases | None = Field(
        default=None,
        description="Pairs of a token sequence and a number that is added to the logit of its last token when the ones "
        "before it were written.",
        examples=[[[[10, 45], -2.0]]],
    )
    forced_bos_token_id: TokenId | None = Field(
        default=None, description="Id of the token that is forced to the first place of a sequence.", examples=[1]
    )
    forced_eos_token_id: TokenId | TokenIds | None = Field(
        default=None, description="Id or ids of the end token that is forced at the length limit.", examples=[2]
    )
    exponential_decay_length_penalty: Annotated[tuple[int, float], AsTuple] | None = Field(
        default=None,
        description="Two numbers: from how many new tokens on the end token becomes likelier, and by what factor at "
        "each step.",
        examples=[[100, 1.05]],
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=1,
        description="Weight of classifier-free guidance; above 1 ties the answer closer to the prompt.",
        examples=[1.5],
    )
    watermarking_config: Mapping[str, JsonValue] | None = Field(
        default=None,
        description="Arguments of transformers' WatermarkingConfig: marks the answers by favouring a "
        "keyed set of tokens.",
        examples=[{"greenlist_ratio": 0.25, "bias": 2.0}],
    )
    use_cache: bool | None = Field(
        default=None,
        description="Keep the keys and values of earlier tokens; false computes them anew at each step.",
        examples=[True],
    )
    cache_implementation: Literal["dynamic", "static", "offloaded", "offloaded_static", "quantized"] | None = Field(
        default=None, description="The kind of key-value cache.", examples=["static"]
    )
    cache_config: Mapping[str, JsonValue] | None = Field(
        default=None, description="Arguments of the cache's class.", examples=[{"backend": "quanto", "nbits": 4}]
    )
    max_cache_len: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that a static cache holds, so that calls of different lengths share one compiled graph.",
        examples=[4096],
    )
    prefill_chunk_size: int | None = Field(
        default=None, ge=1, description="Read prompts in chunks of this many tokens, to save memory.", examples=[1024]
    )
    compile_config: Mapping[str, JsonValue] | None = Field(
        default=None,
        description="Arguments of transformers' CompileConfig, for caches that compile.",
        examples=[{"dynamic": True}],
    )
    disable_compile: bool | None = Field(
        default=None, description="Do not compile the forward pass, even with a cache that allows it.", examples=[True]
    )
    prompt_lookup_num_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Speculate this many tokens ahead by looking them up in the prompt.",
        examples=[5],
    )
    max_matching_ngram_size: int | None = Field(
        default=None, ge=1, description="The longest token sequence that prompt lookup matches.", examples=[2]
    )
    use_mtp: bool | None = Field(
        default=None,
        description="Speculate with the model's own multi-token prediction heads, where it has them.",
        examples=[False],
    )
    assistant_early_exit: int | None = Field(
        default=None, ge=1, description="Speculate with the model's own first layers, up to this one.", examples=[4]
    )
    num_assistant_tokens: int | None = Field(
        default=None, ge=1, description="How many tokens are speculated before the model checks them.", examples=[5]
    )
    num_assistant_tokens_schedule: Literal["heuristic", "heuristic_transient", "constant"] | None = Field(
        default=None,
        description="How num_assistant_tokens changes with the share of accepted tokens.",
        examples=["constant"],
    )
    assistant_confidence_threshold: float | None = Field(
        default=None, ge=0, le=1, description="Stop speculating below this confidence.", examples=[0.4]
    )
    assistant_ensemble_weight: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Check speculated tokens against a mixture with this weight on the model's own distribution; "
        "faster, but no longer exact.",
        examples=[0.8],
    )


_REMOVED = "transformers no longer comes with it, only as remote code that batchchat does not run; leave it out"
_NO_DRAFT = "it is for a draft model; write model.draft"
_OUTPUTS = "batchchat asks the model for what it needs; for log-probabilities write generation.logprobs"

REPLACED_FLAGS: Mapping[str, str] = {
    "max_length": "it counts the prompt too; write generation.max_new_tokens or chat.max_context",
    "min_length": "it counts the prompt too; write generation.min_new_tokens",
    "token_healing": "it tokenizes the prompt again without its special tokens, which takes a chat's turns apart; "
    "leave it out",
    "max_time": "answers must not depend on the clock; write generation.max_new_tokens",
    "stop_strings": "write generation.stop",
    "bad_words_ids": "write generation.bad_words with texts, or generation.suppress_tokens with token ids",
    "num_return_sequences": "write generation.samples",
    "output_attentions": _OUTPUTS,
    "output_hidden_states": _OUTPUTS,
    "output_scores": _OUTPUTS,
    "output_logits": _OUTPUTS,
    "return_dict_in_generate": _OUTPUTS,
    "pad_token_id": "batchchat takes it from the tokenizer; leave it out",
    "bos_token_id": "the chat template writes it; leave it out",
    "eos_token_id": "the model names its own; add further ones with generation.stop_token_ids",
    "decoder_start_token_id": "only encoder-decoder models have one; leave it out",
    "is_assistant": _NO_DRAFT,
    "assistant_lookbehind": _NO_DRAFT,
    "target_lookbehind": _NO_DRAFT,
    "speculation_type": _NO_DRAFT,
    "continuous_batching_config": "it sets up another way of batching; write engine.max_batch_rows or "
    "engine.max_batch_tokens",
    "low_memory": "transformers no longer supports it; write a smaller engine.max_batch_rows",
    "penalty_alpha": _REMOVED,
    "dola_layers": _REMOVED,
    "diversity_penalty": _REMOVED,
    "num_beam_groups": _REMOVED,
    "constraints": _REMOVED,
    "force_words_ids": _REMOVED,
}
"""Flags of `GenerationConfig` that a recipe cannot set, with the reason and what to write instead."""


_OFF: Mapping[str, Any] = {
    "num_beams": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "guidance_scale": 1.0,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "suppress_tokens": (),
    "begin_suppress_tokens": (),
    "sequence_bias": (),
    "use_mtp": False,
    "use_cache": True,
    "disable_compile": False,
}
"""Values with which a flag does nothing."""
_OF_BEAMS = frozenset(("early_stopping", "length_penalty"))
_SPECULATING = ("prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
_OF_SPECULATION = frozenset(
    (
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "assistant_confidence_threshold",
        "assistant_ensemble_weight",
    )
)
_OF_SAMPLING = frozenset(("top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"))


def effective_flags(flags: Mapping[str, Any], *, sampled: bool) -> dict[str, Any]:
    """The flags without those that change nothing: values that mean off, and flags of beams, of speculation or of
    sampling where there is none."""
    on = {name: value for name, value in flags.items() if name not in _OFF or freeze_value(value) != _OFF[name]}
    idle = set() if "num_beams" in on else set(_OF_BEAMS)
    if not speculates(on):
        idle |= _OF_SPECULATION
    if not sampled:
        idle |= _OF_SAMPLING
    return {name: value for name, value in on.items() if name not in idle}


def speculates(flags: Mapping[str, Any]) -> bool:
    """Whether `generate` guesses several tokens ahead."""
    return any(flags.get(name) for name in _SPECULATING)


class FrozenMapping(tuple[tuple[Any, Any], ...]):
    """A mapping as hashable pairs, sorted by key; its type tells it from a list of pairs."""

    __slots__ = ()


def freeze_flags(flags: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Flags sorted by name, with hashable values: lists become tuples, mappings `FrozenMapping`s."""
    return tuple((name, freeze_value(flags[name])) for name in sorted(flags))


def thaw_flags(flags: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """The inverse of `freeze_flags`, with the lists and dicts that `generate` expects. `compile_config` is a plain
    dict too: `generate` wants a `CompileConfig` made from it."""
    return {name: _thaw(value) for name, value in flags}


def freeze_value(value: Any) -> Any:
    """One flag's value, hashable."""
    if isinstance(value, Mapping):
        return FrozenMapping((key, freeze_value(value[key])) for key in sorted(value, key=str))
    if isinstance(value, (list, tuple)):
        return tuple(freeze_value(item) for item in value)
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, FrozenMapping):
        return {key: _thaw(item) for key, item in value}
    if isinstance(value, tuple):
        return [_thaw(item) for item in value]
    return value
