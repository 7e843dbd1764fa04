"""The recipe's tree: strict, frozen, described, and complete beside the installed transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from batchchat.errors import UsageError
from batchchat.recipe import Recipe, freeze_flags, recipe_from_mapping, recipe_json_schema, thaw_flags
from batchchat.recipe.flags import REPLACED_FLAGS, GenerationFlags
from batchchat.recipe.generation import RowSettings
from batchchat.recipe.json_schema import Setting, sections, settings
from batchchat.recipe.names import KNOWN_ELSEWHERE
from batchchat.recipe.pipeline import load_pipeline, pipeline_json_schema
from batchchat.recipe.rendering import markdown_page
from batchchat.reporting.schema import results_page
from tests.support.jobs import ROOT


def recipe(**generation: Any) -> Recipe:
    return recipe_from_mapping({"source": {"path": "a.jsonl"}, "generation": generation})


def with_setting(path: str, value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"source": {"path": "a.jsonl"}}
    inner = data
    *above, name = path.split(".")
    for depth, piece in enumerate(above, start=1):
        inner = inner.setdefault(piece, {})
        for beside in settings():
            section, _, other = beside.path.rpartition(".")
            if beside.required and section.split(".") == above[:depth]:
                inner.setdefault(other, beside.node["examples"][0])
    inner[name] = value
    return data


def test_every_flag_of_the_installed_generation_config_is_known() -> None:
    from transformers import GenerationConfig

    flags = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {"transformers_version"}
    known = [*GenerationFlags.model_fields, *RowSettings.model_fields, *REPLACED_FLAGS]
    assert flags <= set(known)
    assert len(known) == len(set(known)), "a flag is in two of the lists"
    assert set(GenerationFlags.model_fields) | set(REPLACED_FLAGS) <= flags, "a flag that transformers does not have"


@pytest.mark.parametrize(
    "setting", [s for s in settings() if s.name in GenerationFlags.model_fields], ids=lambda setting: setting.name
)
def test_generation_config_takes_each_passed_flag(setting: Setting) -> None:
    from transformers import CompileConfig, GenerationConfig

    (example,) = setting.node["examples"]
    loaded = Recipe.model_validate(with_setting(setting.path, example))
    passed = thaw_flags(loaded.generation.passthrough())
    assert passed == {setting.name: example}
    if setting.name == "compile_config":
        passed[setting.name] = CompileConfig(**passed[setting.name])
    if setting.name == "max_cache_len":
        passed["cache_implementation"] = "static"
    assert GenerationConfig(**passed).to_dict()[setting.name] is not None


def test_the_cache_kinds_are_those_of_the_installed_transformers() -> None:
    from transformers.generation import configuration_utils as installed

    (node,) = (s.node for s in settings() if s.name == "cache_implementation")
    current = set(installed.ALL_CACHE_IMPLEMENTATIONS) - set(installed.DEPRECATED_STATIC_CACHE_IMPLEMENTATIONS)
    assert set(node["anyOf"][0]["enum"]) == current


def test_passed_flags_are_sorted_hashable_and_only_those_set() -> None:
    frozen = recipe(num_beams=2, cache_config={"b": [1, {"c": []}], "a": {}}, typical_p=None).generation.passthrough()
    assert [name for name, _ in frozen] == ["cache_config", "num_beams"]
    assert hash(frozen) == hash(
        recipe(cache_config={"a": {}, "b": [1, {"c": []}]}, num_beams=2).generation.passthrough()
    )
    assert thaw_flags(frozen) == {"cache_config": {"a": {}, "b": [1, {"c": []}]}, "num_beams": 2}
    assert recipe().generation.passthrough() == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@hypothesis.settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), json_values, max_size=4))
def test_frozen_flags_thaw_to_what_they_were(flags: dict[str, Any]) -> None:
    frozen = freeze_flags(flags)
    assert isinstance(hash(frozen), int)
    assert thaw_flags(frozen) == flags


def test_nothing_can_be_changed_after_loading() -> None:
    loaded = recipe(stop=["a"])
    with pytest.raises(ValidationError, match="frozen"):
        loaded.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        loaded.generation.max_new_tokens = 3
    assert loaded.generation.stop == ("a",)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generation.max_new_tokens", "5"),
        ("generation.max_new_tokens", 5.0),
        ("generation.max_new_tokens", True),
        ("generation.max_new_tokens", 0),
        ("generation.temperature", "0.5"),
        ("generation.temperature", float("nan")),
        ("generation.temperature", float("inf")),
        ("generation.temperature", True),
        ("generation.top_p", 0),
        ("generation.logprobs", 21),
        ("generation.samples", 0),
        ("generation.stop", [""]),
        ("generation.stop", [None]),
        ("generation.stop_token_ids", 5),
        ("generation.stop_token_ids", [-1]),
        ("generation.logit_bias", {"1": 1.0, 1: 2.0}),
        ("generation.logit_bias", {"x": 1.0}),
        ("generation.do_sample", 1),
        ("generation.exponential_decay_length_penalty", [1]),
        ("source.path", []),
        ("source.path", ""),
        ("source.limit", 0),
        ("chat.system", 5),
        ("model.dtype", "half"),
        ("sink.formats", []),
        ("sink.formats", ["jsonl", "jsonl"]),
        ("sink.directory", "runs/{nmae}"),
        ("sink.directory", "runs/{name"),
        ("name", "../up"),
        ("name", ".hidden"),
        ("name", "a/b"),
        ("name", "x\n"),
        ("max_error_rate", 1.1),
        ("engine.scripted.answer", "sing"),
    ],
)
def test_wrong_values_are_refused(path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(with_setting(path, value))


def test_what_is_lenient_is_lenient() -> None:
    loaded = recipe(stop="a", temperature=1, logit_bias={"15": 2, 16: -1.5}, bad_words="x")
    assert loaded.generation.stop == ("a",)
    assert loaded.generation.bad_words == ("x",)
    assert loaded.generation.temperature == 1.0
    assert loaded.generation.logit_bias == {15: 2.0, 16: -1.5}
    assert loaded.source.path == ("a.jsonl",)
    assert recipe_from_mapping({"source": {"path": "a"}, "chat": None}).chat.turns == "scripted"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"generation": {"do_sample": False, "temperature": 0.7}}, "do_sample is false"),
        ({"generation": {"do_sample": True, "temperature": 0}}, "do_sample is true"),
        ({"generation": {"max_new_tokens": 5, "min_new_tokens": 6}}, "max_new_tokens, which is 5"),
        ({"chat": {"turns": "regenerate", "prefill": True}}, "chat.turns: scripted"),
        ({"model": {"name": "scripted"}}, "engine.kind: scripted"),
        ({"source": {"path": "a", "format": "alpaca", "prompt_template": "{x}"}}, "source.format: prompt"),
        ({"source": {"path": "a", "columns": {"prompt": "p"}, "prompt_template": "{x}"}}, "source.columns.prompt"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"source": {"path": "a"}} | data)


@pytest.mark.parametrize(
    "data",
    [
        {"generation": {"do_sample": False, "temperature": 0}},
        {"generation": {"do_sample": True, "temperature": 0.7}},
        {"chat": {"prefill": True}},
        {"model": {"name": "scripted"}, "engine": {"kind": "scripted"}},
        {"source": {"path": "a", "prompt_template": "{x}", "sample": 5, "limit": 3, "shuffle": True}},
    ],
)
def test_settings_that_agree_are_taken(data: dict[str, Any]) -> None:
    assert Recipe.model_validate({"source": {"path": "a"}} | data)


def test_the_run_directory_follows_name_and_sink() -> None:
    data = {"name": "one", "source": {"path": "a"}, "sink": {"directory": "out/{name}-{name}"}}
    assert Recipe.model_validate(data).run_directory == Path("out/one-one")
    assert recipe().run_directory == Path("runs/run")
    home = Recipe.model_validate(data | {"sink": {"directory": "~/x"}})
    assert home.run_directory == Path.home() / "x"


def test_every_setting_and_section_is_described_in_a_sentence() -> None:
    assert len(settings()) > 80
    for path, text in [(s.path, s.description) for s in settings()] + list(sections().items()):
        assert text.endswith("."), path
        assert 15 < len(text) < 400, path


def test_the_json_schema_takes_the_recipes_and_refuses_what_is_wrong() -> None:
    schema = recipe_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert check.is_valid({"source": {"path": "a"}, "generation": {"stop": "x", "temperature": 1, "num_beams": 2}})
    assert check.is_valid({"source": {"path": ["a", "b"]}, "generation": {"logit_bias": {"15": 2}}})
    assert not check.is_valid({"source": {"path": "a"}, "generation": {"temprature": 1}})
    assert not check.is_valid({"source": {"path": "a"}, "generation": {"temperature": -1}})
    assert not check.is_valid({})
    assert not schema["$id"].startswith(("/", "http"))
    assert check.is_valid(yaml.safe_load(recipe(stop=["a"]).dump_yaml()))


def test_the_recipes_that_come_along_fit_the_json_schema_and_point_to_it() -> None:
    check = jsonschema.Draft202012Validator(recipe_json_schema())
    files = sorted((ROOT / "recipes").glob("*.yaml"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n"), file
        check.validate(yaml.safe_load(text))


def test_pipelines_have_a_schema_that_editors_check_them_with(tmp_path: Path) -> None:
    """What it refuses is refused when the pipeline is loaded, and what comes along it takes."""
    schema = pipeline_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    files = sorted((ROOT / "recipes/pipelines").glob("*.yaml"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=pipeline.schema.json\n"), file
        check.validate(yaml.safe_load(text))
    shared = {"model": {"name": "scripted"}, "engine": {"kind": "scripted"}}
    first: dict[str, Any] = {"recipe": {"source": {"path": "in.jsonl"}, "tools": "strict"}}
    good = {"shared": shared, "steps": {"one": first, "two": {"recipe": {"keep": ["words > 3"]}, "form": "messages"}}}
    check.validate(good)
    wrong: list[dict[str, Any]] = [
        {},
        {"steps": {}},
        {"steps": {"a b": first}},
        {**good, "stepps": {}},
        {**good, "shared": {"model": {"nam": "x"}}},
        {"shared": shared, "steps": {"one": {**first, "form": "sonnets"}}},
        {"shared": shared, "steps": {"one": {**first, "reed": ["x"]}}},
        {"shared": shared, "steps": {"one": {"recipe": {**first["recipe"], "generation": {"temprature": 1}}}}},
        {"shared": shared, "steps": {"one": {"recipe": {**first["recipe"], "keep": [{"best": {}}]}}}},
    ]
    for pipeline in wrong:
        assert not check.is_valid(pipeline), pipeline
        path = tmp_path / "steps.yaml"
        path.write_text(json.dumps(pipeline), encoding="utf-8")
        with pytest.raises(UsageError):
            load_pipeline(path)


def test_the_page_of_options_names_those_of_sections_that_few_recipes_have() -> None:
    page = markdown_page()
    for section, names in {
        "tools": ("strict", "run", "mcp", "seconds"),
        "tools.mcp.NAME": ("command",),
        "simulate": ("goal", "turns"),
        "generation.structured": ("json_schema", "regex", "white_space"),
    }.items():
        told = page.partition(f"\n## `{section}`\n")[2].partition("\n## ")[0]
        for name in names:
            assert f"| `{name}` |" in told, (section, name)


def test_the_examples_of_the_settings_are_allowed_values() -> None:
    for setting in settings():
        for example in setting.node.get("examples", ()):
            assert Recipe.model_validate(with_setting(setting.path, example)), setting.path


def test_names_of_other_programs_lead_to_settings_that_exist() -> None:
    paths = {setting.path for setting in settings()}
    assert {target.partition(":")[0] for target in KNOWN_ELSEWHERE.values()} <= paths
    assert not {setting.name for setting in settings()} & set(KNOWN_ELSEWHERE)


def test_the_markdown_page_names_every_setting_once_per_section() -> None:
    page = markdown_page()
    for setting in settings():
        section = page.partition(f"## `{setting.section}`\n" if setting.section else "## Top level\n")[2]
        rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith(f"| `{setting.name}` |")]
        assert len(rows) == 1, setting.path
        assert rows[0].count(" | ") == 3, "a cell holds an unescaped bar"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("recipes/recipe.schema.json", lambda: json.dumps(recipe_json_schema(), indent=2, ensure_ascii=False) + "\n"),
        (
            "recipes/pipelines/pipeline.schema.json",
            lambda: json.dumps(pipeline_json_schema(), indent=2, ensure_ascii=False) + "\n",
        ),
        ("docs/OPTIONS.md", markdown_page),
        ("docs/OUTPUT.md", results_page),
    ],
)
def test_the_generated_files_are_up_to_date(file: str, text: Any) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == text(), f"run: batchchat schema, see {file}"
