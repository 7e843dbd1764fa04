"""Kills, interrupts, locks and changed inputs: what was finished stays, and nothing else goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.jobs import ROOT, Command, scripted_recipe, write_jsonl

ROWS = 300
TURNS = 2


def start(recipe: Path, *args: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "batchchat", "run", str(recipe), *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(recipe: Path, *args: str) -> tuple[int, str]:
    process = start(recipe, *args)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


def job(folder: Path, **engine: object) -> Path:
    rows = [
        {"id": n, "messages": [{"role": "user", "content": "x" * (1 + n % 40)}, {"role": "user", "content": "more"}]}
        for n in range(ROWS)
    ]
    source = write_jsonl(folder / "in.jsonl", [*rows[:100], "{broken", *rows[100:]])
    scripted = {"answer": "counting", **engine}
    return scripted_recipe(
        folder / "r.yaml",
        source,
        engine={"max_batch_rows": 8, "scripted": scripted},
        sink={"formats": ["jsonl", "parquet"]},
        max_error_rate=0.5,
    )


def results(folder: Path) -> dict[str, bytes]:
    names = ("outputs.jsonl", "outputs.parquet", "errors.jsonl")
    return {name: (folder / "runs/test" / name).read_bytes() for name in names}


def sessions(folder: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(folder / "runs/test/run.sqlite")) as db:
        return db.execute("SELECT handed_out, completed FROM sessions ORDER BY number").fetchall()


def num_turns(folder: Path) -> int:
    """Turns that the store holds by now; 0 before there is one."""
    if not (folder / "runs/test/run.sqlite").exists():
        return 0
    try:
        with closing(sqlite3.connect(folder / "runs/test/run.sqlite", timeout=10)) as db:
            return int(db.execute("SELECT count(*) FROM turns").fetchone()[0])
    except sqlite3.OperationalError:  # the file is there, its tables are not yet
        return 0


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_at_random_moments_the_outputs_are_those_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert finish(job(whole)) == (0, "")
    recipe = job(killed, batch_seconds=0.02)
    rng = random.Random(0)
    kills = 0
    for _ in range(60):
        process = start(recipe)
        before = num_turns(killed)
        if rng.random() < 0.8:  # the others die while they start
            wait_until(lambda: num_turns(killed) > before or process.poll() is not None)  # noqa: B023
        time.sleep(rng.random() * 0.5)
        if process.poll() is None:
            process.kill()
            kills += 1
        _, err = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err.decode()
        for exported in (killed / "runs/test").glob("outputs.*"):
            assert exported.read_bytes() == results(whole)[exported.name], "nothing is exported half"
    assert process.returncode == 0
    assert kills >= 3, "the job was too short to be killed"
    expected, found = results(whole), results(killed)
    assert found["outputs.jsonl"] == expected["outputs.jsonl"]
    assert found["errors.jsonl"].replace(bytes(killed), bytes(whole)) == expected["errors.jsonl"]
    assert found["outputs.parquet"] == expected["outputs.parquet"]
    needed = ROWS * TURNS
    handed_out = sum(handed for handed, _ in sessions(killed))
    with closing(sqlite3.connect(killed / "runs/test/run.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM turns").fetchone() == (needed,)
    assert needed <= handed_out <= needed + kills * 8, "more was generated than needed and in flight at the kills"


def judged(folder: Path, batch_seconds: float = 0.0) -> Path:
    """A job with scores and a judge, and files of two formats."""
    engine = {"kind": "scripted", "max_batch_rows": 8}
    scripted = {"answer": "text", "text": "[[7]]", "batch_seconds": batch_seconds}
    judge = {"model": {"name": "scripted"}, "engine": {**engine, "scripted": scripted}}
    rows = [{"id": n, "prompt": "x" * (1 + n % 40), "ref": "x" * (n % 7)} for n in range(60)]
    return scripted_recipe(
        folder / "r.yaml",
        write_jsonl(folder / "in.jsonl", [*rows, "{broken"]),
        generation={"samples": 2},
        engine={**engine, "scripted": {"batch_seconds": batch_seconds}},
        scoring=["f1", {"exact": {"reference": "ref"}}],
        judges={"quality": judge},
        sink={"formats": ["jsonl", "parquet"]},
        max_error_rate=0.5,
    )


def everything(directory: Path) -> dict[str, object]:
    """What a judged job leaves, but for times and places."""
    names = ("outputs.jsonl", "outputs.parquet", "scores.jsonl")
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    figures = {name: report[name] for name in ("rows", "samples", "turns", "tokens", "scoring")}
    return {**{name: (directory / name).read_bytes() for name in names}, **figures}


def test_killed_while_it_is_scored_and_judged_a_run_comes_to_the_same(tmp_path: Path, batchchat: Command) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert batchchat("run", judged(whole)).code == 0
    expected = everything(whole / "runs/test")
    recipe, directory = judged(killed, 0.02), killed / "runs/test"
    for stage in ("run.sqlite", "outputs.jsonl", "judges/quality/run.sqlite"):  # once each has begun
        process = start(recipe)
        wait_until(lambda: (directory / stage).exists() or process.poll() is not None)  # noqa: B023
        time.sleep(0.1)
        process.kill()
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err.decode()
        for name in ("outputs.jsonl", "outputs.parquet", "scores.jsonl"):
            assert not (directory / name).exists() or (directory / name).read_bytes() == expected[name]
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    assert everything(directory) == expected


@pytest.mark.parametrize("kibibytes", [24, 160])
def test_the_first_error_is_said_where_a_file_may_not_grow(kibibytes: int, tmp_path: Path, batchchat: Command) -> None:
    """Of the store; what follows from it, such as a commit without a transaction, is not."""
    recipe = judged(tmp_path)
    command = f'ulimit -f {kibibytes}; exec "{sys.executable}" -m batchchat run "{recipe}"'
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 5, ended.stderr
    (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("batchchat: ")]
    assert "cannot be written (disk I/O error)" in sentence
    assert "limit on the size of files" in sentence
    assert "no transaction" not in ended.stderr
    again = batchchat("run", recipe)
    assert again.code == 0, again.err
    assert json.loads(batchchat("run", recipe, "--json").out)["scoring"]["metrics"]["quality"]["n"] == 122


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    recipe = job(tmp_path, batch_seconds=0.05)
    process = start(recipe)
    wait_until(lambda: num_turns(tmp_path) > 0)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == b""
    assert f"batchchat run {recipe}".encode() in err
    assert b"Traceback" not in err
    done = sum(done for _, done in sessions(tmp_path))
    assert 0 < done < ROWS * TURNS
    assert not list((tmp_path / "runs/test").glob("*outputs*"))
    assert finish(recipe, "engine.scripted.batch_seconds=0")[0] == 0
    assert sum(done for _, done in sessions(tmp_path)) == ROWS * TURNS


def test_a_second_process_is_refused(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path, batch_seconds=0.2)
    process = start(recipe)
    try:
        wait_until(lambda: num_turns(tmp_path) > 0)
        ended = batchchat("run", recipe)
        assert ended.code == 2
        assert f"in use by process {process.pid}" in ended.err
    finally:
        process.kill()
        process.communicate()


def test_another_recipe_input_or_setting_is_refused_with_the_difference(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path)
    assert batchchat("run", recipe).code == 0
    before = results(tmp_path)
    ended = batchchat("run", recipe, "generation.seed=5")
    assert ended.code == 2
    assert "generation.seed: 0 -> 5" in ended.err
    with open(tmp_path / "in.jsonl", "a", encoding="utf-8") as source:
        source.write('{"messages": [{"role": "user", "content": "new"}]}\n')
    ended = batchchat("run", recipe)
    assert ended.code == 2
    assert "in.jsonl has changed" in ended.err
    assert "--restart" in ended.err
    assert results(tmp_path) == before
    assert batchchat("run", recipe, "--restart").code == 0
    assert results(tmp_path) != before
    kept = tmp_path / "runs/test.old-1/outputs.jsonl"
    assert kept.read_bytes() == before["outputs.jsonl"]


def test_a_finished_run_is_not_done_again(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path)
    first = batchchat("run", recipe, "--json")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs/test").glob("outputs.*")}
    second = batchchat("run", recipe, "--json")
    assert second.code == first.code == 0
    assert json.loads(second.out) == json.loads(first.out)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs/test").glob("outputs.*")} == stamps
    (tmp_path / "runs/test/outputs.jsonl").unlink()
    assert batchchat("run", recipe).code == 0
    assert (tmp_path / "runs/test/outputs.jsonl").exists()


def test_a_file_that_is_no_run_store_is_named(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path)
    assert batchchat("run", recipe).code == 0
    for extra in (tmp_path / "runs/test").glob("run.sqlite-*"):
        extra.unlink()
    (tmp_path / "runs/test/run.sqlite").write_bytes(b"not a database, " * 300)
    ended = batchchat("run", recipe)
    assert ended.code == 2
    assert "run.sqlite" in ended.err
    assert "--restart" in ended.err


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk can only be mounted by root")
@pytest.mark.parametrize("size", ["96k", "1m"])
def test_a_full_disk_stops_the_run_and_loses_nothing(size: str, tmp_path: Path) -> None:
    """A job whose results do not fit on a small disk ends with exit 5; with room it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let the tests mount a small disk")
    try:
        recipe = job(tmp_path)
        code, err = finish(recipe, f"sink.directory={disk}/run")
        assert code == 5, err
        assert err.startswith("batchchat: the disk is full")
        assert len(err.splitlines()) == 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert finish(recipe, f"sink.directory={disk}/run") == (0, "")
        assert finish(job(tmp_path))[0] == 0
        assert (disk / "run/outputs.jsonl").read_bytes() == (tmp_path / "runs/test/outputs.jsonl").read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
