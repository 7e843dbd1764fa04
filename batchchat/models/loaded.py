"""A model that the caller has in memory already, in the place of one that is loaded by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchchat.errors import UsageError
from batchchat.models.kinds import require_causal
from batchchat.models.text import TextSide, codec_of, own_values
from batchchat.recipe import Recipe
from batchchat.recipe.model import ModelSection

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WHOLE = 2 * 1024**3
"""Models up to this many bytes are hashed whole; of larger ones some values of each tensor."""
_VALUES = 4096
_FREE = {"name", "draft"}
"""Settings of the recipe's model that are not about how it is loaded."""


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model of transformers with its tokenizer, wherever its weights lie."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(cls, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None) -> LoadedModel | None:
        """None where there is neither. Raises UsageError where one of them is missing."""
        if model is None and tokenizer is None:
            return None
        if model is None or tokenizer is None:
            raise UsageError(
                "a loaded model needs its tokenizer, and a tokenizer its model; give both, or a model's name"
            )
        return cls(model, tokenizer)

    def named_in(self, recipe: Recipe) -> Recipe:
        """The recipe with the model's own name, where it has none. Raises UsageError where it says how to load the
        model, or where this is none that can be run."""
        section = recipe.model
        name = section.name if "name" in section.model_fields_set else self._own_name
        require_causal(name, self.model.config)
        others = sorted(field for field in section.model_fields_set - _FREE if _differs(section, field))
        if others:
            raise UsageError(
                f"model.{others[0]} says how a model is loaded, and this one is loaded already; leave it out"
            )
        if not recipe.engine.needs.local_model:
            raise UsageError(
                f"engine.kind is {recipe.engine.kind}, which runs no model of this process; leave the model out, or "
                "set engine.kind=auto"
            )
        if recipe.engine.launcher != "local" or recipe.engine.replicas not in ("auto", 1):
            raise UsageError(
                "a loaded model is in this process alone; leave engine.replicas and engine.launcher out, or give the "
                "name of a model that each replica loads"
            )
        return recipe.model_copy(update={"model": section.model_copy(update={"name": name})})

    @property
    def _own_name(self) -> str:
        return str(getattr(self.model.config, "_name_or_path", "") or type(self.model).__name__)

    def text_side(self, recipe: Recipe) -> TextSide:
        """Codec and generation defaults."""
        defaults = own_values(self.model.generation_config) if self.model.generation_config is not None else {}
        return TextSide(codec_of(recipe, self.tokenizer, self.model.config, defaults), defaults)

    def identity(self, name: str) -> dict[str, Any]:
        """What tells it from others: a hash of its weights."""
        tensors = self.model.state_dict()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        whole = size <= _WHOLE
        digest = hashlib.sha256()
        for key in sorted(tensors):
            tensor = tensors[key]
            digest.update(f"{key}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
            digest.update(_bytes(tensor if whole else tensor.flatten()[:: max(1, tensor.numel() // _VALUES)]))
        return {
            "name": name,
            "weights_sha256": digest.hexdigest(),
            "bytes": size,
            "hashed": "whole" if whole else "some",
        }

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within, it answers as a trained model does, without dropout; afterwards it is as it was."""
        before = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            yield
        finally:
            for module, training in before:
                module.training = training


def _differs(section: ModelSection, field: str) -> bool:
    return getattr(section, field) != type(section).model_fields[field].get_default(call_default_factory=True)


def _bytes(tensor: Any) -> bytes:
    import torch

    if tensor.is_meta:  # it lies on a disk
        return b""
    flat = tensor.detach().contiguous().cpu().flatten()
    data: bytes = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return data
