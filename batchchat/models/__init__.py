"""From the recipe's model section to a tokenizer, a codec, generation defaults and a model, each loaded apart."""

from batchchat.models.loading import load_model, show_loading
from batchchat.models.names import NO_MODEL, locate, require_in_reach, resolve_name
from batchchat.models.text import (
    TextSide,
    context_length,
    load_config,
    load_generation_defaults,
    load_text_side,
    load_tokenizer,
)

__all__ = [
    "NO_MODEL",
    "TextSide",
    "context_length",
    "load_config",
    "load_generation_defaults",
    "load_model",
    "load_text_side",
    "load_tokenizer",
    "locate",
    "require_in_reach",
    "resolve_name",
    "show_loading",
]
