"""Which kinds of models can answer chats, by their configs."""

from __future__ import annotations

from typing import Any

from batchchat.errors import UsageError


def require_causal(name: str, config: Any) -> None:
    """Raises UsageError for the config of a model that is no causal language model."""
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return  # code of its own, which the recipe trusts
    what = _other_kind(config)
    if what is not None:
        raise UsageError(
            f"the model {name} is of type {config.model_type!r}, {what}; set model.name to a causal language model"
        )


def _other_kind(config: Any) -> str | None:
    """What a config describes, where it is no causal language model."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
    )

    kind = type(config)
    if getattr(config, "is_encoder_decoder", False):
        return "which reads with an encoder and writes with a decoder, and batchchat runs models of one stack"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING and getattr(config, "is_decoder", None) is False
        return "an encoder, which fills gaps and does not go on with a text" if is_encoder else None
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return "a vision-language model, and batchchat runs models of text alone"
    return "which writes no text token by token"
