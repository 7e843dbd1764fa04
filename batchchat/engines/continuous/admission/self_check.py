"""Whether a model can be run over slots: what its configuration says, then a short prompt tried both ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.caches import make_cache
from batchchat.engines.continuous.model_runner import ModelRunner, UnsupportedModelError
from batchchat.engines.facts import AttentionFacts
from batchchat.engines.rounding import logit_differences, tolerance
from batchchat.models.shortened import rope_threshold, shortened

_ATTENTIONS = {"full_attention", "sliding_attention", "attention"}
_TAKES = ((16, 16, 1, 1, 3), (3, 1, 1))
"""How many tokens of each of two prompts the passes take."""


@dataclass(frozen=True, slots=True)
class Check:
    """`reason` says why the model cannot be run over slots; None if it can. `difference` is that of the logits to the
    plain forward's (see `rounding.tolerance`) at the worst place, where it came to that; `pages` says who attended."""

    reason: str | None
    difference: float | None = None
    pages: AttentionFacts | None = None


def self_check(model: Any) -> Check:
    """Try a model, as it is and with all its lengths made short, so that prompts go beyond them."""
    config = model.config.get_text_config()
    reason = _refusal(config)
    if reason is not None:
        return Check(reason)
    found = _try(model)
    if found.reason is not None:
        return found
    try:
        short = shortened(model)
    except Exception as error:  # a model may fail in any way when it is built anew
        return Check(f"what it does beyond the lengths that its config names could not be tried: {_words(error)}")
    if short is None:
        return found
    beyond = _try(short.model)
    if beyond.reason is not None:
        lengths = ", ".join(f"{name} {length}" for name, length in sorted(short.lengths.items()))
        return Check(f"beyond the lengths that its config names ({lengths}) {beyond.reason}", beyond.difference)
    return replace(found, difference=max(found.difference or 0.0, beyond.difference or 0.0))


def _try(model: Any) -> Check:
    """Two prompts run together in chunks and single tokens; every logit is compared."""
    device = model.get_input_embeddings().weight.device
    runner = ModelRunner(model, make_cache("auto", device, 1024), by_modules=True)
    tokens = probe.prompts(model.config.get_text_config().vocab_size, list(map(sum, _TAKES)))
    try:
        takes = list(zip_longest(*_TAKES, fillvalue=0))
        ours = [logits.float().cpu() for logits in probe.logits(runner, takes, tokens)]
        plain = [_plainly(model, prompt) for prompt in tokens]
    except UnsupportedModelError as error:
        return Check(str(error))
    except Exception as error:  # a model may fail in any way on inputs that it does not expect
        if not runner.scorings:
            return Check("its attention function cannot be replaced")
        return Check(f"a packed pass raised {_words(error)}")
    reason = _missed(runner)
    if reason is not None:
        return Check(reason)
    difference = float(torch.cat([logit_differences(*pair) for pair in zip(ours, plain, strict=True)]).max())
    limit = tolerance(model.dtype)
    if not difference <= limit:
        return Check(
            f"its logits differ from the plain forward by {difference:.3g} standard deviations, where {limit:g} "
            "is what rounding may explain",
            difference,
        )
    return Check(None, difference, runner.cache.attended_by())


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _refusal(config: Any) -> str | None:
    """What the configuration already rules out."""
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    others = set(getattr(config, "layer_types", None) or ()) - _ATTENTIONS
    if others:
        return f"it has layers that are not plain attention ({', '.join(sorted(others))})"
    if rope_threshold(config) is not None:
        return "its rotary embedding depends on the longest sequence of the batch"
    return None


def _missed(runner: ModelRunner) -> str | None:
    """What the attention function was not called for."""
    config = runner.model.config.get_text_config()
    layers = config.num_hidden_layers
    if not runner.scorings:
        return "its attention function cannot be replaced"
    if len(runner.scorings) < layers:
        return f"only {len(runner.scorings)} of its {layers} layers use the replaceable attention function"
    return None


@torch.inference_mode()
def _plainly(model: Any, prompt: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt], device=model.get_input_embeddings().weight.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits.float().cpu()
