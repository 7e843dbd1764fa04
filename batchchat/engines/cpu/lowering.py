"""From a model of the common form (`continuous.form`) to a program: see `program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import nn

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.form import DecoderForm, LayerForm, OtherFormError, computed_by
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.lowering import adopt
from batchchat.engines.continuous.trials import takes_one_tensor
from batchchat.engines.cpu.decoder import Decoder, Gated, Heads, Layer, Listed
from batchchat.engines.cpu.fusing import FusedGate, FusedNorm
from batchchat.engines.cpu.packing import OutputSlice
from batchchat.engines.cpu.products import AnyProduct
from batchchat.engines.cpu.program import Program
from batchchat.engines.cpu.quantized import QuantizedProduct


def lower(model: Any) -> Callable[[], None]:
    """Give a packed model a program whose logits are the same bits. Returns what undoes it."""
    return adopt(
        model, lambda form, scorings: Program(_decoder(form, scorings)), lambda: KVCache(budget=1024), torch.equal
    )


def _decoder(form: DecoderForm, scorings: dict[int, AttentionSpec]) -> Decoder:
    heads = Heads(form.heads, form.kv_heads, form.dim, form.dim)
    layers = tuple(_layer(layer, heads, scorings[number]) for number, layer in enumerate(form.layers))
    decoder = Decoder(form.embed, form.embed_times, form.turns, layers, computed_by(form.norm, FusedNorm), heads)
    norms = [norm for layer in layers for norm in vars(layer).values() if isinstance(norm, FusedNorm)]
    if {norm.weight.dtype for norm in norms} - {decoder.dtype} or form.embed.weight.dtype != decoder.dtype:
        raise OtherFormError("its norms and weights are not of one dtype")
    return decoder


def _layer(layer: LayerForm, heads: Heads, spec: AttentionSpec) -> Layer:
    return Layer(
        _norm(layer.norm),
        _joined(layer, heads),
        _head_norm(layer.query_norm, heads.queries, heads.key_dim),
        _head_norm(layer.key_norm, heads.keys, heads.key_dim),
        layer.turn,
        spec,
        computed_by(layer.out, *get_args(Listed)),
        _norm(layer.norm_behind),
        _norm(layer.second_norm),
        _second(layer.second),
        _norm(layer.second_norm_behind),
        layer.times,
    )


def _joined(layer: LayerForm, heads: Heads) -> Listed:
    """The product for queries, keys and values."""
    sizes = tuple(linear.out_features for linear in layer.projections)
    if sizes not in (heads.sizes, (sum(heads.sizes),)) or layer.out.in_features != heads.queries * heads.value_dim:
        raise OtherFormError("its layers have heads of several sizes")
    if len(sizes) == 1:
        return computed_by(layer.projections[0], *get_args(Listed))
    return _listed(computed_by(layer.projections[0], OutputSlice).joined.product)


def _listed(product: AnyProduct | QuantizedProduct) -> Listed:
    """A product that a table can hold."""
    if not isinstance(product, Listed):
        raise OtherFormError("torch itself computes its joined products fastest")
    return product


def _norm(module: Any | None) -> FusedNorm | None:
    return None if module is None else computed_by(module, FusedNorm)


def _head_norm(module: Any | None, count: int, dim: int) -> FusedNorm | None:
    """A norm of each head, or of all of them as one."""
    norm = _norm(module)
    if norm is not None and len(norm.weight) not in (dim, count * dim):
        raise OtherFormError("its norms of queries and keys are neither of heads nor of all of them")
    return norm


def _second(module: nn.Module) -> Gated | nn.Module:
    fused = vars(module).get("forward")
    if isinstance(fused, FusedGate):
        down = computed_by(fused.down, *get_args(Listed))
        return Gated(_listed(fused.both), fused.gate, fused.down.in_features, down)
    if not takes_one_tensor(module):
        raise OtherFormError(f"its {type(module).__name__} takes more than hidden states")
    return module
