"""The whole job on a real model with random weights: answers that depend on nothing but chat and seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import zoo
from tests.support.jobs import Command, Finished, read_jsonl, write_jsonl


@pytest.fixture
def job(tmp_path: Path, small_model: Path, batchchat: Command) -> Any:
    rows = [
        {
            "question_id": n,
            "turns": [turn * (1 + n % 3) for turn in zoo.TURNS[: 1 + n % 3]],
            **({"generation": {"max_new_tokens": 3}} if n % 4 == 0 else {}),
        }
        for n in range(12)
    ]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    (tmp_path / "recipe.yaml").write_text(
        json.dumps(
            {
                "model": {"name": str(small_model), "dtype": "float32"},
                "source": {"path": str(source)},
                "chat": {"overflow": "drop_oldest_turns"},
                "generation": {"max_new_tokens": 20, "samples": 2},
                "sink": {"directory": str(tmp_path / "runs/{name}")},
            }
        ),
        encoding="utf-8",
    )

    def command(name: str, *overrides: str) -> tuple[Finished, list[Any]]:
        ended = batchchat("run", tmp_path / "recipe.yaml", "--json", f"name={name}", *overrides)
        return ended, read_jsonl(tmp_path / "runs" / name / "outputs.jsonl")

    return command


@pytest.mark.parametrize("sampling", ["generation.temperature=0", "generation.temperature=0.9"])
def test_the_batch_changes_nothing(job: Any, sampling: str) -> None:
    ended, crowd = job("crowd", sampling, "engine.max_batch_rows=16")
    assert ended.code == 0, ended.err
    _, alone = job("alone", sampling, "engine.max_batch_rows=1")
    _, shuffled = job("shuffled", sampling, "engine.max_batch_rows=5", "source.shuffle=true")
    assert crowd == alone
    by_place = {(o["question_id"], o["batchchat"]["sample"]): o["messages"] for o in crowd}
    assert {(o["question_id"], o["batchchat"]["sample"]): o["messages"] for o in shuffled} == by_place
    assert [o["question_id"] for o in shuffled] != [o["question_id"] for o in crowd]


def test_counts_and_reasons_are_true(job: Any) -> None:
    ended, outputs = job("counts", "generation.temperature=0.9")
    report = json.loads(ended.out)
    turns = [turn for output in outputs for turn in output["batchchat"]["turns"]]
    assert report["turns"] == len(turns) == 2 * sum(1 + n % 3 for n in range(12))
    assert report["tokens"]["generated"] == sum(len(turn["token_ids"]) for turn in turns)
    assert report["tokens"]["generated"] == report["session"]["generated_tokens"]
    assert report["tokens"]["prompt"] == sum(turn["prompt_tokens"] for turn in turns)
    assert sum(report["finish_reasons"].values()) == len(turns)
    assert 0 < report["session"]["padding_efficiency"] <= 1
    for output in outputs:
        for turn in output["batchchat"]["turns"]:
            limit = 3 if output["question_id"] % 4 == 0 else 20
            assert turn["completion_tokens"] == len(turn["token_ids"]) <= limit
            assert (turn["finish_reason"] == "stop") == (turn["token_ids"][-1] == 1)
            assert (turn["finish_reason"] == "length") == (turn["token_ids"][-1] != 1)
    assert report["engine"]["dtype"] == "float32"
    assert report["memory"]["model_footprint_bytes"] > 0


def test_phases_add_up_to_the_wall_time(job: Any) -> None:
    report = json.loads(job("phases")[0].out)
    phases = sum(report["phases_seconds"].values())
    # What is outside of them (making the directory, writing the manifest) does not grow with the work: a second on an
    # idle machine.
    assert report["wall_seconds"] / 5 <= phases <= report["wall_seconds"]


def test_another_model_in_the_same_directory_is_refused(job: Any, batchchat: Command, tmp_path: Path) -> None:
    job("model")
    other = tmp_path / "other"
    zoo.byte_bpe().save_pretrained(other)
    zoo.llama(seed=1).save_pretrained(other)
    ended = batchchat("run", tmp_path / "recipe.yaml", "name=model", f"model.name={other}")
    assert ended.code == 2
    assert "model: sha256" in ended.err


def test_a_model_that_does_not_load_writes_nothing(job: Any, batchchat: Command, tmp_path: Path) -> None:
    ended = batchchat("run", tmp_path / "recipe.yaml", "name=none", f"model.name={tmp_path}/nowhere")
    assert ended.code == 2
    assert "does not exist" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs/none").exists()
