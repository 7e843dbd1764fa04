"""What a model's config alone says about its size: parameters, cache per token, arithmetic per token.

The model is built with empty weights (accelerate), so that the counts are those of the very modules that transformers
would load, whatever the architecture; nothing is read and nothing is allocated.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

_NUM_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k")


def has_experts(config: Any) -> bool:
    """Whether a model of this config is a mixture of experts."""
    return any(getattr(config.get_text_config(), name, 0) for name in _NUM_EXPERTS)


@dataclass(frozen=True)
class CacheLayer:
    """What one layer keeps of a row: `width` numbers for each of the last `window` tokens (None: of all)."""

    width: int
    window: int | None

    def numbers(self, tokens: int) -> int:
        """Numbers kept of a row that is `tokens` long."""
        return self.width * (tokens if self.window is None else min(tokens, self.window))


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a causal language model, in numbers (not bytes)."""

    parameters: int
    active_parameters: int
    """Those that one token passes through: of a mixture of experts the chosen ones only."""
    linear_parameters: int
    """Weights that bitsandbytes converts: linear layers without the output layer. Fused experts are not among them."""
    linear_rows: int
    """Output features of these linear layers together: 8-bit weights have one scale each."""
    embedding_parameters: int
    """The input embedding where it is not the output layer too: read by row, never multiplied."""
    cache: tuple[CacheLayer, ...]
    hidden: int
    intermediate: int
    """Width of a token's feed-forward part, over all the experts that it passes through."""
    attention: int
    """Query heads times their width."""
    num_heads: int
    vocabulary: int
    experts: tuple[int, int] | None
    """How many experts a token passes through, and how many there are; None for a dense model."""

    def cache_numbers(self, tokens: int) -> int:
        """Numbers in the cache of a row that is `tokens` long."""
        return sum(layer.numbers(tokens) for layer in self.cache)

    @property
    def flops_per_token(self) -> float:
        """Floating point operations of a token's way through the layers, but for attention and the output layer."""
        return 2.0 * (self.active_parameters - self.embedding_parameters - self.hidden * self.vocabulary)

    @property
    def flops_per_output(self) -> float:
        """Of the logits of one token."""
        return 2.0 * self.hidden * self.vocabulary

    @property
    def flops_per_context_token(self) -> float:
        """Of attention, for each token that a token sees."""
        return 4.0 * len(self.cache) * self.attention


def empty_model(config: Any, trust_remote_code: bool = False) -> Any:
    """The model of a config without its weights. Raises what transformers raises for a config it cannot build."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return _tied(model)


def empty_like(model: Any) -> Any:
    """The same model as `model` without its weights, unquantized."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        empty = type(model)(copy.deepcopy(model.config))
    return _tied(empty)


def shape_of(model: Any) -> ModelShape:
    """The shape of a model with empty weights. A quantized model's own parameters are packed and would count less."""
    config = model.config.get_text_config()
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = _experts(config)
    inactive = 0
    if experts is not None:
        routed = sum(parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name)
        inactive = routed - routed * experts[0] // experts[1]
    linear = _convertible(model)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelShape(
        parameters=total,
        active_parameters=total - inactive,
        linear_parameters=sum(module.weight.numel() for module in linear),
        linear_rows=sum(module.out_features for module in linear),
        embedding_parameters=_embedding(model),
        cache=_cache(config, head_dim),
        hidden=config.hidden_size,
        intermediate=_intermediate(config, experts),
        attention=config.num_attention_heads * head_dim,
        num_heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        experts=experts,
    )


def _tied(model: Any) -> Any:
    """Empty weights are made one by one; those that are the same weight become so again here."""
    model.tie_weights()
    return model


def _experts(config: Any) -> tuple[int, int] | None:
    count = next((getattr(config, key) for key in _NUM_EXPERTS if getattr(config, key, None)), None)
    chosen = next((getattr(config, key) for key in _EXPERTS_PER_TOKEN if getattr(config, key, None)), None)
    return (chosen, count) if count and chosen and count > 1 else None


def _intermediate(config: Any, experts: tuple[int, int] | None) -> int:
    width: int = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    if experts is None:
        return width
    return experts[0] * (getattr(config, "moe_intermediate_size", None) or width)


def _convertible(model: Any) -> list[Any]:
    from torch import nn

    output = model.get_output_embeddings()
    return [module for module in model.modules() if type(module) is nn.Linear and module is not output]


def _embedding(model: Any) -> int:
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and (output.weight is table.weight or model.config.tie_word_embeddings)
    return 0 if tied else table.weight.numel()


def _cache(config: Any, head_dim: int) -> tuple[CacheLayer, ...]:
    """One entry per layer that keeps keys and values."""
    key_value_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if getattr(config, "kv_lora_rank", None):  # latent attention: transformers keeps full keys and values of all heads
        width = config.num_attention_heads * (config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim)
    else:
        width = 2 * key_value_heads * head_dim
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    slides = {"sliding_attention", "chunked_attention"}
    attends = {*slides, "full_attention", "attention"}
    return tuple(CacheLayer(width, window if kind in slides else None) for kind in kinds if kind in attends)
