"""Whether the files of a checkpoint are all there, and exactly the weights that its config describes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

_BUFFERS = re.compile(
    r"(^|\.)(inv_freq|original_inv_freq|position_ids|masked_bias|(cos|sin)_cached)$"
    r"|\.(attn|attention)\.bias$"  # the causal mask that GPT-2 and its kin once saved
    r"|[._][kqv]_scale$"  # of caches with 8-bit numbers, which are not kept here
)
"""What older checkpoints store although the model computes it itself."""

_BESIDE = re.compile(
    r"^(\w+\.){0,2}(mtp\w*|nextn\w*|v_head|vision_\w+|visual|image_\w+|audio_\w+|speech_\w+|mm_projector"
    r"|multi_?modal\w*|talker|token2wav|code2wav)\."
)
"""Parts that stand beside the text model and change none of its logits: towers for pictures and sound, heads that guess
further tokens ahead, a value head."""

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def require_files(name: str, resolved: str) -> None:
    """Raises UsageError where a folder lacks weight files, or holds one that is cut off or no safetensors file."""
    folder = Path(resolved)
    if not folder.is_dir():
        return  # of the hub, which sends files whole and names those that are not there
    if not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"the folder of the model {name} has no .safetensors file, and other weights can run code when read; save "
            "the model again with `save_pretrained`, or name another model"
        )
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"the folder of the model {name} holds an adapter beside the model; move its adapter_config.json and "
            "adapter_model.safetensors to a folder of their own, and name that one with model.adapter"
        )
    files = [_SINGLE] if (folder / _SINGLE).is_file() else _sharded(name, folder)
    lost = [file for file in files if not (folder / file).is_file()]
    if lost:
        raise UsageError(
            f"the checkpoint of {name} lacks {len(lost)} of its {len(files)} weight files "
            f"({named(lost, count=False)}); copy or download it again"
        )
    for file in files:
        _require_sound(name, folder / file)


def _sharded(name: str, folder: Path) -> list[str]:
    """The weight files that the checkpoint's index names."""
    index = folder / _INDEX
    if not index.is_file():
        raise UsageError(
            f"the folder of the model {name} holds neither {_SINGLE} nor {_INDEX}, so its weights are not to be found; "
            "copy or download it again"
        )
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{index} is no index of a checkpoint ({type(error).__name__}: {error}); copy or download it again"
        ) from error


def _require_sound(name: str, file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        words = " ".join(str(error).split())
        raise UsageError(
            f"the weight file {file} of the model {name} is damaged or cut off ({words}); copy or download it again"
        ) from error


def require_whole(name: str, found: Mapping[str, Any], config: Any) -> None:
    """Raises UsageError unless each of the model's weights came from the checkpoint, in its size, and none was left
    over. `found` is what transformers says after loading: it fills what is missing or of another size with random
    numbers, and drops the rest."""
    resized = [f"{key} {_shape(stored)} for {_shape(wanted)}" for key, stored, wanted in found["mismatched_keys"]]
    if resized:
        raise UsageError(
            f"the checkpoint of {name} holds {named(resized)} in other sizes than its config.json says; put the "
            "config.json back that belongs to it, or download it again"
        )
    if found["missing_keys"]:
        raise UsageError(
            f"the checkpoint of {name} lacks {_of_weights(found['missing_keys'])}; save or download it again, or name "
            "another model"
        )
    left_over = [key for key in found["unexpected_keys"] if not _is_beside(key, config)]
    if left_over:
        raise UsageError(
            f"the checkpoint of {name} holds {named(left_over)} that its config.json has no place for (fewer layers, "
            "or another model), and without them it answers otherwise; put the config.json back that belongs to it, "
            "or download it again"
        )


def named(keys: Iterable[str], *, count: bool = True) -> str:
    """`3 weights (a, b, …)`: how many, and the first of them."""
    ordered = sorted(keys)
    shown = ", ".join(ordered[:2]) + (", …" if len(ordered) > 2 else "")
    return f"{len(ordered)} weight{'s' if len(ordered) > 1 else ''} ({shown})" if count else shown


def _of_weights(missing: Collection[str]) -> str:
    return f"{len(missing)} of the model's weights ({min(missing)}{', …' if len(missing) > 1 else ''})"


def _is_beside(key: str, config: Any) -> bool:
    """Whether the text model's answers are the same without this weight."""
    if _BUFFERS.search(key) or _BESIDE.search(key):
        return True
    layer = _LAYER.search(key)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    further, layers = getattr(text, "num_nextn_predict_layers", None), getattr(text, "num_hidden_layers", None)
    if layer is None or not further or layers is None:
        return False
    return bool(layers <= int(layer[1]) < layers + further)  # which guess the token after the next


def _shape(size: Any) -> str:
    return "×".join(str(number) for number in size)
