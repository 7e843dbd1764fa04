"""From a model of the common form (`continuous.form`) to a program: see `program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.form import DecoderForm, LayerForm, OtherFormError, computed_by
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.lowering import adopt
from batchchat.engines.cpu.fusing import FusedGate, FusedNorm
from batchchat.engines.cpu.packing import OutputSlice
from batchchat.engines.cpu.products import KernelProduct, Product
from batchchat.engines.cpu.program import Program
from batchchat.engines.cpu.table import Decoder, Heads, Layer


def lower(model: Any) -> Callable[[], None]:
    """Give a packed model a program whose logits are the same bits. Returns what undoes it."""
    return adopt(
        model, lambda form, scorings: Program(_decoder(form, scorings)), lambda: KVCache(budget=1024), torch.equal
    )


def _decoder(form: DecoderForm, scorings: dict[int, AttentionSpec]) -> Decoder:
    heads = Heads(form.heads, form.kv_heads, form.dim, form.dim)
    gate = form.layers[0].gated.gate_proj
    return Decoder(
        form.embed,
        form.rotary,
        tuple(_layer(layer, heads, scorings[number]) for number, layer in enumerate(form.layers)),
        computed_by(form.norm, FusedNorm),
        heads,
        gate.in_features,
        gate.out_features,
    )


def _layer(layer: LayerForm, heads: Heads, spec: AttentionSpec) -> Layer:
    joined = computed_by(layer.query, OutputSlice).joined
    sizes = [heads.queries * heads.key_dim, heads.keys * heads.key_dim, heads.keys * heads.value_dim]
    if spec.softcap is not None or joined.sizes != sizes:
        raise OtherFormError
    gated = computed_by(layer.gated, FusedGate)
    query_norm, key_norm = (
        None if norm is None else computed_by(norm, FusedNorm) for norm in (layer.query_norm, layer.key_norm)
    )
    if any(norm is not None and len(norm.weight) != heads.key_dim for norm in (query_norm, key_norm)):
        raise OtherFormError
    return Layer(
        computed_by(layer.norm, FusedNorm),
        joined.product,
        query_norm,
        key_norm,
        spec,
        computed_by(layer.out, KernelProduct, Product),
        computed_by(layer.second_norm, FusedNorm),
        gated.both,
        computed_by(gated.down, KernelProduct, Product),
    )
