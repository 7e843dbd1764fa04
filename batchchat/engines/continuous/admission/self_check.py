"""Whether a model can be run over slots: what its configuration says, then a short prompt tried both ways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.caches import make_cache
from batchchat.engines.continuous.model_runner import ModelRunner, UnsupportedModelError
from batchchat.models.shape import has_experts

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.15}
"""Difference of logits that rounding may explain, by dtype: root mean square over the vocabulary at the worst place, in
standard deviations of the logits."""

_ATTENTIONS = {"full_attention", "sliding_attention", "attention"}
_BATCH_WIDE_ROPE = {"dynamic", "longrope"}
_TAKES = ((16, 16, 1, 1, 3), (3, 1, 1))
"""How many tokens of each of two prompts the passes take."""


@dataclass(frozen=True, slots=True)
class Check:
    """`reason` says why the model cannot be run over slots; None if it can. `difference` is that of the logits to the
    plain forward's (see `TOLERANCE`), where it came to that."""

    reason: str | None
    difference: float | None = None


def check(model: Any, strict: bool = False) -> Check:
    """Try a model. Two prompts run together in chunks and single tokens; every logit is compared."""
    config = model.config.get_text_config()
    reason = _refusal(config)
    if reason is None and strict and has_experts(config):
        reason = "how many rows its experts compute depends on the other rows, which strict mode rules out"
    if reason is not None:
        return Check(reason)
    device = model.get_input_embeddings().weight.device
    runner = ModelRunner(model, make_cache("auto", device, 1024), by_modules=True)
    tokens = probe.prompts(config.vocab_size, list(map(sum, _TAKES)))
    try:
        takes = list(zip_longest(*_TAKES, fillvalue=0))
        ours = [logits.float().cpu() for logits in probe.logits(runner, takes, tokens)]
        plain = [_plainly(model, prompt) for prompt in tokens]
    except UnsupportedModelError as error:
        return Check(str(error))
    except Exception as error:  # a model may fail in any way on inputs that it does not expect
        if not runner.scorings:
            return Check("its attention function cannot be replaced")
        return Check(f"a packed pass raised {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    reason = _missed(runner)
    if reason is not None:
        return Check(reason)
    differences = [_difference(one, other) for one, other in zip(ours, plain, strict=True)]
    difference = next((found for found in differences if math.isnan(found)), max(differences))
    tolerance = TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])
    if not difference <= tolerance:
        return Check(
            f"its logits differ from the plain forward by {difference:.3g} standard deviations, where {tolerance:g} "
            "is what rounding may explain",
            difference,
        )
    return Check(None, difference)


def _refusal(config: Any) -> str | None:
    """What the configuration already rules out."""
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    others = set(getattr(config, "layer_types", None) or ()) - _ATTENTIONS
    if others:
        return f"it has layers that are not plain attention ({', '.join(sorted(others))})"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type")} | {part.get("rope_type") for part in rope.values() if isinstance(part, dict)}
    if kinds & _BATCH_WIDE_ROPE:
        return "its rotary embedding depends on the longest sequence of the batch"
    return None


def _missed(runner: ModelRunner) -> str | None:
    """What the attention function was not told of, and a short prompt cannot show."""
    config = runner.model.config.get_text_config()
    layers = config.num_hidden_layers
    if not runner.scorings:
        return "its attention function cannot be replaced"
    if len(runner.scorings) < layers:
        return f"only {len(runner.scorings)} of its {layers} layers use the replaceable attention function"
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window and kinds:
        slides = [layer for layer, kind in enumerate(kinds) if kind == "sliding_attention"]
        if any(runner.scorings[layer].window is None for layer in slides):
            return f"its attention function is not told of the sliding window of {window} tokens"
    return None


def _difference(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """NaN where either holds one."""
    return float((ours - plain).pow(2).mean(dim=-1).sqrt().max() / plain.std().clamp_min(1e-6))


@torch.inference_mode()
def _plainly(model: Any, prompt: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt], device=model.get_input_embeddings().weight.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits.float().cpu()
