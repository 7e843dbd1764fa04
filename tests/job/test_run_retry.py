"""`--retry-failed`: the rows that failed are tried again, and everything else stays as it is."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import Command, Finished, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl

FUNCTION = """
from pathlib import Path

BROKEN = Path(__file__).with_name("broken")


def answer(messages):
    text = messages[-1]["content"]
    if text.endswith("!") and BROKEN.exists():
        raise ConnectionError(f"no answer to {text}")
    return f"{len(messages)} {text}"
"""


@pytest.fixture
def flaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose engine fails on every text that ends in "!" while a file `broken` is there: 40 chats of two turns
    and two samples, of which ten fail in the first turn and ten in the second; one row cannot be read."""
    (tmp_path / "flaky_answers.py").write_text(FUNCTION, encoding="utf-8")
    (tmp_path / "broken").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "flaky_answers", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    rows: list[Any] = [
        {"id": f"chat-{n}", "turns": [f"{n}{'!' * (n % 4 == 1)}", f"more {n}{'!' * (n % 4 == 3)}"]} for n in range(40)
    ]
    rows.insert(7, "{broken")
    return scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows),
        engine={"max_batch_rows": 4, "scripted": {"function": "flaky_answers:answer"}},
        generation={"samples": 2},
        scoring=["includes"],
        sink={"formats": ["jsonl", "parquet"]},
        max_error_rate=0.6,
    )


def turns(recipe: Path) -> dict[tuple[int, int, int], str]:
    with closing(sqlite3.connect(recipe.parent / "runs/test/run.sqlite")) as db:
        found = db.execute("SELECT idx, sample, turn, record, queued FROM turns").fetchall()
    return {key: f"{record} {queued}" for *key_, record, queued in found for key in [(key_[0], key_[1], key_[2])]}


def failed_ids(recipe: Path) -> list[Any]:
    return [error["id"] for error in read_jsonl(recipe.parent / "runs/test/errors.jsonl")]


def test_only_what_failed_is_tried_again(flaky: Path, batchchat: Command) -> None:
    first = batchchat("run", flaky)
    assert first.code == 0, first.err
    assert report_of(flaky, "test")["rows"] == {"in": 41, "answered": 20, "failed": 21}
    assert len(failed_ids(flaky)) == 41, "both samples of twenty chats, and the row that could not be read"
    before = turns(flaky)
    (flaky.parent / "broken").unlink()
    assert "finished before" in batchchat("run", flaky).err, "without the option a finished run stays as it is"
    ended = batchchat("run", flaky, "--retry-failed")
    assert ended.code == 0, ended.err
    assert "20 failed rows are tried again\n1 rows could not be read and stay in errors.jsonl" in ended.err
    after = turns(flaky)
    assert {key: after[key] for key in before} == before, "what was answered stays, the first turns of failed chats too"
    assert len(after) == 40 * 2 * 2
    report = report_of(flaky, "test")
    assert report["rows"] == {"in": 41, "answered": 40, "failed": 1}
    assert report["samples"] == {"answered": 80, "failed": 2}
    assert [session["completed"] for session in report["sessions"]] == [len(before), len(after) - len(before)]
    assert report["scoring"]["metrics"]["includes"]["counts"]["answers"] == 82
    assert failed_ids(flaky) == [None]
    fresh = batchchat("run", flaky, "name=fresh")
    assert fresh.code == 0, fresh.err
    for name in ("outputs.jsonl", "outputs.parquet", "errors.jsonl", "scores.jsonl"):
        assert (flaky.parent / "runs/test" / name).read_bytes() == (flaky.parent / "runs/fresh" / name).read_bytes()
    again = batchchat("run", flaky, "--retry-failed")
    assert again.code == 0
    assert "no row failed that can be tried again" in again.err
    assert turns(flaky) == after


def test_rows_that_fail_again_are_failed_rows(flaky: Path, batchchat: Command) -> None:
    batchchat("run", flaky)
    before = (outputs(flaky, "test"), failed_ids(flaky))
    ended = batchchat("run", flaky, "--retry-failed", "max_error_rate=0.1")
    assert ended.code == 3
    assert "21 of 41 rows failed" in ended.err
    assert (outputs(flaky, "test"), failed_ids(flaky)) == before


def test_a_killed_retry_goes_on_and_loses_nothing(flaky: Path, batchchat: Command) -> None:
    batchchat("run", flaky)
    before = turns(flaky)
    (flaky.parent / "broken").unlink()
    command = [sys.executable, "-m", "batchchat", "run", str(flaky), "engine.scripted.batch_seconds=0.1"]
    rng = random.Random(1)
    codes = []
    for attempt in range(30):
        option = ["--retry-failed"] if attempt % 2 == 0 else []
        process = subprocess.Popen([*command, *option], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        known = len(turns(flaky))
        deadline = time.monotonic() + 30
        while process.poll() is None and len(turns(flaky)) == known and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.random() * 0.2)
        process.kill()
        _, err = process.communicate()
        codes.append(process.returncode)
        assert process.returncode in (0, -9), err.decode()
        found = turns(flaky)
        assert {key: found[key] for key in before} == before
        if process.returncode == 0:
            break
    assert codes[-1] == 0
    assert -9 in codes, "the job was too short to be killed"
    assert report_of(flaky, "test")["rows"] == {"in": 41, "answered": 40, "failed": 1}
    assert batchchat("run", flaky, "name=fresh").code == 0
    assert outputs(flaky, "test") == outputs(flaky, "fresh")


def test_nothing_to_retry_is_a_mistake(flaky: Path, batchchat: Command) -> None:
    def sentence(ended: Finished) -> str:
        assert ended.code == 2
        return ended.err

    said = sentence(batchchat("run", flaky, "--retry-failed"))
    assert said == (
        f"batchchat: {flaky.parent}/runs/test holds no run whose failed rows could be tried again; leave "
        "--retry-failed out\n"
    )
    assert not (flaky.parent / "runs").exists()
    assert "leave one of them out" in sentence(batchchat("run", flaky, "--retry-failed", "--restart"))
    batchchat("run", flaky)
    assert "generation.samples: 2 -> 1" in sentence(batchchat("run", flaky, "--retry-failed", "generation.samples=1"))
    assert len(failed_ids(flaky)) == 41


def test_a_row_that_was_too_long_for_the_memory_is_answered_with_more(memory_recipe: Path, batchchat: Command) -> None:
    """`engine.max_batch_tokens` may change between sessions, so what failed for it can be had without the rest."""
    recipe = json.loads(memory_recipe.read_text(encoding="utf-8"))
    recipe["engine"] = {"kind": "continuous", "max_batch_rows": 4, "max_batch_tokens": 90}
    recipe["chat"] = {"overflow": "error"}
    memory_recipe.write_text(json.dumps(recipe), encoding="utf-8")
    assert batchchat("run", memory_recipe).code == 0
    runs = memory_recipe.parent / "runs"
    failed = report_of(memory_recipe, "run")["rows"]["failed"]
    assert 0 < failed < 14
    assert batchchat("run", memory_recipe, "--retry-failed", "engine.max_batch_tokens=4096").code == 0
    assert report_of(memory_recipe, "run")["rows"]["failed"] < failed
    assert batchchat("run", memory_recipe, "name=fresh", "engine.max_batch_tokens=4096").code == 0
    assert (runs / "run/outputs.jsonl").read_bytes() == (runs / "fresh/outputs.jsonl").read_bytes()
