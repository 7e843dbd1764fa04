"""Adapters (LoRA, DoRA, IA³, …), beside the weights or added to them, loaded by peft and checked against it."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from batchchat.errors import EnvironmentFault, UsageError
from batchchat.models.checkpoint import named
from batchchat.models.names import explained, require_adapter_in_reach
from batchchat.recipe.model import ModelSection

_NAME = "default"
_PROBE = 32
"""Tokens of the forward pass that compares a loaded adapter with peft's own."""
_TOLERANCE = {"float32": 1e-3, "float64": 1e-3}
_COARSE = 0.1
"""How far logits may move by merging, in their standard deviations: it rounds to the weights' number format."""


def with_adapter(model: Any, section: ModelSection) -> Any:
    """The model with the adapter of its recipe section. It stays the class that it was, so that every engine treats it
    as any other model.

    Raises UsageError for a folder that is no adapter, for one whose weights are not exactly those that the model takes,
    and where the logits are not those of peft's own forward; EnvironmentFault without peft.
    """
    _require_peft()
    assert section.adapter is not None, "the recipe has an adapter"
    name = _located(section.adapter, section.local_files_only)
    with explained(section.adapter, "adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft warns of is refused here
        return _attached(model, name, section)


def _attached(model: Any, name: str, section: ModelSection) -> Any:
    from peft import PeftConfig, get_peft_model

    config = PeftConfig.from_pretrained(name, local_files_only=section.local_files_only)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UsageError(
            f"the adapter {section.adapter} is of type {config.peft_type.value}, which puts vectors beside the prompt "
            "instead of changing layers, and the engines cannot do that; name a LoRA adapter, or another that changes "
            "layers"
        )
    config.inference_mode = True
    wrapped = get_peft_model(model, config, _NAME).eval()
    _load(wrapped, name, section, config)
    expected = _logits(wrapped)
    inner = _merged(wrapped, section) if section.merge_adapter else wrapped.get_base_model()
    _require_same(inner, expected, section)
    return inner


def _load(wrapped: Any, name: str, section: ModelSection, config: Any) -> None:
    """The adapter's weights into the layers that its config made: each must find its place, and each place a weight."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    stored = load_peft_weights(name, device="cpu", local_files_only=section.local_files_only)
    places = get_peft_model_state_dict(wrapped, adapter_name=_NAME, save_embedding_layers=False)
    resized = [key for key, value in stored.items() if key in places and places[key].shape != value.shape]
    if resized or not stored:
        raise _misfit(section, config, {"have another size": resized, "are missing": places if not stored else ()})
    try:
        found = wrapped.load_adapter(name, _NAME, local_files_only=section.local_files_only)
    except KeyError as error:  # a module that is saved whole, and is not in the file
        raise _misfit(section, config, {"are missing": [str(error.args[0])]}) from error
    if found.missing_keys or found.unexpected_keys:
        raise _misfit(section, config, {"are missing": found.missing_keys, "are unknown to it": found.unexpected_keys})


def _misfit(section: ModelSection, config: Any, faults: Mapping[str, Iterable[str]]) -> UsageError:
    said = " and ".join(f"{named(keys)} {what}" for what, keys in faults.items() if list(keys))
    made_for = f" (it says that it was made for {config.base_model_name_or_path})"
    return UsageError(
        f"the adapter {section.adapter} does not fit the model {section.name}: {said}; set model.name to the model "
        f"that it was trained on{made_for if config.base_model_name_or_path else ''}, or save the adapter again"
    )


def _merged(wrapped: Any, section: ModelSection) -> Any:
    """The model with the adapter added to the weights that it changes, and no trace of it."""
    try:
        model = wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:  # each kind of adapter has reasons of its own
        words = " ".join(str(error).split()).rstrip(".")
        raise UsageError(
            f"the adapter {section.adapter} cannot be added to the weights ({words}); set model.merge_adapter=false"
        ) from error
    return model


def _logits(model: Any) -> Any:
    """Logits [tokens, vocabulary] on a few tokens from all over the vocabulary."""
    import torch

    table = model.get_input_embeddings().weight
    ids = torch.arange(_PROBE, device=table.device) * 7919 % table.shape[0]
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0].float()


def _require_same(model: Any, expected: Any, section: ModelSection) -> None:
    """What the engines will compute is what peft computes."""
    difference = float((_logits(model) - expected).abs().max() / expected.std())
    dtype = str(model.dtype).removeprefix("torch.")
    quantized = getattr(model, "hf_quantizer", None) is not None
    if difference <= (_COARSE if quantized else _TOLERANCE.get(dtype, _COARSE)):
        return
    way, advice = (
        ("added to the weights", "set model.merge_adapter=false")
        if section.merge_adapter
        else ("beside the weights", "set model.merge_adapter=true")
    )
    raise UsageError(
        f"the adapter {section.adapter}, {way}, answers otherwise than peft computes it: logits differ by "
        f"{difference:.2g} standard deviations; {advice}"
    )


def _require_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise EnvironmentFault("model.adapter needs peft, which is not installed; type `pip install 'batchchat[peft]'`")


def locate_adapter(section: ModelSection) -> Path:
    """The folder of the recipe's adapter; one of the hub is fetched. Raises as `with_adapter` where there is none."""
    assert section.adapter is not None, "the recipe has an adapter"
    name = _located(section.adapter, section.local_files_only)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    with explained(section.adapter, "adapter"):
        return Path(
            snapshot_download(
                name,
                local_files_only=section.local_files_only,
                allow_patterns=["adapter_config.json", "adapter_model.safetensors"],
            )
        )


def _located(name: str, local_files_only: bool) -> str:
    """The adapter's folder or hub id."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise UsageError(f"the folder {name} does not exist; set model.adapter to an adapter's folder or hub id")
        require_adapter_in_reach(name, local_files_only)
        return name
    if not (folder / "adapter_config.json").is_file():
        raise UsageError(f"the folder {name} holds no adapter_config.json; set model.adapter to an adapter's folder")
    if not (folder / "adapter_model.safetensors").is_file():
        raise UsageError(
            f"the adapter {name} has no adapter_model.safetensors, and other weights can run code when read; save it "
            "again with peft's `save_pretrained`"
        )
    return str(folder)
