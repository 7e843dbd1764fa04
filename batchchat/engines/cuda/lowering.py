"""From a model of the common form (`continuous.form`) to a program: see `program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.form import DecoderForm, LayerForm, OtherFormError, computed_by, form_of
from batchchat.engines.continuous.model_runner import PROGRAMS, ModelRunner
from batchchat.engines.continuous.paged.paged_cache import PagedCache
from batchchat.engines.cuda.backend import HeadNorms
from batchchat.engines.cuda.fused import FusedGate, FusedNorm
from batchchat.engines.cuda.program import Decoder, Joined, Layer, Program
from batchchat.engines.rounding import logit_differences, tolerance
from batchchat.models.shortened import longest_length

_TAKES = ((20, 7), (1, 1), (3, 1), (0, 2))
"""How many tokens of each of two prompts the passes of the trial take."""
_LEAST = 5
"""Places of a pass: some are padding."""


def lower(model: Any) -> Callable[[], None]:
    """Give a prepared model a program, if it is of the common form and the program computes what its modules compute.
    Returns what undoes it."""
    try:
        form = form_of(model)
        _, scorings = _trial(model, by_modules=True)
        program = Program(_decoder(form, scorings))
        far = 1 + longest_length(model.config)
        by_modules = [_trial(model, offset, by_modules=True)[0] for offset in (0, far)]
        PROGRAMS[model] = program
        found = [_trial(model, offset)[0] for offset in (0, far)]
        difference = float(logit_differences(torch.cat(found), torch.cat(by_modules)).max())
    except torch.OutOfMemoryError:
        PROGRAMS.pop(model, None)
        raise
    except Exception:  # a model of any other form may fail in any way; it is computed by its modules
        difference = torch.inf
    if not difference <= tolerance(model.dtype):
        PROGRAMS.pop(model, None)

    def undo() -> None:
        PROGRAMS.pop(model, None)

    return undo


def _decoder(form: DecoderForm, scorings: dict[int, AttentionSpec]) -> Decoder:
    return Decoder(
        form.embed,
        form.rotary,
        tuple(_layer(layer, form, scorings[number]) for number, layer in enumerate(form.layers)),
        computed_by(form.norm, FusedNorm),
        form.heads,
        form.kv_heads,
        form.dim,
    )


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


def _trial(model: Any, offset: int = 0, by_modules: bool = False) -> tuple[torch.Tensor, dict[int, AttentionSpec]]:
    """Logits `[tokens, vocabulary]` of two prompts whose positions begin at `offset`, and how each layer scores its
    keys."""
    runner = ModelRunner(model, PagedCache(budget=1024), by_modules=by_modules)
    tokens = probe.prompts(
        model.config.get_text_config().vocab_size, [sum(counts) for counts in zip(*_TAKES, strict=True)]
    )
    return torch.cat(probe.logits(runner, _TAKES, tokens, least=_LEAST, offset=offset)), runner.scorings
