"""A loaded model with all lengths of its config made short, so that a prompt of a few dozen tokens shows what the model
itself does only after thousands: windows, chunks, scales of far positions, rotary embeddings that change."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

SHORT = 16
"""Tokens that every length becomes."""

_LENGTHS = re.compile(
    r"window(?!_layers)|chunk|floor|block_size|compress|local_attention|index_topk|original_max_position"
)
"""Names of lengths that change what a model computes; those that only limit a prompt are not among them."""


@dataclass(frozen=True)
class Shortened:
    """The model with short lengths, and what they were."""

    model: Any
    lengths: dict[str, int]


def shortened(model: Any) -> Shortened | None:
    """The model with short lengths, over the same weights and by the same kernels; None where its config names no
    length. Raises whatever a model raises that cannot be built anew."""
    from accelerate import init_empty_weights

    config = copy.deepcopy(model.config)
    lengths: dict[str, int] = {}
    for holder, name, length in _named_lengths(config):
        lengths[name] = max(length, lengths.get(name, 0))
        holder[name] = min(SHORT, length)
    if not any(length > SHORT for length in lengths.values()):
        return None
    with init_empty_weights(include_buffers=False):
        twin = type(model)(config)
    _share(model, twin)
    return Shortened(twin.eval(), lengths)


def longest_length(config: Any) -> int:
    """The largest number of tokens that a config names."""
    own = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
    return max([own, *(length for *_, length in _named_lengths(config))])


def rope_threshold(config: Any) -> int | None:
    """The length beyond which a model's rotary embedding depends on how long the whole sequence is, and in a batch on
    its longest row; None where it never does."""
    config = config.get_text_config()
    found = [
        rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        if rope["rope_type"] == "longrope"
        else config.max_position_embeddings
        for rope in ropes(config)
        if rope.get("rope_type") in ("dynamic", "longrope")
    ]
    return min((length or config.max_position_embeddings for length in found), default=None)


def ropes(config: Any) -> list[dict[str, Any]]:
    """The rotary embeddings of a text config: one, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [rope, *(part for part in rope.values() if isinstance(part, dict))]


def _named_lengths(config: Any) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Where each length stands, its name and what it is; those of parts and of single layers too."""
    values = vars(config)
    changing = any(rope.get("rope_type") == "dynamic" for rope in ropes(config))
    for name, value in list(values.items()):
        if isinstance(value, dict):
            yield from _in_mapping(value, _LENGTHS.search(name) is not None)
        elif hasattr(value, "get_text_config"):
            yield from _named_lengths(value)
        elif _is_length(name, value) or (changing and name == "max_position_embeddings"):
            yield values, name, value
    spec = values.get("_heterogeneity_spec")
    if spec is not None:
        yield from _in_mapping(spec.per_layer_overrides)


def _in_mapping(values: dict[Any, Any], of_lengths: bool = False) -> Iterator[tuple[dict[str, Any], str, int]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _in_mapping(value)
        elif _is_length("window" if of_lengths else str(name), value):
            yield values, name, value


def _is_length(name: str, value: Any) -> bool:
    return type(value) is int and value > 0 and _LENGTHS.search(name) is not None


def _share(model: nn.Module, twin: nn.Module) -> None:
    """Give a model that was built with empty weights those of another one, and the modules that hold nothing else."""
    sources = dict(model.named_modules(remove_duplicate=False))
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        source = sources[name]
        for key, parameter in module._parameters.items():
            own = source._parameters[key]
            if type(source) is type(module) and parameter is not None and own.shape != parameter.shape:
                raise ValueError(f"a length of its config shapes its weights ({name}.{key})")
        if source._parameters and not source._modules and name:
            parent, _, child = name.rpartition(".")
            twin.get_submodule(parent)._modules[child] = source
            continue
        module._parameters.update(source._parameters)
        for key, buffer in source._buffers.items():
            mine = module._buffers.get(key)
            if mine is None or key not in module._non_persistent_buffers_set:
                module._buffers[key] = buffer
            elif buffer is not None:
                module._buffers[key] = mine.to(buffer.device)
        if hasattr(source, "_hf_hook"):  # of a model on several devices
            from accelerate.hooks import add_hook_to_module

            add_hook_to_module(module, copy.copy(source._hf_hook))
