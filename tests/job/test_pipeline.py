"""Recipes that feed each other: what each reads, what is left after a kill, and what a changed step costs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import ROOT, Command, read_jsonl, write_jsonl


def engine(**scripted: Any) -> dict[str, Any]:
    return {"kind": "scripted", "max_batch_rows": 4, "scripted": {"answer": "counting", **scripted}}


def steps(folder: Path, rows: int = 12, **changed: Any) -> Path:
    """generate (3 samples) -> chosen (scored, the longest of each chat) -> rewrite, of the answers as a table."""
    folder.mkdir(exist_ok=True)
    chats = [{"id": f"c{n}", "messages": [{"role": "user", "content": f"count {n}"}], "topic": n} for n in range(rows)]
    source = write_jsonl(folder / "in.jsonl", [*chats, "{broken"])
    data: dict[str, Any] = {
        "name": "chain",
        "directory": str(folder / "runs/{name}"),
        "shared": {"model": {"name": "scripted"}, "engine": engine(), "max_error_rate": 0.5},
        "steps": {
            "generate": {
                "recipe": {"source": {"path": str(source)}, "generation": {"samples": 3, "max_new_tokens": 300}}
            },
            "chosen": {
                "kind": "score",
                "recipe": {
                    "scoring": [{"length": {"unit": "words"}}],
                    "keep": ["length > 4", {"best": {"by": "length", "pairs": "worst"}}],
                },
            },
            "rewrite": {
                "form": "table",
                "recipe": {
                    "source": {"prompt_template": "{topic}: {answer}"},
                    "engine": {"scripted": {"answer": "echo"}},
                },
            },
            **changed,
        },
    }
    path = folder / "steps.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def results(folder: Path) -> dict[str, list[Any]]:
    runs = folder / "runs/chain"
    files = ("generate/kept.jsonl", "chosen/kept.jsonl", "chosen/removed.jsonl", "chosen/pairs.jsonl")
    return {name: read_jsonl(runs / name) for name in (*files, "rewrite/kept.jsonl", "rewrite/outputs.jsonl")}


def test_each_step_reads_what_the_one_before_it_kept(tmp_path: Path, batchchat: Command) -> None:
    path = steps(tmp_path)
    planned = batchchat("pipeline", path, "--plan")
    assert planned.code == 0, planned.err
    said = " ".join(planned.out.split())
    assert "generate open: reads 13 rows of" in said
    assert "chosen open: reads at most 39 rows of generate; scores alone, 2 steps of keep" in said
    assert not (tmp_path / "runs").exists()
    ended = batchchat("pipeline", path)
    assert ended.code == 0, ended.err
    found = results(tmp_path)
    assert len(found["generate/kept.jsonl"]) == 36
    chosen = found["chosen/kept.jsonl"]
    assert len(chosen) + len(found["chosen/removed.jsonl"]) == 36
    assert len({row["batchchat"]["id"] for row in chosen}) == len(chosen) > 6
    for row in chosen:
        several = [one for one in found["generate/kept.jsonl"] if one["batchchat"]["id"] == row["batchchat"]["id"]]
        longest = max(len(one["messages"][-1]["content"].split()) for one in several)
        assert row["scores"]["length"] == longest == len(row["messages"][-1]["content"].split())
    assert len(found["rewrite/kept.jsonl"]) == len(chosen)
    for row, before in zip(found["rewrite/kept.jsonl"], chosen, strict=True):
        assert row["id"] == before["id"]
        assert row["messages"][0]["content"] == f"{before['topic']}: {before['messages'][-1]['content']}"
        assert row["scores"] == before["scores"]
    manifest = json.loads((tmp_path / "runs/chain/pipeline.json").read_text(encoding="utf-8"))
    assert [step["state"] for step in manifest["steps"].values()] == ["done"] * 3
    assert manifest["steps"]["chosen"]["keep"]["samples"] == 36
    assert manifest["steps"]["rewrite"]["rows"]["in"] == len(chosen) == manifest["steps"]["chosen"]["kept"]
    planned = batchchat("pipeline", path, "--plan")
    assert f"rewrite done: reads {len(chosen)} rows of chosen" in " ".join(planned.out.split())
    again = batchchat("pipeline", path)
    assert again.err.count("was finished before") == 3


def test_killed_twice_it_ends_as_the_calm_one(tmp_path: Path, batchchat: Command) -> None:
    assert batchchat("pipeline", steps(tmp_path / "calm", 30)).code == 0
    path = steps(tmp_path / "killed", 30)
    slow = [f"{step}.engine.scripted.batch_seconds=0.05" for step in ("generate", "rewrite")]
    command = [sys.executable, "-m", "batchchat", "pipeline", str(path), *slow]
    for step in ("generate", "rewrite"):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        while not (tmp_path / f"killed/runs/chain/{step}/run.sqlite").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.15)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert batchchat("pipeline", path).code == 0
    assert results(tmp_path / "killed") == results(tmp_path / "calm")


def test_a_changed_step_is_refused_until_it_begins_anew(tmp_path: Path, batchchat: Command) -> None:
    path = steps(tmp_path)
    assert batchchat("pipeline", path).code == 0
    before = results(tmp_path)
    ended = batchchat("pipeline", path, "rewrite.generation.seed=7")
    assert ended.code == 2
    assert "the step rewrite:" in ended.err
    assert "--from rewrite" in ended.err
    assert batchchat("pipeline", path, "rewrite.generation.seed=7", "--from", "rewrite").code == 0
    assert (tmp_path / "runs/chain/rewrite.old-1").is_dir()
    assert not (tmp_path / "runs/chain/generate.old-1").exists()
    assert results(tmp_path)["chosen/kept.jsonl"] == before["chosen/kept.jsonl"]
    ended = batchchat("pipeline", path, "chosen.keep=[length > 10]")
    assert ended.code == 2, "what rewrite read is another now"
    assert "the step rewrite:" in ended.err
    assert batchchat("pipeline", path, "chosen.keep=[length > 10]", "--from", "chosen").code == 0
    assert batchchat("pipeline", path, "--from", "gone").code == 2


def test_a_step_that_fails_is_the_last_one(tmp_path: Path, batchchat: Command) -> None:
    path = steps(tmp_path)
    ended = batchchat("pipeline", path, "chosen.gates=[length.mean >= 1000]")
    assert ended.code == 4
    assert "the step chosen ended with exit code 4" in ended.err
    assert not (tmp_path / "runs/chain/rewrite").exists()
    ended = batchchat("pipeline", path, "chosen.keep=[length > 1000]")
    assert ended.code == 2
    assert "chosen kept no answer" in ended.err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rewrite": {"recipe": {"sorce": {}}}}, "steps.rewrite.recipe"),
        ({"rewrite": {"recipes": {}}}, "did you mean recipe?"),
        ({"rewrite": {"recipe": {"generation": {"temperature": -1}}}}, "generation.temperature is -1"),
        ({"rewrite": {"recipe": {}, "reads": ["later"]}}, "reads later, which is no step before it"),
        ({"rewrite": {"recipe": "nowhere.yaml"}}, "there is no recipe nowhere.yaml"),
        ({"generate": {"kind": "score", "recipe": {}}}, "no step before it to score"),
        ({"rewrite": {"recipe": {"keep": ["lenght >"]}}}, "is no condition"),
        ({"a/b": {"recipe": {}}}, "steps.a/b"),
    ],
)
def test_what_is_wrong_with_a_step_is_said_before_the_first(
    tmp_path: Path, batchchat: Command, changed: dict[str, Any], said: str
) -> None:
    ended = batchchat("pipeline", steps(tmp_path, **changed))
    assert ended.code == 2
    if said != "steps.rewrite.recipe":
        assert said in ended.err
    assert not (tmp_path / "runs").exists()
