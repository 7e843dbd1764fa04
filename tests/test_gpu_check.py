"""The check of the GPU path: what it says without a GPU, that no part ends another, and its parts small on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scripts.gpu_check.__main__ import main
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Outcome, aimed, read, record
from scripts.gpu_check.plan import PARTS
from scripts.gpu_check.table import document

ROOT = Path(__file__).parents[1]
SAME = {"zoo-bfloat16", "uniform-8b", "speed-1.7b", "speed-0.5b", "mt-bench", "beside-1.7b"}
"""Parts whose code another one runs, or that tests of jobs and benchmarks run."""


def python(*arguments: str | Path) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def test_without_a_gpu_it_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    assert main(["--output", str(tmp_path / "found")]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "needs an NVIDIA GPU, its driver and a CUDA build of torch" in err
    assert "--device cpu --toy" in err
    assert not (tmp_path / "found").exists()
    assert main(["--parts", "kernel", "--device", "cuda"]) == 2
    assert "there is no part 'kernel'" in capsys.readouterr().err


def test_no_part_ends_another(tmp_path: Path) -> None:
    done = subprocess.run(
        python("-m", "tests.support.gpu_parts", tmp_path, "all"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr == ""
    found = read(tmp_path / "results.jsonl")
    ended = {name: part.outcome.ended for name, part in found.items() if part.outcome is not None}
    assert ended == {
        "fails": "failed",
        "hangs": "out of time",
        "killed": "killed",
        "wrong": "done",
        "late": "left out",
        "well": "done",
    }
    whys = {name: part.outcome.why for name, part in found.items() if part.outcome is not None}
    assert whys["fails"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert whys["killed"] == "by SIGKILL"
    assert "it takes 1000 s" in whys["late"]
    assert [len(part.findings) for part in found.values()].count(1) == 5, "what was found before the end is kept"
    assert found["well"].findings[0].verdict == "right"
    for pid in found["hangs"].findings[0].figures.values():
        assert not _runs(pid)
    assert "illegal memory access" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert done.stdout.endswith(f"{table}\n")
    assert "| fails | failed |" in table
    assert "| a \\| b | 12,346 | wrong | two lines |" in table
    assert "| sum | 2 | 0.123 | right |  |" in table
    assert "Killed: by SIGKILL." in table


def test_what_is_right_ends_well_and_what_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    good = subprocess.run(python("-m", "tests.support.gpu_parts", tmp_path, "well"), cwd=ROOT, capture_output=True)
    assert good.returncode == 0
    running = subprocess.Popen(python("-m", "tests.support.gpu_parts", tmp_path, "hangs"), cwd=ROOT)
    pids: list[int] = []
    while not pids and running.poll() is None:
        time.sleep(0.1)
        hanging = read(tmp_path / "results.jsonl").get("hangs")
        pids = [] if hanging is None else list(hanging.findings[0].figures.values())
    running.kill()
    running.wait()
    for _ in range(100):
        if not any(map(_runs, pids)):
            break
        time.sleep(0.1)
    assert pids
    assert not any(map(_runs, pids))


def test_its_parts_on_a_cpu(tmp_path: Path) -> None:
    parts = [part.name for part in PARTS if part.name not in SAME]
    command = python("-m", "scripts.gpu_check", "--device", "cpu", "--toy", "--output", tmp_path, "--parts", *parts)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text(encoding="utf-8")
    found = read(tmp_path / "results.jsonl")
    assert set(found) == set(parts)
    for name, part in found.items():
        assert part.outcome is not None
        assert part.outcome.ended == "done", name
        assert part.findings, name
    assert any("triton" in finding.case for finding in found["kernels"].findings)
    assert any(finding.figures.get("gave up a place") for finding in found["strict"].findings)
    assert all(finding.verdict == "right" for finding in found["memory"].findings)


def test_a_line_that_was_cut_short_costs_that_line(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    record(file, "watcher", aimed("cost", False, "at most 1.02 times", {"times as long": 1.5}))
    record(file, "watcher", Outcome("watcher", "done", 2.0))
    with open(file, "a", encoding="utf-8") as lines:
        lines.write('{"part": "watcher", "finding": {"case')
    found = read(file)
    assert len(found["watcher"].findings) == 1
    table = document(PARTS, found, Bench("cuda"))
    assert table.startswith("## On a GPU\n")
    assert "| watcher | done | 2 |  |  |  | 1 |" in table
    assert "| cost | 1.5 | missed | target: at most 1.02 times |" in table


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
