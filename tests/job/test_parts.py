"""Outputs in parts: read as one by `datasets`, whole and in order at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import ROOT, Command, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl

ROWS = 45


def job(folder: Path, **sections: Any) -> Path:
    rows: list[Any] = [{"prompt": "x" * (1 + n % 7), "note": n} for n in range(ROWS)]
    rows[33] = "{broken"
    return scripted_recipe(folder / "r.yaml", write_jsonl(folder / "in.jsonl", rows), max_error_rate=0.5, **sections)


def parts(folder: Path, format_: str = "jsonl") -> list[Path]:
    return sorted((folder / f"outputs-{format_}").glob(f"part-*.{format_}"))


def loaded(folder: Path, cache: Path) -> list[int]:
    """The places in the input of what `datasets` reads."""
    from datasets import load_dataset

    return [row["index"] for row in load_dataset(str(folder), split="train", cache_dir=str(cache))["batchchat"]]


@pytest.mark.parametrize("sink", [{"shards": 4}, {"every": 10}, {"shards": 100}])
def test_parts_read_as_one(tmp_path: Path, batchchat: Command, sink: dict[str, int]) -> None:
    recipe = job(tmp_path, sink={"formats": ["jsonl", "parquet"], **sink})
    assert batchchat("run", recipe, "-q", "--show", "1").code == 0
    run = tmp_path / "runs/test"
    whole = [n for n in range(ROWS) if n != 33]
    assert loaded(run / "outputs-parquet", tmp_path / "cache") == whole
    assert loaded(run / "outputs-jsonl", tmp_path / "cache") == whole
    expected = {4: 4, 10: 5, 100: 44}[next(iter(sink.values()))]
    assert len(parts(run)) == len(parts(run, "parquet")) == expected
    assert "outputs-jsonl" in report_of(recipe, "test")["files"]
    assert batchchat("run", recipe, "-q", "sink.shards=null", "sink.every=null").code == 0
    assert not parts(run)
    assert b"".join(line + b"\n" for line in outputs(recipe, "test").splitlines()) == outputs(recipe, "test")
    assert batchchat("run", recipe, "-q").code == 0
    assert not (run / "outputs.jsonl").exists(), "not what an earlier form of export left"


def test_parts_together_are_the_one_file(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path)
    assert batchchat("run", recipe, "-q", "name=one").code == 0
    for setting in ("sink.shards=7", "sink.every=8"):
        assert batchchat("run", recipe, "-q", "--restart", setting).code == 0
        assert b"".join(part.read_bytes() for part in parts(tmp_path / "runs/test")) == outputs(recipe, "one")


def test_parts_appear_while_the_run_goes_on_and_stay_as_they_are(tmp_path: Path, batchchat: Command) -> None:
    scripted = {"answer": "counting", "batch_seconds": 0.4}
    import datasets  # noqa: F401 - takes longer than the run

    recipe = job(tmp_path, sink={"every": 10}, engine={"max_batch_rows": 2, "scripted": scripted})
    run = tmp_path / "runs/test"
    process = subprocess.Popen([sys.executable, "-m", "batchchat", "run", str(recipe), "-q"], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(parts(run)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    seen = {part: (part.read_bytes(), part.stat().st_mtime_ns) for part in parts(run)}
    assert loaded(run / "outputs-jsonl", tmp_path / "cache")[:20] == list(range(20))
    assert process.poll() is None, "the run was over before it was looked at"
    process.kill()
    process.wait()
    assert batchchat("run", recipe, "-q", "engine.scripted.batch_seconds=0").code == 0, "it goes on"
    assert {part: (part.read_bytes(), part.stat().st_mtime_ns) for part in seen} == seen
    rows = [row for part in parts(run) for row in read_jsonl(part)]
    assert [row["batchchat"]["index"] for row in rows] == [n for n in range(ROWS) if n != 33]


def test_columns_of_later_rows_are_read_while_the_run_goes_on(tmp_path: Path, batchchat: Command) -> None:
    """Readers would take those of the first part for all."""
    late = [{"prompt": "x", "reference": ["y"], "free": {"ab"[n % 2]: n}} for n in range(35)]
    rows: list[Any] = [*[{"prompt": "x"}] * 15, *late]
    engine = {"max_batch_rows": 5, "scripted": {"answer": "counting", "batch_seconds": 0.2}}
    sink = {"formats": ["parquet"], "every": 10}
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows), engine=engine, sink=sink)
    run = tmp_path / "runs/test"
    process = subprocess.Popen([sys.executable, "-m", "batchchat", "run", str(recipe), "-q"], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while len(parts(run, "parquet")) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert loaded(run / "outputs-parquet", tmp_path / "cache") == list(range(40)), "read before the run is over"
    assert batchchat("run", recipe, "-q", "engine.scripted.batch_seconds=0").code == 0
    assert loaded(run / "outputs-parquet", tmp_path / "cache") == list(range(50))


def test_a_late_row_of_another_type_makes_all_parts_read_as_one(tmp_path: Path, batchchat: Command) -> None:
    rows: list[Any] = [{"prompt": "x", "note": n if n < 25 else {"more": str(n)}} for n in range(30)]
    rows[:10] = [{"prompt": "x", "note": None}] * 10
    recipe = scripted_recipe(
        tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows), sink={"formats": ["parquet"], "every": 10}
    )
    assert batchchat("run", recipe, "-q").code == 0
    assert loaded(tmp_path / "runs/test/outputs-parquet", tmp_path / "cache") == list(range(30))


def test_two_ways_to_make_parts_are_refused(tmp_path: Path, batchchat: Command) -> None:
    found = batchchat("run", job(tmp_path), "sink.shards=2", "sink.every=5")
    assert found.code == 2
    assert "leave one of them out" in found.err


def test_shards_of_the_input_may_write_parts_too(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path, sink={"every": 10})
    for number in (0, 1):
        assert batchchat("run", recipe, "-q", f"source.shard={number}/2").code == 0
    shards = [tmp_path / f"runs/test/shard-{number}-of-2" for number in (0, 1)]
    assert batchchat("merge", *shards, "--output", tmp_path / "runs/merged").code == 0
    rows = [json.loads(line) for part in parts(tmp_path / "runs/merged") for line in part.read_text().splitlines()]
    assert [row["batchchat"]["index"] for row in rows] == [n for n in range(ROWS) if n != 33]
