"""`batchchat init` and `batchchat schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from batchchat.cli import main
from batchchat.recipe import Recipe, load_recipe, recipe_json_schema
from batchchat.recipe.json_schema import settings
from batchchat.recipe.rendering import markdown_page
from batchchat.sources.from_recipe import open_recipe_source
from tests.support.jobs import SHARED_DATA


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["batchchat", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def rows(folder: Path, name: str, *values: object) -> str:
    (folder / name).write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")
    return name


QUESTION = {"id": 1, "messages": [{"role": "user", "content": "Hi"}], "topic": "greeting"}
ANSWERED = {"id": 2, "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def written(monkeypatch: pytest.MonkeyPatch, file: str) -> Recipe:
    assert call(monkeypatch, "init", file) == 0
    return load_recipe("recipe.yaml")


def test_a_recipe_for_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = written(monkeypatch, rows(folder, "my chats.v2.jsonl", QUESTION, QUESTION | {"id": 3}))
    assert recipe.name == "my-chats"
    assert recipe.source.path == ("my chats.v2.jsonl",)
    assert (recipe.source.format, recipe.chat.turns) == ("messages", "scripted")
    assert capsys.readouterr().out == (
        "recipe.yaml: looked at the first 2 rows; format messages; turns scripted. Next: batchchat check recipe.yaml\n"
    )
    text = Path("recipe.yaml").read_text(encoding="utf-8")
    assert "Columns found: id, messages, topic." in text
    assert "Detected in the first 2 rows." in text


def test_the_comments_are_the_descriptions_of_the_schema(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(monkeypatch, rows(folder, "a.jsonl", QUESTION))
    text = Path("recipe.yaml").read_text(encoding="utf-8")
    flowing = " ".join(text.replace("#", " ").split())
    listed = [setting for setting in settings() if f"{setting.name}: " in text and setting.section != "source.columns"]
    assert len(listed) >= 20
    for setting in [
        s for s in listed if s.path in ("chat.overflow", "generation.top_p", "source.limit", "model.dtype")
    ]:
        assert setting.description in flowing


def test_every_commented_line_is_a_setting_that_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = written(monkeypatch, rows(folder, "a.jsonl", QUESTION))
    lines = Path("recipe.yaml").read_text(encoding="utf-8").splitlines()
    names = {setting.name for setting in settings()}
    opened = [
        line.replace("# ", "", 1) if line.strip().removeprefix("# ").partition(":")[0] in names else line
        for line in lines
    ]
    assert sum(a != b for a, b in zip(lines, opened, strict=True)) > 10
    Path("all.yaml").write_text("\n".join(opened), encoding="utf-8")
    everything = load_recipe("all.yaml")
    assert everything.generation.temperature == 0.7
    assert everything.source.path == plain.source.path


def test_chats_that_are_answered_already_are_answered_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = written(monkeypatch, rows(folder, "a.jsonl", ANSWERED, ANSWERED | {"id": 5}, QUESTION))
    assert recipe.chat.turns == "regenerate"
    assert "Most of the chats found end in an assistant turn." in Path("recipe.yaml").read_text(encoding="utf-8")


def test_bad_rows_are_counted_and_the_first_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = rows(folder, "a.jsonl", QUESTION, {"id": 7, "messages": 5}, ["no object"], QUESTION | {"id": 8})
    assert written(monkeypatch, file).source.format == "messages"
    head = Path("recipe.yaml").read_text(encoding="utf-8").partition("\n\n")[0]
    assert "looked at the first 4 rows, 2 of them bad" in head
    assert "The first of the bad ones, a.jsonl:2: " in head


def test_files_of_several_formats_leave_the_format_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(folder, "a.jsonl", QUESTION)
    rows(folder, "b.jsonl", {"turns": ["Hi", "Bye"]})
    assert written(monkeypatch, "*.jsonl").source.format == "auto"


def test_odd_names_cannot_break_out_of_their_comments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = QUESTION | {"evil\nname: hacked": 1, "sep\u2028name: hacked": 2, "nel\x85name: hacked": 3}
    recipe = written(monkeypatch, rows(folder, "x\u2028y: é.jsonl", row))
    assert recipe.source.path == ("x\u2028y: é.jsonl",)
    assert recipe.name == "x-y"


def test_an_existing_file_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = rows(folder, "a.jsonl", QUESTION)
    Path("recipe.yaml").write_text("mine", encoding="utf-8")
    assert call(monkeypatch, "init", file) == 2
    assert "recipe.yaml exists; replace it with --force" in capsys.readouterr().err
    assert Path("recipe.yaml").read_text(encoding="utf-8") == "mine"
    assert call(monkeypatch, "init", file, "--force") == 0
    assert load_recipe("recipe.yaml").source.path == (file,)
    assert call(monkeypatch, "init", file, "--output", "absent/recipe.yaml") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_input_without_a_chat_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "init", rows(folder, "a.jsonl", {"x": 1})) == 2
    assert "no chat was found in the first row; a.jsonl:1: " in capsys.readouterr().err
    assert call(monkeypatch, "init", rows(folder, "empty.jsonl")) == 2
    assert "empty.jsonl holds no rows" in capsys.readouterr().err
    assert call(monkeypatch, "init", "absent.jsonl") == 2
    assert not Path("recipe.yaml").exists()


@pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason="the folder shared/data with real input is not beside the repository"
)
@pytest.mark.parametrize(
    ("file", "format_", "turns"),
    [
        ("mt_bench/question.jsonl", "turns", "scripted"),
        ("sharegpt/dummy_conversation.json", "sharegpt", "regenerate"),
        ("tool_calls/glaive_toolcall_en_demo.json", "sharegpt", "regenerate"),
        ("mixed_formats/v1_sft_demo.jsonl", "messages", "regenerate"),
        ("batch_api/vllm_openai_example_batch.jsonl", "openai", "scripted"),
        ("gsm8k/test.jsonl", "prompt", "scripted"),
        ("parquet/curator_reasoning_dataset.parquet", "prompt", "scripted"),
    ],
)
def test_real_files(monkeypatch: pytest.MonkeyPatch, file: str, format_: str, turns: str) -> None:
    recipe = written(monkeypatch, str(SHARED_DATA / file))
    assert (recipe.source.format, recipe.chat.turns) == (format_, turns)


def test_editors_find_a_schema_that_lies_beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = rows(folder, "a.jsonl", QUESTION)
    assert call(monkeypatch, "schema", "--output", "recipe.schema.json") == 0
    assert json.loads(Path("recipe.schema.json").read_text(encoding="utf-8")) == recipe_json_schema()
    written(monkeypatch, file)
    first = Path("recipe.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=recipe.schema.json"


def test_the_schema_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "schema") == 0
    assert yaml.safe_load(capsys.readouterr().out) == recipe_json_schema()
    assert call(monkeypatch, "schema", "--markdown") == 0
    assert capsys.readouterr().out == markdown_page()
    assert call(monkeypatch, "schema", "--output", "absent/x.json") == 2
    assert "absent/x.json cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "splits", "read"),
    [
        (["train.jsonl", "dev.jsonl", "test.jsonl"], "test, train, validation", {"test.jsonl"}),
        (["train/a.jsonl", "validation/a.jsonl"], "train, validation", {"validation/a.jsonl"}),
        (
            [
                "data/test_sft-00000-of-00002.jsonl",
                "data/test_sft-00001-of-00002.jsonl",
                "data/train-00000-of-00001.jsonl",
            ],
            "test_sft, train",
            {"data/test_sft-00000-of-00002.jsonl", "data/test_sft-00001-of-00002.jsonl"},
        ),
        (["shard.one.jsonl", "shard.two.jsonl"], None, {"shard.one.jsonl", "shard.two.jsonl"}),
        (["data/train-00000-of-00001.jsonl"], None, {"data/train-00000-of-00001.jsonl"}),
    ],
)
def test_of_several_splits_one_is_picked_with_a_word(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: list[str],
    splits: str | None,
    read: set[str],
) -> None:
    for number, name in enumerate(files):
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        rows(folder, f"set/{name}", QUESTION | {"id": number})
    (folder / "set/dataset_infos.json").write_text("{}", encoding="utf-8")
    recipe = written(monkeypatch, "set")
    said = capsys.readouterr().out
    assert ("the recipe reads" in said) == (splits is not None)
    if splits is not None:
        assert f"set holds the splits {splits}; the recipe reads {recipe.source.split}, --split takes another" in said
        assert f"# Splits found: {splits}." in Path("recipe.yaml").read_text(encoding="utf-8")
    with open_recipe_source(recipe) as source:
        assert {name.removeprefix("set/") for name in source.files} == read


def test_another_split_is_taken_where_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "set").mkdir()
    for name in ("train", "validation"):
        rows(folder, f"set/{name}.jsonl", QUESTION)
    assert call(monkeypatch, "init", "set", "--split", "dev") == 0
    with open_recipe_source(load_recipe("recipe.yaml")) as source:
        assert source.files == ("set/validation.jsonl",)
    assert call(monkeypatch, "init", "set", "--split", "test", "--force") == 2
    assert "set has the splits train, validation, and not test: change source.split" in capsys.readouterr().err
    assert call(monkeypatch, "check", "recipe.yaml", "source.split=null") == 2
    assert (
        'set holds the splits train, validation: set source.split to one of them, or read them all as "set/**/*"'
        in capsys.readouterr().err
    )
    for subset in ("main", "other"):
        (folder / "sets" / subset).mkdir(parents=True)
        rows(folder, f"sets/{subset}/test.jsonl", QUESTION)
        rows(folder, f"sets/{subset}/train.jsonl", QUESTION)
    assert call(monkeypatch, "init", "sets", "--force") == 2
    assert "several data sets with a split test (main, other): name one of them, such as sets/other" in (
        capsys.readouterr().err
    )


def test_splits_of_a_saved_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows_ = {"id": ["a"], "prompt": ["Hi"]}
    saved = datasets.DatasetDict({name: datasets.Dataset.from_dict(rows_) for name in ("train", "validation")})
    saved.save_to_disk("saved")
    recipe = written(monkeypatch, "saved")
    assert recipe.source.split == "validation"
    with open_recipe_source(recipe) as source:
        assert source.files == ("saved[validation]",)
