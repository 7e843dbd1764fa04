"""Recipes from files: every mistake at once, each at its line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchchat.errors import UsageError
from batchchat.plugins.builtin import builtin_names, builtin_recipe, builtin_sample
from batchchat.recipe import Mistake, Recipe, RecipeError, load_recipe, recipe_from_mapping
from batchchat.recipe.json_schema import Setting, settings
from batchchat.recipe.located import MAX_VALUES


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "recipe.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def mistakes(folder: Path, text: str, *overrides: str) -> dict[str, tuple[str, str]]:
    """Field -> (line or override, all that is said of it)."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text), overrides)
    found: dict[str, tuple[str, str]] = {}
    for mistake in caught.value.mistakes:
        _, earlier = found.get(mistake.field, ("", ""))
        found[mistake.field] = (mistake.spot.text.rpartition(":")[2], f"{earlier} {mistake.text}".lstrip())
    return found


FIVE = """\
name: five
source:
  path: chats.jsonl
  limit: "10"
model:
  dtype: bf16
generation:
  temprature: 0.7
  top_p: 1.5
engine:
  top_k: 50
"""


def test_five_mistakes_on_one_screen(tmp_path: Path) -> None:
    file = write(tmp_path, FIVE)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert caught.value.exit_code == 2
    assert str(caught.value).replace(f"{file}:", "") == (
        "the recipe has 5 mistakes:\n"
        '  4: source.limit is "10"; it must be a whole number (at least 1), or null; write 10 without quotes\n'
        '  6: model.dtype is "bf16"; it must be one of auto, float32, bfloat16, float16; did you mean bfloat16?\n'
        "  8: generation.temprature is not a setting; did you mean generation.temperature?\n"
        "  9: generation.top_p is 1.5; it must be a number (above 0, at most 1), or null\n"
        "  11: engine.top_k is not a setting; write generation.top_k"
    )


def test_a_single_mistake_is_one_sentence(tmp_path: Path) -> None:
    file = write(tmp_path, "source:\n  path: a\n  fromat: auto\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value) == f"{file}:3: source.fromat is not a setting; did you mean source.format?"


def test_lines_inside_of_nested_lists_and_mappings(tmp_path: Path) -> None:
    text = """\
source: {path: [
    one,
    2,
    three]}
generation:
  stop:
    - fine
    - - not
      - fine
  sequence_bias:
    - [[1, 2], 1.0]
    - [[1,
        -2], 1.0]
  logit_bias:
    5: 1.0
    6: many
chat:
  system: |
    several
    lines
  overflow: >-
    folded
"""
    found = {field: int(line) for field, (line, _) in mistakes(tmp_path, text).items()}
    assert found == {
        "source.path[1]": 3,
        "generation.stop[1]": 8,
        "generation.sequence_bias[1][0][1]": 13,
        "generation.logit_bias[6]": 16,
        "chat.overflow": 21,
    }


def test_duplicate_keys_name_both_lines(tmp_path: Path) -> None:
    text = "source:\n  path: a\ngeneration:\n  seed: 1\n  top_k: 5\n  seed: 2\nsource:\n  path: b\n"
    found = mistakes(tmp_path, text)
    assert found["generation.seed"][0] == "6"
    assert "here and on line 4" in found["generation.seed"][1]
    assert found["source"][0] == "7"
    assert "here and on line 1" in found["source"][1]


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        (
            "model: {revision: no}",
            "model.revision",
            "no, which YAML reads as false; it must be text, or null; in quotes",
        ),
        ("model: {revision: 12345}", "model.revision", 'in quotes it is text: "12345"'),
        ("model: {revision: 2024-01-01}", "model.revision", "which YAML reads as a date"),
        (
            "chat: {template_kwargs: {date: 2024-01-01}}",
            "chat.template_kwargs.date",
            'in quotes it is text: "2024-01-01"',
        ),
        ("chat: {template_kwargs: {date: 2024-02-31}}", "chat.template_kwargs.date", "takes for a date or a number"),
        ("generation: {epsilon_cutoff: 1e-5}", "generation.epsilon_cutoff", "YAML reads 1e-5 as text, write 1.0e-05"),
        ("generation: {max_new_tokens: 1e3}", "generation.max_new_tokens", "YAML reads 1e3 as text, write 1000"),
        ("generation: {ignore_eos: 'true'}", "generation.ignore_eos", "write true without quotes"),
        ("generation: {max_new_tokens: 010}", "generation.max_new_tokens", "010, which YAML reads as 8"),
        ("generation: {max_new_tokens: 1:30}", "generation.max_new_tokens", "1:30, which YAML reads as 90"),
        ("generation: {temperature: .nan}", "generation.temperature", "is .nan"),
        ("generation: {no: 1}", "generation", 'the name no, which YAML does not read as text; write "no"'),
        ("sink: {directory: {name}}", "sink.directory", "is a mapping; it must be text"),
        ("sink: {directory: {{name}}}", "sink.directory", "braces and brackets in a text need quotes"),
        ("generation: 5", "generation", "is 5; it must be a section of settings"),
        ("generation: [seed]", "generation", "is a list of 1; it must be a section of settings"),
        ("chat: {system: ''}", "chat.system", "is empty"),
        ("name: my run", "name", "matches ^[A-Za-z0-9]"),
        (
            "model: {device_map: {lm_head: [0]}}",
            "model.device_map.lm_head",
            "is a list of 1; it must be text, or a whole",
        ),
        ("model: {device_map: 5}", "model.device_map", "must be text, or a mapping"),
        ("generation: {early_stopping: nevr}", "generation.early_stopping", "did you mean never?"),
        (
            "generation: {sequence_bias: [[[1]]]}",
            "generation.sequence_bias[0]",
            "a list of a list (each: a whole number",
        ),
        ("generation: {logit_bias: {a: 1}}", "generation.logit_bias.a", 'generation.logit_bias has the name "a"'),
    ],
)
def test_what_yaml_makes_of_a_value_is_explained(tmp_path: Path, line: str, field: str, words: str) -> None:
    found = mistakes(tmp_path, f"source: {{path: a}}\n{line}\n")
    assert words in found[field][1]
    assert found[field][0] == "2"


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        ("temperature: 1", "temperature", "write generation.temperature"),
        ("seed: 1", "seed", "write source.seed or generation.seed"),
        ("generaton: {}", "generaton", "did you mean generation?"),
        ("scripted: {}", "scripted", "write engine.scripted"),
        ("generation: {Top-K: 1}", "generation.Top-K", "write generation.top_k"),
        ("generation: {max_tokens: 1}", "generation.max_tokens", "write generation.max_new_tokens"),
        ("generation: {max_length: 1}", "generation.max_length", "write generation.max_new_tokens or chat.max_context"),
        ("generation: {num_return_sequences: 1}", "generation.num_return_sequences", "write generation.samples"),
        ("generation: {dola_layers: low}", "generation.dola_layers", "no longer comes with it"),
        ("generation: {xyzzy: 1}", "generation.xyzzy", "batchchat schema --markdown"),
        ("sink: {xyzzy: 1}", "sink.xyzzy", "known are directory, formats, timings"),
        ("sink: {max_batch_row: 1}", "sink.max_batch_row", "did you mean engine.max_batch_rows?"),
        ("source: {columns: {promt: x}}", "source.columns.promt", "did you mean source.columns.prompt?"),
        ("5: x", "5", "is not a setting"),
    ],
)
def test_unknown_names_lead_to_the_right_one(tmp_path: Path, line: str, field: str, words: str) -> None:
    found = mistakes(tmp_path, line + "\n")
    assert words in found[field][1]
    assert found[field][0] == "1"


def test_a_recipe_without_its_input_says_what_to_write(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "name: x\n")["source.path"][1].endswith("for example source.path: chats.jsonl")
    found = mistakes(tmp_path, "name: x\nsource:\n  limit: 5\n")["source.path"]
    assert found[0] == "2"


def test_sections_with_nothing_but_comments_are_fine(tmp_path: Path) -> None:
    text = "source:\n  path: a\n  columns:\n    # id: key\ngeneration:\n  # seed: 1\nengine:\n  scripted:\n"
    assert load_recipe(write(tmp_path, text)) == recipe_from_mapping({"source": {"path": "a"}})


def test_anchors_and_merges_work_and_keep_their_lines(tmp_path: Path) -> None:
    text = "source: &s\n  path: a\n  limit: 5\nchat:\n  template_kwargs: {<<: *s, limit: 6}\n"
    assert load_recipe(write(tmp_path, text)).chat.template_kwargs == {"path": "a", "limit": 6}
    wrong = "source: {path: a}\nchat: &c\n  prefil: 1\nsink:\n  <<: *c\n"
    assert mistakes(tmp_path, wrong)["sink.prefil"][0] == "3"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", "1", "is empty; make one for your data with: batchchat init FILE"),
        ("# nothing\n", "1", "is empty"),
        ("- a\n- b\n", "1", "is a list, not sections"),
        ("just words\n", "1", "is one text, not sections"),
        ("name: x\nsource:\n\tpath: a\n", "3", "indented with a tab"),
        ("name: x\nsource: [a\n", "3", "is not YAML"),
        ("source:\n  path: *.jsonl\n", "2", "begins with * needs quotes"),
        ("source:\n  path: *all\n", "2", "begins with * needs quotes"),
        ("name: x\nchat:\n  system: Note: be kind\n", "3", "a colon and a space needs quotes"),
        ("name: @x\n", "1", "'@'; a text that begins with it needs quotes"),
        ("name: x\n---\nname: y\n", "2", "second document"),
        ("name: !!python/object/apply:os.system [ls]\n", "1", "is not allowed in a recipe"),
        ("name: a\0b\n", "1", "U+0000"),
        ("a: &a [*a]\n", "1", "holds itself"),
        ("[" * 3000, "1", "nested too deeply"),
    ],
)
def test_what_is_no_recipe_says_so(tmp_path: Path, text: str, line: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text))
    assert words in str(caught.value)
    assert f"recipe.yaml:{line}: " in str(caught.value)


def test_anchors_that_multiply_are_stopped(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(RecipeError, match=f"more than {MAX_VALUES:,} values"):
        load_recipe(write(tmp_path, "\n".join(levels)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batchchat init FILE --output"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_recipe(tmp_path)
    with pytest.raises(UsageError, match="2 is not UTF-8 text"):
        load_recipe(write(tmp_path, b"name: x\nchat: \xff\n"))
    with pytest.raises(UsageError, match=r"too large for a recipe.*batchchat init"):
        load_recipe(write(tmp_path, "#" * 1_000_001))
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    file = write(tmp_path, "name: x\n")
    file.chmod(0)
    with pytest.raises(UsageError, match="chmod u"):
        load_recipe(file)


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, b"\xef\xbb\xbfname: x\r\nsource:\r\n  path: a\r\n")).name == "x"


def test_a_mapping_is_checked_the_same_and_left_alone() -> None:
    data = {"source": {"path": ["a"]}, "generation": {"seed": 1}}
    assert recipe_from_mapping(data, ["generation.seed=2", "source.path=b"]).generation.seed == 2
    assert data == {"source": {"path": ["a"]}, "generation": {"seed": 1}}
    with pytest.raises(RecipeError, match=r"the recipe: generation.sed is not a setting"):
        recipe_from_mapping({"source": {"path": "a"}, "generation": {"sed": 1}})


JUNK: list[Any] = [None, True, -1, 1.5, "", "junk", "5", [], [None], ["x", 3], {}, {"a": {"b": []}}, {5: "x"}]


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.path)
def test_no_value_is_refused_without_a_sentence_about_it(setting: Setting) -> None:
    refused = [found for value in JUNK if (found := refusal(setting, value)) is not None]
    assert len(refused) >= 4
    for mistakes_of_one in refused:
        assert mistakes_of_one
        for mistake in mistakes_of_one:
            assert mistake.field.startswith(setting.path), mistake
            assert mistake.text.startswith(mistake.field.rpartition(".")[0]), mistake
            ours = mistake.text.partition("has the name")[0]
            assert not re.search(r"write null|\bNone\b|Input should", ours), mistake


def refusal(setting: Setting, value: Any) -> tuple[Mistake, ...] | None:
    """What is said of a recipe that gives `setting` this value; None if it is taken."""
    data: dict[str, Any] = {"source": {"path": "a"}}
    inner = data
    for piece in setting.section.split(".") if setting.section else []:
        inner = inner.setdefault(piece, {})
    if setting.section == "engine.endpoint":
        inner["url"] = "http://localhost/v1"  # without which nothing else is looked at
    inner[setting.name] = value
    try:
        recipe_from_mapping(data)
    except RecipeError as error:
        return error.mistakes
    return None


texts = st.text(min_size=1, max_size=20)
recipes = st.fixed_dictionaries(
    {"source": st.fixed_dictionaries({"path": texts | st.lists(texts, min_size=1, max_size=3)})},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
        "max_error_rate": st.floats(0, 1),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "name": texts.filter(lambda name: name != "scripted"),
                "revision": texts,
                "max_memory": st.dictionaries(st.integers(0, 9), texts, max_size=2),
            },
        ),
        "chat": st.fixed_dictionaries(
            {},
            optional={
                "system": texts,
                "template_kwargs": st.dictionaries(
                    st.text(max_size=5),
                    st.none() | st.booleans() | st.integers() | texts | st.lists(st.none() | texts, max_size=2),
                    max_size=3,
                ),
            },
        ),
        "generation": st.fixed_dictionaries(
            {},
            optional={
                "stop": st.lists(texts, max_size=3),
                "temperature": st.floats(0, 1e6) | st.integers(0, 5),
                "logit_bias": st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100), max_size=3),
                "seed": st.integers(0, 2**63 - 1),
                "sequence_bias": st.lists(
                    st.tuples(st.lists(st.integers(0, 9), max_size=2), st.floats(-5, 5)).map(list), max_size=2
                ),
            },
        ),
    },
)


@hypothesis.settings(deadline=None)
@given(recipes)
@example({"source": {"path": "\x85\u2028 é"}, "chat": {"template_kwargs": {"\x85": "\n \ufeff"}}})
def test_a_dumped_recipe_loads_to_an_equal_one(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]
) -> None:
    before = Recipe.model_validate(data)
    text = before.dump_yaml()
    after = load_recipe(write(tmp_path_factory.getbasetemp(), text))
    assert after == before
    assert after.dump_yaml() == text
    assert after.digest() == before.digest()


def test_recipes_and_samples_that_come_along() -> None:
    assert "quickstart.yaml" in builtin_names("recipe")
    assert load_recipe("builtin:quickstart") == load_recipe(builtin_recipe("quickstart.yaml"))
    with pytest.raises(UsageError, match=r"did you mean builtin:quickstart\? .*quickstart.yaml"):
        load_recipe("builtin:quikstart")
    with pytest.raises(UsageError, match=r"no sample builtin:\.\./recipes/quickstart\.yaml"):
        builtin_sample("../recipes/quickstart.yaml")
    for name in builtin_names("sample"):
        assert builtin_sample(name).is_file()
