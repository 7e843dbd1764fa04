"""The settings of one request: the row's own over the recipe's over the model's generation config."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats import GrammarBackend, Settings
from batchchat.errors import BadRow, UsageError
from batchchat.prompts.codec import Codec
from batchchat.prompts.token_texts import spellings
from batchchat.recipe.flags import GenerationFlags, effective_flags, freeze_flags, thaw_flags

_PLAIN = (
    "max_new_tokens",
    "min_new_tokens",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "logprobs_of",
)
"""Fields that go into `Settings` under their own name, where they are not None."""

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")

_NOT_DEFAULTS = frozenset(
    (
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "decoder_start_token_id",
        "do_sample",
        "eos_token_id",
        "is_assistant",
        "max_length",
        "max_new_tokens",
        "max_time",
        "min_length",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "return_dict",
        "return_dict_in_generate",
        "stop_strings",
        "transformers_version",
        "use_cache",
        "_from_model_config",
    )
)
"""What a generation config says that is not a default of a run: ids and limits, which have their own place here, and
how transformers computes and returns. `do_sample` is read apart."""


class SettingsResolver:
    """Resolves settings of rows against one recipe and model.

    `generation` is the recipe's section (a pydantic model; None is open), `defaults` the model's generation config,
    `backend` the recipe's `engine.grammar_backend`.
    """

    def __init__(
        self, generation: Any, defaults: Mapping[str, Any], codec: Codec, backend: GrammarBackend = "llguidance"
    ):
        self._backend: GrammarBackend = backend
        self._generation = generation
        self._defaults = defaults
        self._codec = codec
        self._base = self._settings(generation)

    def resolve(self, row_settings: Mapping[str, Any]) -> Settings:
        """All values of one row; raises BadRow for a setting that is unknown or out of range."""
        if not row_settings:
            return self._base
        return self._settings(_with_row(self._generation, row_settings))

    def _settings(self, generation: Any) -> Settings:
        open_to = _usable_defaults(self._defaults) if generation.model_defaults else {}
        _require_valid(generation, {name: value for name, value in open_to.items() if _is_open(generation, name)})
        values = {name: _first(getattr(generation, name), open_to.get(name)) for name in _PLAIN}
        stop_ids = tuple(generation.stop_token_ids or ())
        if not generation.ignore_eos:
            stop_ids = (*_as_ids(self._defaults.get("eos_token_id")), *self._codec.eos_token_ids, *stop_ids)
        model_flags = {name: value for name, value in open_to.items() if name in GenerationFlags.model_fields}
        flags = {**model_flags, **thaw_flags(generation.passthrough())}
        temperature = _temperature(generation, self._defaults if generation.model_defaults else {})
        return Settings(
            temperature=temperature,
            logit_bias=tuple(sorted((int(token), bias) for token, bias in (generation.logit_bias or {}).items())),
            bad_words=tuple(tuple(ids) for ids in open_to.get("bad_words_ids") or () if ids),
            bad_texts=self._forbidden(generation.bad_words or ()),
            stop=spellings(generation.stop or ()),
            stop_token_ids=tuple(dict.fromkeys(stop_ids)),
            structured=None if generation.structured is None else generation.structured.as_structure(self._backend),
            flags=freeze_flags(effective_flags(flags, sampled=temperature > 0)),
            **{name: value for name, value in values.items() if value is not None},
        )

    def _forbidden(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Raises UsageError where the texts of tokens, by which they are kept out, are not known."""
        if texts:
            self._codec.token_texts()
        return spellings(texts)


def resolve_settings(
    generation: Any, row_settings: Mapping[str, Any], defaults: Mapping[str, Any], codec: Codec
) -> Settings:
    """`SettingsResolver.resolve` for one row."""
    return SettingsResolver(generation, defaults, codec).resolve(row_settings)


def row_samples(generation: Any, row_settings: Mapping[str, Any]) -> int:
    """How many answers the row asks for."""
    samples: int = _with_row(generation, row_settings).samples if row_settings else generation.samples
    return samples


def row_seed(generation: Any, row_settings: Mapping[str, Any]) -> int:
    """The seed that the row's request seeds come from."""
    seed: int = _with_row(generation, row_settings).seed if row_settings else generation.seed
    return seed


def leaked_defaults(generation: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the recipe leaves open and the model's generation config decides, by name: what a reader of the
    recipe alone does not see. Empty where `generation.model_defaults` is off."""
    if not generation.model_defaults:
        return {}
    temperature = _temperature(generation, defaults)
    open_to = {name: value for name, value in _usable_defaults(defaults).items() if _is_open(generation, name)}
    if temperature == 0.0:
        open_to = {name: value for name, value in open_to.items() if name not in _SAMPLING}
    elif generation.temperature is None and generation.do_sample is None:
        open_to["temperature"] = temperature
    return dict(sorted(open_to.items()))


def _with_row(generation: Any, row_settings: Mapping[str, Any]) -> Any:
    """The recipe's section with the row's settings in it, checked by the recipe's own rules."""
    from pydantic import ValidationError  # here, so that a run without row settings does not need it

    section = type(generation)
    for name in row_settings:
        if name not in section.model_fields:
            near = difflib.get_close_matches(name, section.model_fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else "see the recipe's generation section for those known"
            raise BadRow(f"the row's generation setting {name!r} is unknown; {hint}")
    values = generation.model_dump(exclude_unset=True)
    if "temperature" in row_settings and "do_sample" not in row_settings:
        values.pop("do_sample", None)  # the recipe's greedy switch gives way to the row's temperature
    if row_settings.get("do_sample") is False and "temperature" not in row_settings:
        values.pop("temperature", None)
    try:
        return section.model_validate({**values, **row_settings})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        raise BadRow(
            f"the row's generation setting {field!r} is not valid: {first['msg']} (given: {first['input']!r}); "
            "change it in the row"
        ) from error


def _temperature(generation: Any, defaults: Mapping[str, Any]) -> float:
    """0 where the answer is greedy. A given temperature means sampling, as does `do_sample`, the recipe's before the
    model's; without any of them the answer is greedy, as in transformers."""
    if generation.do_sample is False:
        return 0.0
    if generation.temperature is not None:
        return float(generation.temperature)
    if generation.do_sample or defaults.get("do_sample"):
        return float(_first(defaults.get("temperature"), 1.0))
    return 0.0


def _require_valid(generation: Any, defaults: Mapping[str, Any]) -> None:
    """The model's own values obey the rules of the recipe's."""
    from pydantic import ValidationError

    section = type(generation)
    for name, value in defaults.items():
        if name not in section.model_fields:
            continue
        try:
            section.model_validate({name: value})
        except ValidationError as error:
            raise UsageError(
                f"the model's generation config sets {name}={value!r}, which is not valid: {error.errors()[0]['msg']}; "
                f"set generation.{name}, or generation.model_defaults=false"
            ) from error


def _usable_defaults(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value is not None and name not in _NOT_DEFAULTS}


def _is_open(generation: Any, name: str) -> bool:
    """Whether a default of the model takes effect: its field is known and left open."""
    if name == "bad_words_ids":
        return True
    return name in type(generation).model_fields and getattr(generation, name) is None


def _as_ids(value: int | Sequence[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
