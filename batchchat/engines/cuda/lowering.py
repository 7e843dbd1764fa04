"""From a model of the common form (`continuous.form`) to a program: see `program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.form import DecoderForm, LayerForm, OtherFormError, computed_by
from batchchat.engines.continuous.lowering import adopt
from batchchat.engines.continuous.paged.paged_cache import PagedCache
from batchchat.engines.cuda.backend import HeadNorms
from batchchat.engines.cuda.fused import FusedGate, FusedNorm
from batchchat.engines.cuda.program import Decoder, Joined, Layer, Program
from batchchat.engines.rounding import logit_differences, tolerance


def lower(model: Any) -> Callable[[], None]:
    """Give a prepared model a program whose logits differ by no more than rounding. Returns what undoes it."""

    def agree(found: torch.Tensor, wanted: torch.Tensor) -> bool:
        return float(logit_differences(found, wanted).max()) <= tolerance(model.dtype)

    return adopt(model, _program, lambda: PagedCache(budget=1024), agree)


def _program(form: DecoderForm, scorings: dict[int, AttentionSpec]) -> Program:
    decoder = Decoder(
        form.embed,
        form.rotary,
        tuple(_layer(layer, form, scorings[number]) for number, layer in enumerate(form.layers)),
        computed_by(form.norm, FusedNorm),
        form.heads,
        form.kv_heads,
        form.dim,
    )
    return Program(decoder)


def _layer(layer: LayerForm, form: DecoderForm, spec: AttentionSpec) -> Layer:
    gated = computed_by(layer.gated, FusedGate)
    linears = (layer.query, layer.key, layer.value, layer.out, gated.gate, gated.up, gated.down)
    if any(type(linear) is not nn.Linear or "forward" in vars(linear) for linear in linears):
        raise OtherFormError
    together = linears[:3], linears[4:6]
    if any(len({linear.bias is None for linear in group}) > 1 for group in together):
        raise OtherFormError
    sizes = [linear.out_features for linear in linears[:3]]
    if sizes != [heads * form.dim for heads in (form.heads, form.kv_heads, form.kv_heads)]:
        raise OtherFormError
    return Layer(
        computed_by(layer.norm, FusedNorm),
        Joined.of(together[0]),
        _head_norms(layer, form),
        spec,
        layer.out,
        computed_by(layer.second_norm, FusedNorm),
        Joined.of(together[1]),
        gated.gelu,
        gated.down,
    )


def _head_norms(layer: LayerForm, form: DecoderForm) -> HeadNorms | None:
    """Norms of queries and keys, head by head, both of one kind; None where there are none."""
    if layer.query_norm is None and layer.key_norm is None:
        return None
    query, key = (computed_by(norm, FusedNorm) for norm in (layer.query_norm, layer.key_norm))
    if (query.epsilon, query.form) != (key.epsilon, key.form) or len(query.weight) != form.dim:
        raise OtherFormError
    return HeadNorms(query.weight, key.weight, query.epsilon, query.form)
