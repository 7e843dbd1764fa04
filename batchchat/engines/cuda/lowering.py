"""From a model of the common form (`continuous.form`) to a program: see `program`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.form import DecoderForm, LayerForm, OtherFormError, computed_by
from batchchat.engines.continuous.lowering import adopt
from batchchat.engines.continuous.paged.paged_cache import PagedCache
from batchchat.engines.continuous.trials import takes_one_tensor
from batchchat.engines.cuda.backend import HeadNorms
from batchchat.engines.cuda.fused import FusedGate, FusedNorm
from batchchat.engines.cuda.program import Decoder, Gated, Joined, Layer, Program
from batchchat.engines.rounding import logit_differences, tolerance


def lower(model: Any) -> Callable[[], None]:
    """Give a prepared model a program whose logits differ by no more than rounding. Returns what undoes it."""

    def agree(found: torch.Tensor, wanted: torch.Tensor) -> bool:
        return float(logit_differences(found, wanted).max()) <= tolerance(model.dtype)

    return adopt(model, _program, lambda: PagedCache(budget=1024), agree)


def _program(form: DecoderForm, scorings: dict[int, AttentionSpec]) -> Program:
    decoder = Decoder(
        form.embed,
        form.embed_times,
        form.turns,
        tuple(_layer(layer, form, scorings[number]) for number, layer in enumerate(form.layers)),
        computed_by(form.norm, FusedNorm),
        form.heads,
        form.kv_heads,
        form.dim,
    )
    return Program(decoder)


def _layer(layer: LayerForm, form: DecoderForm, spec: AttentionSpec) -> Layer:
    sizes = [linear.out_features for linear in layer.projections]
    wanted = [heads * form.dim for heads in (form.heads, form.kv_heads, form.kv_heads)]
    if sizes not in (wanted, [sum(wanted)]):
        raise OtherFormError("its layers have heads of several sizes")
    query_norm, key_norm = (_norm(norm) for norm in (layer.query_norm, layer.key_norm))
    of_heads = query_norm is not None and len(query_norm.weight) == form.dim
    _check([layer.out])
    return Layer(
        _norm(layer.norm),
        _joined(layer.projections),
        None if of_heads else query_norm,
        None if of_heads else key_norm,
        _head_norms(query_norm, key_norm) if of_heads else None,
        len(form.turns) if layer.turn is None else layer.turn,
        spec,
        layer.out,
        _norm(layer.norm_behind),
        _norm(layer.second_norm),
        _second(layer.second),
        _norm(layer.second_norm_behind),
        layer.times,
    )


def _norm(module: Any | None) -> FusedNorm | None:
    return None if module is None else computed_by(module, FusedNorm)


def _joined(linears: Sequence[nn.Linear]) -> Joined:
    _check(linears)
    if len({linear.bias is None for linear in linears}) > 1:
        raise OtherFormError("some of its products have a bias and others of the same input have none")
    return Joined.of(linears)


def _check(linears: Sequence[nn.Linear]) -> None:
    if any(type(linear) is not nn.Linear or "forward" in vars(linear) for linear in linears):
        raise OtherFormError("its products are not torch's own")


def _second(module: nn.Module) -> Gated | nn.Module:
    fused = vars(module).get("forward")
    if not isinstance(fused, FusedGate):
        if not takes_one_tensor(module):
            raise OtherFormError(f"its {type(module).__name__} takes more than hidden states")
        return module
    _check([fused.down])
    return Gated(_joined(fused.both), fused.gelu, fused.down)


def _head_norms(query: FusedNorm | None, key: FusedNorm | None) -> HeadNorms:
    """Norms of queries and keys, head by head, both of one kind."""
    if query is None or key is None or (query.epsilon, query.form) != (key.epsilon, key.form):
        raise OtherFormError("the norms of its queries and of its keys are of two kinds")
    return HeadNorms(query.weight, key.weight, query.epsilon, query.form)
