"""The common form of a decoder: layers of attention and a gated or routed part, each with norms before it, behind it
or both, whose results are added to the hidden states. Its modules' names say whether a model seems to be of it, and a
trial whether it is."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.trials import takes_half_tables

_SERVED = {
    *("cwm", "gemma", "gemma2", "gemma3", "gpt_oss", "granite", "internlm3", "iquestcoder", "llama", "ministral"),
    *("mistral", "mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss"),
    "smollm3",
}
"""The models of transformers whose attention is known to do no more than is said here."""
_MODEL = {"embed_tokens", "layers", "norm", "rotary_emb"}
_LAYER = {"self_attn", "mlp"}
_PLACES = (
    ("input_layernorm", None, "post_attention_layernorm", None),
    (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
)
"""What the norms before and behind attention, and before and behind the second part, are called where a layer has just
these."""
_APART, _TOGETHER = ("q_proj", "k_proj", "v_proj"), ("qkv_proj",)
_HEAD_NORMS = {"q_norm", "k_norm"}
ROTARY = "apply_rotary_pos_emb"
"""What the modules of transformers' models call the function that turns queries and keys."""


class OtherFormError(Exception):
    """The model has a part that is not of the common form; the message says which."""


@dataclass(frozen=True)
class Turn:
    """A rotary embedding: one of a model's, or that of one kind of its layers."""

    rotary: Any
    kind: str | None
    is_halved: bool
    """Its tables have each number once, and not once for either half of a head."""

    def __call__(self, like: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cosines and sines `[1, tokens, turned]`, whose halves are alike, for positions `[1, tokens]`."""
        found = self.rotary(like, positions, *(() if self.kind is None else (self.kind,)))
        return tuple(torch.cat((part, part), dim=-1) if self.is_halved else part for part in found)


@dataclass(frozen=True)
class LayerForm:
    """The modules of a layer, in the order in which they are computed; None where it has none."""

    norm: Any | None
    projections: tuple[Any, ...]
    """Of queries, keys and values, or one of all three side by side."""
    query_norm: Any | None
    key_norm: Any | None
    turn: int | None
    """Its place among the model's rotary embeddings."""
    out: Any
    norm_behind: Any | None
    second_norm: Any | None
    second: Any
    """From hidden states to what is added to them, such as `down(act(gate(x)) * up(x))` or a mixture of experts."""
    second_norm_behind: Any | None
    times: float
    """What both results are multiplied by before they are added."""


@dataclass(frozen=True)
class DecoderForm:
    """A model in parts. All layers have the same heads."""

    embed: Any
    embed_times: float
    turns: tuple[Turn, ...]
    layers: tuple[LayerForm, ...]
    norm: Any
    heads: int
    kv_heads: int
    dim: int


def form_of(model: Any) -> DecoderForm:
    """A model's parts. Raises OtherFormError, or AttributeError, where they are others."""
    decoder = model.get_decoder()
    parts = _children(decoder, _MODEL)
    turns = [_turn(layer.self_attn, parts["rotary_emb"]) for layer in parts["layers"]]
    found = tuple(dict.fromkeys(turn for turn in turns if turn is not None))
    layers = tuple(
        _layer(layer, None if turn is None else found.index(turn))
        for layer, turn in zip(parts["layers"], turns, strict=True)
    )
    dim = parts["layers"][0].self_attn.head_dim
    width, joined = layers[0].out.in_features, sum(one.out_features for one in layers[0].projections)
    if width % dim or (joined - width) % (2 * dim):
        raise OtherFormError("its heads have several sizes")
    times = getattr(decoder, "embedding_multiplier", 1.0)
    return DecoderForm(
        parts["embed_tokens"], times, found, layers, parts["norm"], width // dim, (joined - width) // (2 * dim), dim
    )


def _turn(attention: Any, rotary: Any) -> Turn | None:
    home = type(attention).__module__
    name = home.removeprefix("transformers.models.").partition(".")[0]
    if name not in _SERVED:
        raise OtherFormError(f"what the attention of {name} does is not known here")
    if not getattr(attention, "use_rope", True):
        return None
    by_kind = "layer_type" in inspect.signature(rotary.forward).parameters
    kind = getattr(attention, "layer_type", None) or getattr(attention, "attention_type", None)
    return Turn(rotary, kind if by_kind else None, takes_half_tables(getattr(sys.modules[home], ROTARY)))


def _layer(layer: nn.Module, turn: int | None) -> LayerForm:
    children = {name: child for name, child in layer.named_children() if not isinstance(child, nn.Dropout)}
    norms = children.keys() - _LAYER
    places = next((found for found in _PLACES if norms == set(filter(None, found))), None)
    if places is None or not children.keys() >= _LAYER:
        raise OtherFormError(f"its layers consist of {', '.join(sorted(children))}")
    names = _TOGETHER if hasattr(children["self_attn"], *_TOGETHER) else _APART
    attention = _children(children["self_attn"], {*names, "o_proj"}, _HEAD_NORMS)
    before, behind, second, second_behind = (None if name is None else children[name] for name in places)
    return LayerForm(
        before,
        tuple(attention[name] for name in names),
        attention.get("q_norm"),
        attention.get("k_norm"),
        turn,
        attention["o_proj"],
        behind,
        second,
        children["mlp"],
        second_behind,
        getattr(layer, "residual_multiplier", 1.0),
    )


def _children(module: nn.Module, needed: set[str], others: Collection[str] = ()) -> dict[str, Any]:
    """The modules in a module, which are all of `needed` and may be some of `others`."""
    children = dict(module.named_children())
    if not needed <= set(children) <= needed | set(others):
        raise OtherFormError(f"its {type(module).__name__} consists of {', '.join(sorted(children))}")
    return children


def computed_by(module: nn.Module, *kinds: type) -> Any:
    """What computes a module instead of its own code. Raises OtherFormError where it is of none of these kinds."""
    found = vars(module).get("forward")
    if not isinstance(found, kinds):
        raise OtherFormError(f"no kernel computes its {type(module).__name__}")
    return found
