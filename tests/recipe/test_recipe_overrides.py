"""`section.setting=value` on the command line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from batchchat.recipe import Recipe, RecipeError, recipe_from_mapping
from batchchat.recipe.dumping import to_inline_yaml

BASE = {
    "source": {"path": "a.jsonl"},
    "chat": {"template_kwargs": {"enable_thinking": True, "tone": "dry"}},
    "generation": {"stop": ["x", "y"], "max_new_tokens": 5},
}


def loaded(*overrides: str) -> Recipe:
    return recipe_from_mapping(BASE, overrides)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(values)
@example("a=b=c")
@example("no")
@example("-")
@example([None])
@example({"\x85": "\u2028 and \ufeff"})
def test_any_value_survives(value: Any) -> None:
    for text in (yaml.safe_dump(value), to_inline_yaml(value)):
        assert loaded(f"chat.template_kwargs.x={text}").chat.template_kwargs["x"] == value


@given(st.text(min_size=1))
def test_any_text_survives_where_text_is_meant(text: str) -> None:
    assert loaded(f"chat.system={yaml.safe_dump(text)}").chat.system == text


def test_only_the_first_equals_sign_ends_the_name() -> None:
    assert loaded('generation.stop=["a=b"]').generation.stop == ("a=b",)
    assert loaded("generation.stop=a=b=c").generation.stop == ("a=b=c",)


def test_lists_and_mappings_replace_and_longer_names_merge() -> None:
    assert loaded("generation.stop=[z]").generation.stop == ("z",)
    assert loaded("chat.template_kwargs={a: 1}").chat.template_kwargs == {"a": 1}
    merged = loaded("chat.template_kwargs.enable_thinking=false").chat.template_kwargs
    assert merged == {"enable_thinking": False, "tone": "dry"}
    assert loaded("generation={seed: 3}").generation.max_new_tokens == 256


def test_sections_on_the_way_are_made() -> None:
    assert loaded("engine.scripted.answer=counting", "engine.kind=scripted").engine.options.answer == "counting"
    assert loaded("generation.logit_bias.15=2.5").generation.logit_bias == {15: 2.5}
    without_sections = recipe_from_mapping({"chat": None}, ["source.path=b", "chat.system=Hi"])
    assert (without_sections.source.path, without_sections.chat.system) == (("b",), "Hi")


def test_the_later_of_two_wins() -> None:
    assert loaded("generation.seed=1", "generation.seed=2").generation.seed == 2
    assert loaded("generation.seed=oops", "generation.seed=2").generation.seed == 2


def test_null_leaves_a_setting_open() -> None:
    assert loaded("generation.temperature=0.5", "generation.temperature=null").generation.temperature is None


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("source.path=*.jsonl", ("*.jsonl",)),
        ("source.path=-", ("-",)),
        ("source.path=[a, b]", ("a", "b")),
        ("source.path=x.jsonl", ("x.jsonl",)),
        ("source.path=2024", ("2024",)),
        ("source.path=@odd: {name", ("@odd: {name",)),
    ],
)
def test_text_needs_no_second_quotes(override: str, path: tuple[str, ...]) -> None:
    assert loaded(override).source.path == path


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model.revision=no", "no"),
        ("model.revision=0123", "0123"),
        ("model.revision=1e5", "1e5"),
        ("model.revision=2024-01-01", "2024-01-01"),
        ("model.revision=null", None),
        ('model.revision="null"', "null"),
    ],
)
def test_what_yaml_would_misread_stays_text_where_text_is_meant(override: str, value: str | None) -> None:
    assert loaded(override).model.revision == value


@pytest.mark.parametrize(
    ("override", "field", "words"),
    [
        ("generation.temprature=1", "generation.temprature", "did you mean generation.temperature?"),
        ("generaton.top_k=1", "generaton", "did you mean generation?"),
        ("generation.seed.x=1", "generation.seed", "is a mapping; it must be a whole number"),
        ("source.path.x=1", "source.path.x", "source.path is no mapping; replace it with source.path="),
        ("generation.top_p=2", "generation.top_p", "is 2; it must be a number (above 0, at most 1)"),
        ("generation.seed=010", "generation.seed", "which YAML reads as 8"),
        ("generation.seed=[1", "", "the value of generation.seed is not YAML"),
        ("generation.seed=", "generation.seed", "gets no value"),
        ("generation.stop=[1]", "generation.stop[0]", "is 1; it must be text"),
        ("generation.seed", "", "an override is section.setting=value"),
        ("=5", "", "an override is section.setting=value"),
        ("generation..seed=5", "", "an override is section.setting=value"),
        ("--seed=5", "--seed", "is not a setting"),
        ("chat.overflow=eror", "chat.overflow", "did you mean error?"),
        ("name=a b", "name", "matches"),
    ],
)
def test_mistakes_name_the_override(override: str, field: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loaded(override)
    (mistake,) = caught.value.mistakes
    name, equals, _ = override.partition("=")
    assert mistake.spot.text == f"override '{name}{'=…' if equals else ''}'"
    assert mistake.field == field
    assert words in mistake.text


def test_mistakes_of_file_and_overrides_come_together() -> None:
    data = {"source": {"path": "a"}, "generation": {"sed": 1}}
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(data, ["chat.trns=last", "nonsense", "generation.top_k=-1"])
    assert [mistake.field for mistake in caught.value.mistakes] == [
        "generation.sed",
        "chat.trns",
        "",
        "generation.top_k",
    ]
