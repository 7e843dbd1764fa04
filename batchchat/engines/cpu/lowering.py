"""From a model to a program, where all of it is of the common form: a norm before attention and one before a gated
layer, rotary embeddings, both results added to the hidden states. Its modules' names and a trial say whether it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.model_runner import PROGRAMS, ModelRunner
from batchchat.engines.cpu.fusing import FusedGate, FusedNorm
from batchchat.engines.cpu.packing import OutputSlice, Product, TiledProduct
from batchchat.engines.cpu.program import Program
from batchchat.engines.cpu.table import Decoder, Heads, Layer
from batchchat.models.shortened import longest_length

_SERVED = {
    *("cwm", "granite", "internlm3", "iquestcoder", "llama", "ministral", "mistral", "qwen2", "qwen3", "seed_oss"),
}
"""The models of transformers whose attention is known to do no more than a program does."""
_MODEL = {"embed_tokens", "layers", "norm", "rotary_emb"}
_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_NORMS = ("q_norm", "k_norm")
_TAKES = ((20, 7), (1, 1), (3, 1), (0, 2))
"""How many tokens of each of two prompts the passes of the trial take."""
_LEAST = 5
"""Places of a pass: some are padding."""


class _OtherFormError(Exception):
    """The model has a part that a program does not."""


def lower(model: Any) -> Callable[[], None]:
    """Give a packed model a program, if it is of the common form and the program computes what its modules compute.
    Returns what undoes it."""
    try:
        heads = _heads(model)
        by_modules, scorings = _trial(model)
        program = Program(_decoder(model, heads, scorings))
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


def _heads(model: Any) -> Heads:
    first = _children(model.model.layers[0].self_attn, _ATTENTION, _NORMS)
    dim = first["o_proj"].in_features, getattr(model.model.layers[0].self_attn, "head_dim", 0)
    if not dim[1] or dim[0] % dim[1]:
        raise _OtherFormError
    return Heads(dim[0] // dim[1], first["k_proj"].out_features // dim[1], dim[1], dim[1])


def _decoder(model: Any, heads: Heads, scorings: dict[int, AttentionSpec]) -> Decoder:
    parts = _children(model.model, _MODEL)
    layers = tuple(_layer(layer, heads, scorings[number]) for number, layer in enumerate(parts["layers"]))
    gate = _children(parts["layers"][0], _LAYER)["mlp"].gate_proj
    return Decoder(
        parts["embed_tokens"],
        parts["rotary_emb"],
        layers,
        _forward(parts["norm"], FusedNorm),
        heads,
        gate.in_features,
        gate.out_features,
    )


def _layer(layer: nn.Module, heads: Heads, spec: AttentionSpec) -> Layer:
    parts = _children(layer, _LAYER)
    attention = _children(parts["self_attn"], _ATTENTION, _NORMS)
    home = type(parts["self_attn"]).__module__.split(".")
    if home[:2] != ["transformers", "models"] or home[2] not in _SERVED:
        raise _OtherFormError
    joined = _forward(attention["q_proj"], OutputSlice).joined
    sizes = [heads.queries * heads.key_dim, heads.keys * heads.key_dim, heads.keys * heads.value_dim]
    if spec.softcap is not None or joined.sizes != sizes:
        raise _OtherFormError
    gated = _forward(parts["mlp"], FusedGate)
    query_norm, key_norm = (_forward(attention[name], FusedNorm) if name in attention else None for name in _NORMS)
    if any(norm is not None and len(norm.weight) != heads.key_dim for norm in (query_norm, key_norm)):
        raise _OtherFormError
    return Layer(
        _forward(parts["input_layernorm"], FusedNorm),
        joined.product,
        query_norm,
        key_norm,
        spec,
        _forward(attention["o_proj"], Product, TiledProduct),
        _forward(parts["post_attention_layernorm"], FusedNorm),
        gated.both,
        _forward(gated.down, Product, TiledProduct),
    )


def _children(module: nn.Module, needed: set[str], others: Collection[str] = ()) -> dict[str, Any]:
    """The modules in a module, which are all of `needed` and may be some of `others`."""
    children = dict(module.named_children())
    if not needed <= set(children) <= needed | set(others):
        raise _OtherFormError
    return children


def _forward(module: nn.Module, *kinds: type) -> Any:
    """What computes a module instead of its own code."""
    found = vars(module).get("forward")
    if not isinstance(found, kinds):
        raise _OtherFormError
    return found


def _trial(model: Any, offset: int = 0, by_modules: bool = False) -> tuple[torch.Tensor, dict[int, AttentionSpec]]:
    """Logits `[tokens, vocabulary]` of two prompts whose positions begin at `offset`, and how each layer scores its
    keys."""
    runner = ModelRunner(model, KVCache(budget=1024), by_modules=by_modules)
    tokens = probe.prompts(
        model.config.get_text_config().vocab_size, [sum(counts) for counts in zip(*_TAKES, strict=True)]
    )
    return torch.cat(probe.logits(runner, _TAKES, tokens, least=_LEAST, offset=offset)), runner.scorings
