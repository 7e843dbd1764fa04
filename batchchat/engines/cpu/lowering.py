"""From a model of the common form (`continuous.form`) to a program: see `program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.form import DecoderForm, LayerForm, OtherFormError, computed_by, form_of
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.model_runner import PROGRAMS, ModelRunner
from batchchat.engines.cpu.fusing import FusedGate, FusedNorm
from batchchat.engines.cpu.packing import OutputSlice, Product, TiledProduct
from batchchat.engines.cpu.program import Program
from batchchat.engines.cpu.table import Decoder, Heads, Layer
from batchchat.models.shortened import longest_length

_TAKES = ((20, 7), (1, 1), (3, 1), (0, 2))
"""How many tokens of each of two prompts the passes of the trial take."""
_LEAST = 5
"""Places of a pass: some are padding."""


def lower(model: Any) -> Callable[[], None]:
    """Give a packed model a program, if it is of the common form and the program computes what its modules compute.
    Returns what undoes it."""
    try:
        form = form_of(model)
        by_modules, scorings = _trial(model)
        program = Program(_decoder(form, scorings))
    except Exception:  # a model of any other form may fail in any way; it is computed by its modules
        return lambda: None
    PROGRAMS[model] = program
    far = 1 + longest_length(model.config)
    try:
        is_right = torch.equal(_trial(model)[0], by_modules)
        is_right = is_right and torch.equal(_trial(model, far)[0], _trial(model, far, by_modules=True)[0])
    except Exception:
        is_right = False
    if not is_right:
        del PROGRAMS[model]

    def undo() -> None:
        PROGRAMS.pop(model, None)

    return undo


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
        computed_by(layer.out, Product, TiledProduct),
        computed_by(layer.second_norm, FusedNorm),
        gated.both,
        computed_by(gated.down, Product, TiledProduct),
    )


def _trial(model: Any, offset: int = 0, by_modules: bool = False) -> tuple[torch.Tensor, dict[int, AttentionSpec]]:
    """Logits `[tokens, vocabulary]` of two prompts whose positions begin at `offset`, and how each layer scores its
    keys."""
    runner = ModelRunner(model, KVCache(budget=1024), by_modules=by_modules)
    tokens = probe.prompts(
        model.config.get_text_config().vocab_size, [sum(counts) for counts in zip(*_TAKES, strict=True)]
    )
    return torch.cat(probe.logits(runner, _TAKES, tokens, least=_LEAST, offset=offset)), runner.scorings
