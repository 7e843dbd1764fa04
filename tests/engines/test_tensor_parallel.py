"""One model over two processes: the leader's run gives what one process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support import zoo
from tests.support.jobs import ROOT, Command, read_jsonl, write_jsonl


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    zoo.byte_bpe().save_pretrained(tmp_path / "model")
    zoo.llama().save_pretrained(tmp_path / "model")
    rows = [{"turns": ["How many letters?", "And in café?"][: 1 + n % 2]} for n in range(5)]
    data = {
        "model": {"name": str(tmp_path / "model")},
        "source": {"path": str(write_jsonl(tmp_path / "in.jsonl", rows))},
        "generation": {"max_new_tokens": 10},
        "sink": {"directory": str(tmp_path / "runs/{name}")},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo backend")
def test_two_processes_answer_like_one(recipe: Path, batchchat: Command) -> None:
    assert batchchat("run", recipe, "name=one").code == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "batchchat", "run", str(recipe), "name=two", "model.parallel=tensor", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    runs = recipe.parent / "runs"
    one, two = (read_jsonl(runs / name / "outputs.jsonl") for name in ("one", "two"))
    assert [row["messages"] for row in two] == [row["messages"] for row in one]
    report = json.loads((runs / "two/report.json").read_text(encoding="utf-8"))
    assert report["rows"] == {"in": 5, "answered": 5, "failed": 0}
    assert report["engine"]["processes"] == 2


def test_one_process_alone_is_told_how_to_start_more(recipe: Path, batchchat: Command) -> None:
    ended = batchchat("run", recipe, "model.parallel=tensor")
    assert ended.code == 2
    assert "torchrun --nproc-per-node=2" in ended.err
