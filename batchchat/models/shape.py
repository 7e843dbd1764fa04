"""What a model's config alone says about its size: parameters, cache per token, arithmetic per token.

The model is built with empty weights (accelerate), so that the counts are those of the very modules that transformers
would load, whatever the architecture; nothing is read and nothing is allocated.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NUM_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_HIDDEN = ("hidden_size", "d_model", "n_embd")
_HEADS = ("num_attention_heads", "n_head")
_NO_ATTENTION = {"linear_attention", "conv", "mamba", "recurrent", "moe", "mlp"}
"""Kinds of layers in which no token looks at the tokens before it."""
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k")


def has_experts(config: Any) -> bool:
    """Whether a model of this config is a mixture of experts."""
    return any(getattr(config.get_text_config(), name, 0) for name in _NUM_EXPERTS)


@dataclass(frozen=True)
class CacheLayer:
    """What one layer keeps of a row: `width` numbers for each of the last `window` tokens (None: of all). A layer that
    uses another one's keys and values keeps nothing and is none of these."""

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
    state: int
    """Numbers that recurrent layers keep of a row, however long it is."""
    hidden: int
    intermediate: int
    """Width of a token's feed-forward part, over all the experts that it passes through."""
    attention: int
    """Query heads times their width, of the widest layer; 0 without attention."""
    attention_in_all: int
    """The same, of all layers that attend."""
    num_heads: int
    vocabulary: int
    experts: tuple[int, int] | None
    """How many experts a token passes through, and how many there are; None for a dense model."""
    missing: Mapping[str, str]
    """What could not be had, and why; it counts as nothing in the rest."""

    def cache_numbers(self, tokens: int) -> int:
        """Numbers in the cache of a row that is `tokens` long."""
        return self.state + self.cache_growth(tokens)

    def cache_growth(self, tokens: int) -> int:
        """Those among them that a row has because of its tokens."""
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
        return 4.0 * self.attention_in_all


def empty_model(config: Any, trust_remote_code: bool = False) -> Any:
    """The model of a config without its weights. Raises what transformers raises for a config it cannot build."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights(), init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return _tied(model)


def empty_like(model: Any) -> Any:
    """The same model as `model` without its weights, unquantized."""
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    with no_init_weights(), init_empty_weights():
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
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    hidden = _known(config, _HIDDEN) or table.weight.shape[1]
    missing: dict[str, str] = {}
    try:
        cache, state = _cache(model)
    except Exception as error:  # a model may fail in any way on numbers that are not there
        cache, state = (), 0
        missing["cache"] = f"the model's cache cannot be told without computing ({type(error).__name__})"
    attending = [number for number, kind in enumerate(_kinds(config)) if kind not in _NO_ATTENTION]
    widths = [_queries(config, number, hidden) for number in attending]
    return ModelShape(
        parameters=total,
        active_parameters=total - inactive,
        linear_parameters=sum(module.weight.numel() for module in linear),
        linear_rows=sum(module.out_features for module in linear),
        embedding_parameters=_embedding(model),
        cache=cache,
        state=state,
        hidden=hidden,
        intermediate=_intermediate(config, experts, hidden),
        attention=max(widths, default=0),
        attention_in_all=sum(widths),
        num_heads=_known(config, _HEADS) if widths else 0,
        vocabulary=table.weight.shape[0] if output is None else output.weight.shape[0],
        experts=experts,
        missing=missing,
    )


def _tied(model: Any) -> Any:
    """Empty weights are made one by one; those that are the same weight become so again here."""
    model.tie_weights()
    return model


def _experts(config: Any) -> tuple[int, int] | None:
    count = next((getattr(config, key) for key in _NUM_EXPERTS if getattr(config, key, None)), None)
    chosen = next((getattr(config, key) for key in _EXPERTS_PER_TOKEN if getattr(config, key, None)), None)
    return (chosen, count) if count and chosen and count > 1 else None


def _intermediate(config: Any, experts: tuple[int, int] | None, hidden: int) -> int:
    width = getattr(config, "intermediate_size", None) or 4 * hidden
    if isinstance(width, list | tuple):  # one for each layer
        width = max(width)
    if experts is None:
        return int(width)
    return int(experts[0] * (getattr(config, "moe_intermediate_size", None) or width))


def _convertible(model: Any) -> list[Any]:
    from torch import nn

    output = model.get_output_embeddings()
    return [module for module in model.modules() if type(module) is nn.Linear and module is not output]


def _embedding(model: Any) -> int:
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and (output.weight is table.weight or getattr(model.config, "tie_word_embeddings", False))
    return 0 if tied else table.weight.numel()


def _known(config: Any, names: tuple[str, ...]) -> int:
    """The first of these that a config has; 0 where it has none."""
    return next((int(getattr(config, name)) for name in names if getattr(config, name, None)), 0)


def _kinds(config: Any) -> list[str]:
    """What each layer is, as far as the config says; where it does not, layers of attention if there are heads."""
    for name in ("layer_types", "layers_block_type"):
        if getattr(config, name, None):
            return list(getattr(config, name))
    return ["full_attention" if _known(config, _HEADS) else "recurrent"] * config.num_hidden_layers


def _queries(config: Any, layer: int, hidden: int) -> int:
    """Query heads of a layer times their width."""
    heads = _known(config, _HEADS)
    return heads * (getattr(_of_layer(config, layer), "head_dim", None) or hidden // heads)


def _of_layer(config: Any, layer: int) -> Any:
    """The config of one layer: they may differ in their heads."""
    return config.per_layer_config[layer] if config.is_heterogeneous else config


def _cache(model: Any) -> tuple[tuple[CacheLayer, ...], int]:
    """What its layers keep of a row: for each token, and however long it is. A pass of one token through the empty
    model says it, or its config where no such pass can be made."""
    try:
        return _kept(_empty_pass(model))
    except Exception:  # operators that want numbers, or a cache of another form
        return _by_config(model.config.get_text_config()), 0


def _empty_pass(model: Any) -> Any:
    """The cache after one token."""
    import torch

    config = model.config.get_text_config()
    implementation = getattr(config, "_experts_implementation_internal", None)
    was_training = model.training
    try:
        config._experts_implementation_internal = "batched_mm"  # the others look at which experts are chosen
        with torch.no_grad(), torch.device("meta"):
            model = model.to("meta").eval()
            out = model(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=True)
            return out.cache_params if "cache_params" in out else out.past_key_values
    finally:
        config._experts_implementation_internal = implementation
        model.train(was_training)


def _kept(cache: Any) -> tuple[tuple[CacheLayer, ...], int]:
    layers, state = [], 0
    for layer in cache.layers:
        if getattr(layer, "keys", None) is not None:
            window = layer.sliding_window if layer.is_sliding else None
            layers.append(CacheLayer(layer.keys.numel() + layer.values.numel(), window))
        for states in (getattr(layer, name, None) or {} for name in ("conv_states", "recurrent_states")):
            state += sum(kept.numel() for kept in states.values() if kept is not None)
    return tuple(layers), state


def _by_config(config: Any) -> tuple[CacheLayer, ...]:
    """One entry per layer that keeps keys and values. Raises ValueError for a config that has recurrent layers."""
    kinds = _kinds(config)
    if not {"moe", "mlp"}.issuperset(_NO_ATTENTION.intersection(kinds)):
        raise ValueError
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    slides = {"sliding_attention", "chunked_attention"} if hasattr(config, "layer_types") else {"full_attention"}
    layers = []
    for number, kind in enumerate(kinds):
        own = _of_layer(config, number)
        heads = getattr(own, "num_key_value_heads", None) or _known(own, _HEADS)
        width = 2 * heads * (getattr(own, "head_dim", None) or config.hidden_size // _known(own, _HEADS))
        if getattr(own, "kv_lora_rank", None):  # latent attention: transformers keeps full keys and values of all heads
            width = own.num_attention_heads * (own.qk_nope_head_dim + own.qk_rope_head_dim + own.v_head_dim)
        if kind not in _NO_ATTENTION:
            layers.append(CacheLayer(width, window if kind in slides else None))
    return tuple(layers)
