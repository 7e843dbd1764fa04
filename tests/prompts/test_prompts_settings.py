"""Settings of a request: the row's over the recipe's over the model's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchchat.chats import Settings
from batchchat.errors import BadRow
from batchchat.prompts import (
    ByteCodec,
    SettingsResolver,
    TokenizerCodec,
    leaked_defaults,
    resolve_settings,
    row_samples,
    row_seed,
)
from batchchat.recipe.generation import GenerationSection
from tests.support import zoo
from tests.support.jobs import SHARED_DATA

MODEL = {
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
    "repetition_penalty": 1.05,
    "no_repeat_ngram_size": 4,
    "eos_token_id": [7, 8],
    "pad_token_id": 9,
    "max_length": 4096,
    "bad_words_ids": [[11, 12]],
}


def resolved(
    recipe: dict[str, Any], row: dict[str, Any] | None = None, model: dict[str, Any] | None = None
) -> Settings:
    section = GenerationSection.model_validate(recipe)
    return resolve_settings(section, row or {}, MODEL if model is None else model, ByteCodec())


def test_open_settings_come_from_the_model_and_are_named() -> None:
    settings = resolved({})
    assert (settings.temperature, settings.top_p, settings.repetition_penalty) == (0.6, 0.9, 1.05)
    assert settings.stop_token_ids == (7, 8, 256)
    assert settings.flags == (("no_repeat_ngram_size", 4),)
    assert settings.bad_words == ((11, 12),)
    assert leaked_defaults(GenerationSection(), MODEL) == {
        "bad_words_ids": [[11, 12]],
        "no_repeat_ngram_size": 4,
        "repetition_penalty": 1.05,
        "temperature": 0.6,
        "top_p": 0.9,
    }


def test_the_recipe_wins_and_what_it_sets_does_not_leak() -> None:
    recipe = {"temperature": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "max_new_tokens": 5}
    settings = resolved(recipe)
    assert (settings.temperature, settings.repetition_penalty, settings.max_new_tokens) == (0.0, 1.0, 5)
    assert settings.flags == ()
    assert leaked_defaults(GenerationSection.model_validate(recipe), MODEL) == {"bad_words_ids": [[11, 12]]}


def test_model_defaults_off_is_greedy_and_without_penalties() -> None:
    settings = resolved({"model_defaults": False})
    assert settings == Settings(256, stop_token_ids=(7, 8, 256))
    assert leaked_defaults(GenerationSection(model_defaults=False), MODEL) == {}


@pytest.mark.parametrize(
    ("recipe", "model", "temperature"),
    [
        ({}, {}, 0.0),
        ({}, {"temperature": 0.6}, 0.0),  # a temperature without do_sample is idle, as in transformers
        ({"do_sample": True}, {}, 1.0),
        ({"do_sample": True}, {"temperature": 0.6}, 0.6),
        ({"do_sample": False}, MODEL, 0.0),
        ({"temperature": 0.3}, {}, 0.3),
        ({"temperature": 0.3}, MODEL, 0.3),
    ],
)
def test_what_makes_an_answer_sampled(recipe: dict[str, Any], model: dict[str, Any], temperature: float) -> None:
    assert resolved(recipe, model=model).temperature == temperature


def test_rows_win_over_the_recipe() -> None:
    recipe = {"temperature": 0.5, "top_k": 10, "stop": ["END"], "samples": 2, "seed": 1}
    row = {"temperature": 1, "stop": "X", "num_beams": 2, "samples": 3, "seed": 4}
    settings = resolved(recipe, row)
    assert (settings.temperature, settings.top_k, settings.stop) == (1.0, 10, ("X",))
    assert ("num_beams", 2) in settings.flags
    section = GenerationSection.model_validate(recipe)
    assert (row_samples(section, row), row_seed(section, row)) == (3, 4)
    assert (row_samples(section, {}), row_seed(section, {})) == (2, 1)
    assert resolved({"do_sample": False}, {"temperature": 0.9}).temperature == 0.9
    assert resolved({"temperature": 0.9}, {"do_sample": False}).temperature == 0.0


def test_bad_row_settings_cost_the_row() -> None:
    with pytest.raises(BadRow, match="'temprature' is unknown; did you mean 'temperature'"):
        resolved({}, {"temprature": 1})
    with pytest.raises(BadRow, match=r"'top_p' is not valid: .* \(given: 3\)"):
        resolved({}, {"top_p": 3})


def test_end_tokens() -> None:
    assert resolved({"stop_token_ids": [3]}).stop_token_ids == (7, 8, 256, 3)
    assert resolved({"stop_token_ids": [3], "ignore_eos": True}).stop_token_ids == (3,)
    codec = TokenizerCodec(zoo.byte_bpe(), eos_token_ids=(7,))
    assert resolve_settings(GenerationSection(), {}, {"eos_token_id": 7}, codec).stop_token_ids == (7,)


def test_bad_words_stay_texts_in_each_spelling() -> None:
    codec = TokenizerCodec(zoo.byte_bpe())
    section = GenerationSection(bad_words=("fox", "</s>", "caf\u00e9"), stop=("e\u0301",), logit_bias={5: 1.0, 3: -1.0})
    settings = resolve_settings(section, {}, {}, codec)
    assert settings.bad_texts == ("fox", "</s>", "caf\u00e9", "cafe\u0301")
    assert settings.stop == ("e\u0301", "\u00e9")
    assert settings.logit_bias == ((3, -1.0), (5, 1.0))


def test_rows_without_settings_share_one_value() -> None:
    resolver = SettingsResolver(GenerationSection(), MODEL, ByteCodec())
    assert resolver.resolve({}) is resolver.resolve({})


CONFIGS = sorted((SHARED_DATA / "chat_templates" / "generation_configs").glob("*.json"))


@pytest.mark.skipif(not CONFIGS, reason="the folder of real generation configs, ../shared/data, is not on this machine")
def test_published_generation_configs_resolve() -> None:
    for path in CONFIGS:
        model = json.loads(path.read_text(encoding="utf-8"))
        settings = resolved({}, model=model)
        assert (settings.temperature > 0) == bool(model.get("do_sample")), path.name
        hash(settings)
