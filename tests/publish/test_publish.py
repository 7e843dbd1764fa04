"""Data sets handed over: the folder is read as one, the card says how it was made, the hub gets all or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset

from tests.support.hub import Hub, hub
from tests.support.jobs import ROOT, Command, read_jsonl, scripted_recipe, write_jsonl


@pytest.fixture
def run(tmp_path: Path, batchchat: Command) -> Path:
    """23 chats of two samples each, the longer kept; one row is no chat, and some columns are null in whole shards."""
    rows = [
        {
            "id": f"c{n}",
            "messages": [{"role": "user", "content": f"count ``` {n} | <b>"}],
            "late": {"a": n} if n > 20 else None,
            "grade": 1.5 if n < 3 else None,
        }
        for n in range(23)
    ]
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", [*rows, "{broken"]),
        engine={"scripted": {"answer": "counting"}},
        generation={"samples": 2, "max_new_tokens": 300},
        scoring=[{"length": {"unit": "words"}}],
        keep=[{"best": {"by": "length", "pairs": "worst"}}],
        max_error_rate=0.5,
    )
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    return tmp_path / "runs/test"


def test_the_folder_is_one_data_set_with_a_card(run: Path, tmp_path: Path, batchchat: Command) -> None:
    ended = batchchat("pack", run, "--shard-rows", "5", "--license", "apache-2.0")
    assert ended.code == 0, ended.err
    folder = run / "dataset"
    shards = sorted(file.name for file in (folder / "data").iterdir())
    assert shards == [f"train-{n:05d}-of-00005.parquet" for n in range(5)]
    cache = str(tmp_path / "cache")
    found = load_dataset(str(folder), split="train", cache_dir=cache)
    kept = read_jsonl(run / "kept.jsonl")
    assert found["id"] == [row["id"] for row in kept]
    assert found["messages"][7] == kept[7]["messages"]
    assert [value for value in found["grade"] if value is not None] == [1.5] * 3
    pairs = load_dataset(str(folder), "pairs", split="train", cache_dir=cache)
    assert pairs.num_rows == len(read_jsonl(run / "pairs.jsonl")) > 0
    card = (folder / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0"
    assert [config["config_name"] for config in head["configs"]] == ["default", "pairs"]
    assert head["size_categories"] == ["n<1K"]
    for words in (
        "23 rows",
        "24 read, 23 answered, 1 failed",
        "| best | -23 of 46: {by: length, pairs: worst} |",
        "| failed (errors.jsonl) | -2 |",
        "in.jsonl, sha256",
        "generation.samples=2",
        "tokens",
        "## A sample",
        "  answer: counting",
    ):
        assert words in card, words
    assert "\n````json\n" in card, "no backticks of a row end the block"
    assert (folder / "recipes/test.yaml").read_text(encoding="utf-8") == (run / "recipe.yaml").read_text(
        encoding="utf-8"
    )
    assert "states no licence" in batchchat("pack", run, "--form", "messages", "-o", tmp_path / "m").err
    rows = load_dataset(str(tmp_path / "m"), split="train", cache_dir=cache)
    assert rows.column_names == ["messages"]


def test_what_cannot_be_packed_is_said(run: Path, tmp_path: Path, batchchat: Command) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("x", encoding="utf-8")
    for args, said in (
        ((tmp_path / "gone",), "is no finished run"),
        ((run, "--form", "odd"), "is no form"),
        ((run, "-o", tmp_path / "mine"), "is no data set that batchchat made"),
    ):
        ended = batchchat("pack", *args)
        assert ended.code == 2
        assert said in ended.err
    assert (tmp_path / "mine/precious").exists()
    assert batchchat("score", run, "keep=[length > 10000]").code == 0
    assert "kept no answer" in batchchat("pack", run).err


def pushed(place: Hub, *args: Any, token: str = "hf_right") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: where the hub is, is read from the environment once."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env = {
        **clean,
        "HF_ENDPOINT": place.url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-m", "batchchat", "push", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_a_push_is_private_whole_and_goes_on_after_a_failure(run: Path, tmp_path: Path) -> None:
    with hub() as place:
        place.fail_upload = 3
        broken = pushed(place, run, "me/data", "--shard-rows", "5")
        assert broken.returncode == 5
        assert "the hub failed on the way (507" in broken.stderr
        assert "run the same command again" in broken.stderr
        assert place.files == {}, "nothing half is visible"
        arrived = len(place.blobs)
        assert 0 < arrived < 10
        place.fail_upload, place.uploads = None, 0
        whole = pushed(place, run, "me/data", "--shard-rows", "5")
        assert whole.returncode == 0, whole.stderr
        assert whole.stdout.strip() == f"{place.url}/datasets/me/data"
        assert place.uploads == 10 - arrived, "what arrived is not sent again"
        assert place.commits == 1
        assert place.created[-1] == {"name": "data", "organization": "me", "type": "dataset", "visibility": "private"}
        for name, content in place.files.items():
            file = tmp_path / "hub" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        found = load_dataset(str(tmp_path / "hub"), split="train", cache_dir=str(tmp_path / "cache"))
        assert found["id"] == [row["id"] for row in read_jsonl(run / "kept.jsonl")]
        fewer = pushed(place, run, "me/data", "--public")
        assert fewer.returncode == 0, fewer.stderr
        assert place.created[-1]["visibility"] == "public"
        data = [name for name in place.files if name.startswith("data/")]
        assert data == ["data/train-00000-of-00001.parquet"], "shards of before are gone"


def test_a_hub_that_breaks_off_or_refuses_is_said(run: Path) -> None:
    with hub() as place:
        refused = pushed(place, run, "me/data", token="hf_wrong")
        assert refused.returncode == 2
        assert "refuses to write me/data (401" in refused.stderr
        assert "hf_wrong" not in refused.stderr
        assert pushed(place, run, "data").returncode == 2
    gone = pushed(Hub(url=place.url), run, "me/data")
    assert gone.returncode == 5
    assert "cannot be reached" in gone.stderr


def test_a_pipeline_is_packed_with_all_its_stages(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"id": f"c{n}", "prompt": f"count {n}"} for n in range(6)]
    shared = {"model": {"name": "scripted"}, "engine": {"kind": "scripted", "scripted": {"answer": "counting"}}}
    first = {"source": {"path": str(write_jsonl(tmp_path / "in.jsonl", rows))}, "generation": {"samples": 2}}
    second = {"scoring": ["length"], "keep": [{"best": {"by": "length"}}]}
    steps = {"write": {"recipe": first}, "choose": {"kind": "score", "recipe": second}}
    data = {"name": "two", "directory": str(tmp_path / "runs/two"), "shared": shared, "steps": steps}
    path = tmp_path / "steps.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    assert batchchat("pipeline", path).code == 0
    ended = batchchat("pack", tmp_path / "runs/two")
    assert ended.code == 0, ended.err
    folder = tmp_path / "runs/two/dataset"
    found = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.num_rows == 6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for words in ("## write", "## choose", "## The recipe of write", "-6 of 12"):
        assert words in card, words
    assert {file.name for file in (folder / "recipes").iterdir()} == {"write.yaml", "choose.yaml", "pipeline.json"}
