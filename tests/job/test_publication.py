"""Results are copied to an address: whole, as often as they change, never over another run, and no fault costs any."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

RESULTS = {"outputs.jsonl", "errors.jsonl", "recipe.yaml", "manifest.json", "report.json", "report.md", "report.html"}


@pytest.fixture(autouse=True)
def bucket() -> Iterator[MemoryFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def job(folder: Path, address: str = "memory://bucket/{name}", **sections: Any) -> Path:
    sink = {"publish": address, "directory": str(folder / "runs" / "{name}"), **sections.pop("sink", {})}
    rows = [{"prompt": f"row {n}"} for n in range(10)]
    return scripted_recipe(folder / "r.yaml", write_jsonl(folder / "in.jsonl", rows), sink=sink, **sections)


def there(system: Any, root: str = "/bucket/test") -> dict[str, bytes]:
    return {path.removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root)}


def here(folder: Path, names: Any, name: str = "test") -> dict[str, bytes]:
    return {file: (folder / "runs" / name / file).read_bytes() for file in names}


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_the_results_are_there_and_equal(tmp_path: Path, batchchat: Command, kind: str) -> None:
    address = "memory://bucket/{name}" if kind == "memory" else f"file://{tmp_path}/shared/{{name}}"
    assert batchchat("run", job(tmp_path, address, scoring=["length"]), "-q").code == 0
    root = "/bucket/test" if kind == "memory" else f"{tmp_path}/shared/test"
    found = there(fsspec.filesystem(kind), root)
    assert set(found) == {*RESULTS, "scores.jsonl"}
    assert found == here(tmp_path, found)


def test_a_later_call_copies_what_changed_and_removes_what_is_gone(
    tmp_path: Path, batchchat: Command, bucket: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = job(tmp_path, scoring=["length"])
    assert batchchat("run", recipe, "-q").code == 0
    copied: list[str] = []
    put = MemoryFileSystem.put_file

    def counted(self: Any, source: str, place: str, **options: Any) -> None:
        copied.append(place)
        put(self, source, place, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", counted)
    assert batchchat("run", recipe, "-q").code == 0
    assert copied == [], "nothing changed"
    assert batchchat("run", recipe, "-q", "sink.formats=[parquet]", "scoring=[]").code == 0
    assert copied[-1].endswith("report.json"), "where it is, all is there"
    found = there(bucket)
    assert set(found) == (RESULTS - {"outputs.jsonl"}) | {"outputs.parquet"}
    assert found == here(tmp_path, found)
    copied.clear()
    assert batchchat("score", tmp_path / "runs/test", "scoring=[length]", "-q").code == 0
    assert there(bucket) == here(tmp_path, there(bucket))
    assert "scores.jsonl" in there(bucket)
    assert not any("outputs" in place for place in copied)


def test_parts_are_there_while_the_run_goes_on(
    tmp_path: Path, batchchat: Command, bucket: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = job(tmp_path, sink={"every": 2}, engine={"max_batch_rows": 2, "scripted": {"batch_seconds": 0.05}})
    seen: list[set[str]] = []
    put = MemoryFileSystem.put_file

    def watched(self: Any, source: str, place: str, **options: Any) -> None:
        put(self, source, place, **options)
        seen.append(set(there(bucket)))

    monkeypatch.setattr(MemoryFileSystem, "put_file", watched)
    assert batchchat("run", recipe, "-q").code == 0
    parts = [f"outputs-jsonl/part-{n:05}.jsonl" for n in range(5)]
    early = next(names for names in seen if parts[0] in names)
    assert parts[4] not in early
    assert "report.json" not in early
    found = there(bucket)
    assert {*parts, "outputs-jsonl/README.md"} <= set(found)
    assert found == here(tmp_path, found)


def test_an_address_that_fails_costs_nothing(
    tmp_path: Path, batchchat: Command, bucket: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = job(tmp_path, sink={"every": 2})
    put = MemoryFileSystem.put_file

    def breaks(self: Any, source: str, place: str, **options: Any) -> None:
        if "outputs" in place:
            raise RuntimeError("the token has expired")
        put(self, source, place, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", breaks)
        ended = batchchat("run", recipe)
    assert ended.code == 5
    assert "part-00000.jsonl was not copied to memory://bucket/test (the token has expired)" in ended.err
    assert "memory://bucket/test cannot be written to (the token has expired): all answers so far are in" in ended.err
    assert len(list((tmp_path / "runs/test/outputs-jsonl").glob("part-*"))) == 5
    assert batchchat("run", recipe, "-q").code == 0
    assert there(bucket) == here(tmp_path, there(bucket))
    sessions = json.loads(there(bucket)["report.json"])["sessions"]
    assert [session["completed"] for session in sessions] == [10], "nothing was answered anew"


def test_before_any_work_it_is_known_that_an_address_cannot_be_written_to(tmp_path: Path, batchchat: Command) -> None:
    (tmp_path / "wall").write_text("a file", encoding="utf-8")
    ended = batchchat("run", job(tmp_path, f"file://{tmp_path}/wall/{{name}}"), "-q")
    assert ended.code == 5
    assert "cannot be written to" in ended.err
    assert not (tmp_path / "runs/test/outputs.jsonl").exists()


def test_results_of_another_run_are_not_written_over(tmp_path: Path, batchchat: Command, bucket: Any) -> None:
    recipe = job(tmp_path, sink={"every": 1})
    assert batchchat("run", recipe, "-q").code == 0
    before = there(bucket)
    shutil.rmtree(tmp_path / "runs")
    time.sleep(1.1)  # which run it is, its begin tells, to the second
    ended = batchchat("run", recipe, "-q", "source.limit=2")
    assert ended.code == 2
    assert "memory://bucket/test holds the results of another run" in ended.err
    assert there(bucket) == before
    assert batchchat("run", recipe, "-q", "source.limit=2", "--restart").code == 0
    found = there(bucket)
    assert found == here(tmp_path, found)
    assert sum("part-" in name for name in found) == 2, "parts of the earlier run are gone"


def test_shards_lie_beside_each_other_and_the_whole_above_them(
    tmp_path: Path, batchchat: Command, bucket: MemoryFileSystem
) -> None:
    recipe = job(tmp_path)
    for number in range(2):
        assert batchchat("run", recipe, "-q", f"source.shard={number}/2").code == 0
    shards = [tmp_path / f"runs/test/shard-{number}-of-2" for number in range(2)]
    assert batchchat("merge", *shards, "--output", tmp_path / "runs/whole", "-q").code == 0
    found = there(bucket)
    whole = {name for name in found if not name.startswith("shard-")}
    assert whole == RESULTS
    assert {name.partition("/")[2] for name in set(found) - whole} == RESULTS
    assert len(found["outputs.jsonl"].splitlines()) == 10
    assert here(tmp_path, whole, "whole") == {name: found[name] for name in whole}


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("results", "is results, no address; write s3://bucket/{name}"),
        ("s3://bucket/{id}", "holds {id}, but {name} is the only placeholder"),
        ("s3://key:secret@bucket/x", "give the address without"),
        ("nosuch://bucket/x", "nosuch://bucket/x cannot be used: Protocol not known: nosuch"),
    ],
)
def test_addresses_that_are_none(tmp_path: Path, batchchat: Command, address: str, sentence: str) -> None:
    ended = batchchat("run", job(tmp_path, address))
    assert ended.code == 2
    assert sentence in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that speaks S3 on this machine, with a bucket."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (make test-s3)")
    pytest.importorskip("moto", reason="moto is not installed (make test-s3)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        fsspec.filesystem("s3").mkdir("bucket")
        yield
    finally:
        server.kill()
        server.wait()


def test_from_and_to_a_server_that_speaks_s3(tmp_path: Path, batchchat: Command, s3: None) -> None:
    system = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    system.pipe_file("bucket/in/a.jsonl", b'{"prompt": "one"}\n{"prompt": "two"}\n')
    recipe = job(tmp_path, "s3://bucket/out/{name}", sink={"every": 1})
    source = "source.path=s3://bucket/in/*.jsonl"
    assert batchchat("run", recipe, "-q", source).code == 0
    found = there(system, "bucket/out/test")
    assert found == here(tmp_path, found)
    assert "outputs-jsonl/part-00001.jsonl" in found
    assert len(read_jsonl(tmp_path / "runs/test/outputs-jsonl/part-00000.jsonl")) == 1
    for address, sentence in (
        ("s3://nobucket/x", "s3://nobucket/x cannot be written to"),
        ("s3://bucket/out/test", "s3://bucket/out/test holds the results of another run"),
    ):
        ended = batchchat("run", recipe, "-q", "name=other", source, f"sink.publish={address}")
        assert sentence in ended.err
        assert len(ended.err.splitlines()) == 1
    assert not system.exists("nobucket"), "no bucket is made by a slip of the pen"
    ended = batchchat("run", recipe, "name=third", "source.path=s3://nobucket/a.jsonl")
    assert ended.code == 2
    assert "there is no file s3://nobucket/a.jsonl" in ended.err
