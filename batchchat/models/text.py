"""The side of a model that needs no weights: tokenizer, template, context length and generation defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError
from batchchat.models.names import NO_MODEL, explained, hub_arguments, locate
from batchchat.prompts import ByteCodec, Codec, MessagesCodec, TokenizerCodec
from batchchat.recipe import Recipe
from batchchat.recipe.model import ModelSection

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx")


@dataclass(frozen=True)
class TextSide:
    """What the run needs of its model before any weight is read."""

    codec: Codec
    generation_defaults: Mapping[str, Any]
    """What the model's generation config sets, empty without a model."""


def load_text_side(recipe: Recipe) -> TextSide:
    """Codec and generation defaults of the recipe's model, as far as its engine needs them; where there is no tokenizer
    (the engine needs none, or `model.name: scripted` has none), prompts are bytes, or for an engine that takes no token
    ids messages."""
    needs = recipe.engine.needs
    if recipe.model.name == NO_MODEL or not needs.tokenizer:
        return TextSide(ByteCodec() if needs.token_ids else MessagesCodec(), {})
    config = load_config(recipe.model)
    defaults = load_generation_defaults(recipe.model)
    return TextSide(codec_of(recipe, load_tokenizer(recipe.model), config, defaults), defaults)


def codec_of(recipe: Recipe, tokenizer: Any, config: Any, defaults: Mapping[str, Any]) -> Codec:
    """The codec of a tokenizer with the recipe's template, for a model of this config and these generation defaults."""
    return TokenizerCodec(
        tokenizer,
        template=read_template(recipe.chat.template),
        template_kwargs=recipe.chat.template_kwargs,
        eos_token_ids=_as_ids(defaults.get("eos_token_id", getattr(config, "eos_token_id", None))),
        context_length=context_length(config),
    )


def load_config(section: ModelSection) -> Any:
    """The model's transformers config."""
    name = locate(section)
    from transformers import AutoConfig  # after it: a model out of reach is said before the library is read

    with explained(section.name):
        return AutoConfig.from_pretrained(name, **hub_arguments(section), **_gguf(section))


def load_tokenizer(section: ModelSection) -> Any:
    """The model's transformers tokenizer. Raises UsageError where there is none."""
    from transformers import AutoTokenizer

    name = locate(section)
    with explained(section.name):
        return AutoTokenizer.from_pretrained(name, **hub_arguments(section), **_gguf(section))


def load_generation_defaults(section: ModelSection) -> dict[str, Any]:
    """What the model's own files say about generation: generation_config.json, or config.json where there is none.
    Only values that differ from transformers' own defaults."""
    from transformers import GenerationConfig

    name = locate(section)
    with explained(section.name):
        try:
            found = GenerationConfig.from_pretrained(name, **hub_arguments(section))
        except OSError as error:
            if isinstance(error.__context__, ValueError):
                raise _broken_defaults(section.name, error.__context__) from error
            # There is no generation_config.json; if the model itself is missing, reading its config says so.
            found = GenerationConfig.from_model_config(load_config(section))
        except (TypeError, ValueError, AttributeError) as error:
            raise _broken_defaults(section.name, error) from error
    ends = found.eos_token_id
    if not all(type(end) is int and end >= 0 for end in (ends if isinstance(ends, list) else [ends or 0])):
        raise _broken_defaults(section.name, f"its eos_token_id is {ends!r}, no token id")
    return own_values(found)


def own_values(generation_config: Any) -> dict[str, Any]:
    """What a transformers GenerationConfig sets otherwise than transformers does."""
    values: dict[str, Any] = generation_config.to_diff_dict()
    return {key: value for key, value in values.items() if key != "transformers_version" and not key.startswith("_")}


def _broken_defaults(name: str, reason: object) -> UsageError:
    words = " ".join(str(reason).split()).rstrip(".")
    return UsageError(
        f"the generation_config.json of the model {name} cannot be used ({words[:300]}); mend it, or copy or download "
        "it again"
    )


def context_length(config: Any) -> int | None:
    """Tokens that a model of this config takes, prompt and answer together; None where the config does not say."""
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    for key in _CONTEXT_KEYS:
        value = getattr(text_config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def checkpoint_dtype(config: Any) -> str:
    """The number format of the checkpoint's weights, which `model.dtype: auto` keeps; float32 where its config does
    not say, as transformers has it."""
    dtype = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")


def read_template(path: str | None) -> str | None:
    """The chat template in a file."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the chat template {path} cannot be read ({error}); set chat.template to a UTF-8 file with a Jinja "
            "template"
        ) from error


def _gguf(section: ModelSection) -> dict[str, str]:
    return {} if section.gguf_file is None else {"gguf_file": section.gguf_file}


def _as_ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
