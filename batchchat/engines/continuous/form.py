"""The common form of a decoder: a norm before attention and one before a gated layer, rotary embeddings, both results
added to the hidden states. Its modules' names say whether a model seems to be of it, and a trial whether it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

_SERVED = {
    *("cwm", "granite", "internlm3", "iquestcoder", "llama", "ministral", "mistral", "qwen2", "qwen3", "seed_oss"),
}
"""The models of transformers whose attention is known to do no more than is said here."""
_MODEL = {"embed_tokens", "layers", "norm", "rotary_emb"}
_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_NORMS = {"q_norm", "k_norm"}


class OtherFormError(Exception):
    """The model has a part that is not of the common form."""


@dataclass(frozen=True)
class LayerForm:
    """The modules of a layer, in the order in which they are computed."""

    norm: Any
    query: Any
    key: Any
    value: Any
    query_norm: Any | None
    key_norm: Any | None
    out: Any
    second_norm: Any
    gated: Any
    """`down(act(gate(x)) * up(x))`"""


@dataclass(frozen=True)
class DecoderForm:
    """A model in parts. All layers have the same sizes."""

    embed: Any
    rotary: Any
    """From a tensor and positions `[1, tokens]` to cosines and sines `[1, tokens, dim]`."""
    layers: tuple[LayerForm, ...]
    norm: Any
    heads: int
    kv_heads: int
    dim: int


def form_of(model: Any) -> DecoderForm:
    """A model's parts. Raises OtherFormError, or AttributeError, where they are others."""
    parts = _children(model.model, _MODEL)
    layers = tuple(_layer(layer) for layer in parts["layers"])
    dim = parts["layers"][0].self_attn.head_dim
    width, kv_width = layers[0].out.in_features, layers[0].key.out_features
    if width % dim or kv_width % dim:
        raise OtherFormError
    return DecoderForm(
        parts["embed_tokens"], parts["rotary_emb"], layers, parts["norm"], width // dim, kv_width // dim, dim
    )


def _layer(layer: nn.Module) -> LayerForm:
    parts = _children(layer, _LAYER)
    attention = _children(parts["self_attn"], _ATTENTION, _NORMS)
    home = type(parts["self_attn"]).__module__.split(".")
    if home[:2] != ["transformers", "models"] or home[2] not in _SERVED:
        raise OtherFormError
    return LayerForm(
        parts["input_layernorm"],
        attention["q_proj"],
        attention["k_proj"],
        attention["v_proj"],
        attention.get("q_norm"),
        attention.get("k_norm"),
        attention["o_proj"],
        parts["post_attention_layernorm"],
        parts["mlp"],
    )


def _children(module: nn.Module, needed: set[str], others: Collection[str] = ()) -> dict[str, Any]:
    """The modules in a module, which are all of `needed` and may be some of `others`."""
    children = dict(module.named_children())
    if not needed <= set(children) <= needed | set(others):
        raise OtherFormError
    return children


def computed_by(module: nn.Module, *kinds: type) -> Any:
    """What computes a module instead of its own code. Raises OtherFormError where it is of none of these kinds."""
    found = vars(module).get("forward")
    if not isinstance(found, kinds):
        raise OtherFormError
    return found
