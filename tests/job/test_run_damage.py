"""Run directories that were damaged, edited, taken away or written by another version: a sentence each, or mended."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import Command, scripted_recipe, write_jsonl

Harm = Callable[[Path], object]


@pytest.fixture
def recipe(tmp_path: Path, batchchat: Command) -> Path:
    """Of a run that is done, with scores and a judge; it lies in `runs/test`."""
    rows: list[Any] = [
        {"id": n, "messages": [{"role": "user", "content": f"question {n}"}], "ref": "question 3"} for n in range(20)
    ]
    judge = {
        "model": {"name": "scripted"},
        "engine": {"kind": "scripted", "scripted": {"answer": "text", "text": "[[7]]"}},
    }
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", [*rows, "{broken"]),
        scoring=[{"exact": {"reference": "ref"}}],
        judges={"quality": judge},
        sink={"formats": ["jsonl", "parquet"]},
        max_error_rate=0.5,
    )
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    return recipe


def sql(*statements: str) -> Harm:
    def harm(directory: Path) -> None:
        with closing(sqlite3.connect(directory / "run.sqlite")) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()

    return harm


def flip(directory: Path) -> None:
    """One byte of an answer, which SQLite does not notice."""
    store = directory / "run.sqlite"
    data = store.read_bytes()
    assert b"question 7" in data
    store.write_bytes(data.replace(b"question 7", b"question 8"))


def scramble(directory: Path) -> None:
    store, rng = directory / "run.sqlite", random.Random(1)
    data = bytearray(store.read_bytes())
    for _ in range(200):
        data[rng.randrange(4096, len(data))] ^= 0xFF
    store.write_bytes(data)


def remake(statement: str) -> Harm:
    def harm(directory: Path) -> None:
        (directory / "run.sqlite").unlink()
        sql(statement)(directory)

    return harm


def cut(size: float) -> Harm:
    def harm(directory: Path) -> None:
        store = directory / "run.sqlite"
        os.truncate(store, int(store.stat().st_size * size))

    return harm


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut(0.5), "is damaged (database disk image is malformed)"), (cut(0), "gone or empty"), (flip, "is damaged"),
        (scramble, "is damaged"), (remake("CREATE TABLE x(y)"), "not a run store of batchchat"),
        (sql("DROP TABLE turns"), "its table turns is gone"),
        (sql("DELETE FROM turns WHERE idx = 3"), "answers of row 3"),
        (sql("ALTER TABLE rows DROP COLUMN samples"), "its table rows"), (sql("UPDATE meta SET value = '{'"), "entry"),
        (sql("PRAGMA user_version = 99"), "has format 99, and this batchchat reads format"),
        (sql("PRAGMA application_id = 0"), "has format 1"),
        (lambda found: (found / "run.sqlite").unlink(), "gone or empty"),
    ],
)  # fmt: skip
def test_a_damaged_store_is_said_with_what_is_safe(
    harm: Harm, says: str, recipe: Path, tmp_path: Path, batchchat: Command
) -> None:
    directory = tmp_path / "runs/test"
    harm(directory)
    (directory / "outputs.jsonl").unlink()  # which would be made anew from the store
    for command in (("run", recipe), ("score", directory, "scoring=[f1]")):
        ended = batchchat(*command)
        assert ended.code == 2, ended.err
        assert says in ended.err
        assert "--restart" in ended.err
        assert "Traceback" not in ended.err
        (sentence,) = [line for line in ended.err.splitlines() if line.startswith("batchchat: ")]
        assert "run.sqlite" in sentence
    assert batchchat("run", recipe, "--restart").code == 0
    assert (tmp_path / "runs/test.old-1/outputs.parquet").exists()


@pytest.mark.parametrize(
    "name", ["outputs.jsonl", "outputs.parquet", "errors.jsonl", "scores.jsonl", "report.json", "report.md"]
)
def test_files_that_were_changed_are_said_and_made_anew(
    name: str, recipe: Path, tmp_path: Path, batchchat: Command
) -> None:
    file = tmp_path / "runs/test" / name
    before = file.read_bytes()
    harms: list[tuple[str, Callable[[], object]]] = [
        ("was emptied", lambda: file.write_bytes(b"")),
        ("is missing", file.unlink),
        ("was changed", lambda: file.write_bytes(before[:-2] + b" \n")),
    ]
    for how, harm in harms:
        harm()
        ended = batchchat("run", recipe, "--quiet")
        assert ended.code == 0, ended.err
        assert f"{file} {how} since the run wrote it; it is made anew from the run store" in ended.err
        if name.startswith("report"):
            kept = [line for line in before.splitlines() if b"wall" not in line and b'"score"' not in line]
            assert set(kept) <= set(file.read_bytes().splitlines())
        else:
            assert file.read_bytes() == before
    ended = batchchat("run", recipe, "--quiet")
    assert ended.code == 0
    assert ended.err == ""
    shutil.copytree(tmp_path / "runs/test", tmp_path / "runs/copy")
    assert batchchat("run", recipe, "--quiet", "name=copy").err == "", "a copy has other times and the same content"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", "\xff"])
def test_the_manifest_is_mended_from_the_store_and_guards_all_the_same(
    text: str | None, recipe: Path, tmp_path: Path, batchchat: Command
) -> None:
    manifest = tmp_path / "runs/test/manifest.json"
    before = manifest.read_bytes()
    if text is None:
        manifest.unlink()
    else:
        manifest.write_bytes(text.encode("latin-1"))
    ended = batchchat("run", recipe, "generation.seed=5")
    assert ended.code == 2
    assert "generation.seed: 0 -> 5" in ended.err
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    assert f"{manifest} {'is missing' if text is None else 'was changed'}; it is written anew" in ended.err
    assert manifest.read_bytes() == before


def test_a_judge_that_is_damaged_is_asked_anew_alone(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    judge = tmp_path / "runs/test/judges/quality"
    (judge / "manifest.json").write_text("{", encoding="utf-8")
    assert batchchat("run", recipe, "scoring=[exact]").code == 0
    os.truncate(judge / "run.sqlite", 5000)
    ended = batchchat("run", recipe, "scoring=[f1]")
    assert ended.code == 2
    assert f"move {judge} away and run the same command again" in ended.err
    shutil.rmtree(judge)
    assert batchchat("run", recipe, "scoring=[f1]").code == 0


def test_restart_leaves_what_is_in_use_and_what_is_no_run(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    with open(tmp_path / "runs/test/lock", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = batchchat("run", recipe, "--restart")
    assert ended.code == 2
    assert "in use" in ended.err
    assert not (tmp_path / "runs/test.old-1").exists()
    ended = batchchat("run", recipe, "--restart", f"sink.directory={tmp_path}")
    assert ended.code == 2
    assert "holds no run, so it is not moved aside" in ended.err


@pytest.mark.parametrize(("name", "code"), [("run.log", 5), ("lock", 5), ("outputs.jsonl", 5)])
def test_a_folder_in_a_files_place_is_said(
    name: str, code: int, recipe: Path, tmp_path: Path, batchchat: Command
) -> None:
    file = tmp_path / "runs/test" / name
    file.unlink()
    file.mkdir()
    ended = batchchat("run", recipe, "scoring=[f1]")
    assert ended.code == code
    assert ended.err.splitlines()[-1].startswith("batchchat: ")


def test_a_directory_that_is_taken_away_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "thief.py").write_text(
        f"import shutil\n\ndef take(messages):\n    shutil.rmtree({str(tmp_path / 'runs')!r}, ignore_errors=True)\n"
        "    return 'gone'\n",
        encoding="utf-8",
    )
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x"}])
    recipe = scripted_recipe(tmp_path / "r.yaml", source, engine={"scripted": {"function": "thief:take"}})
    ended = subprocess.run(
        [sys.executable, "-m", "batchchat", "run", recipe],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 5, ended.stderr
    assert "was removed while the run worked in it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_references_are_tried_before_anything_is_written(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"prompt": f"{n}", "word": "four", "mixed": "four" if n == 2 else str(n)} for n in range(5)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    recipe = scripted_recipe(tmp_path / "r.yaml", source, scoring=[{"numeric": {"reference": "word"}}])
    ended = batchchat("run", recipe)
    assert ended.code == 2
    assert "no reference of the metric 'numeric' can be read in the first 5 chats" in ended.err
    assert not (tmp_path / "runs").exists()
    ended = batchchat("run", recipe, "scoring=[{numeric: {reference: mixed}}]")
    assert ended.code == 0
    assert "1 of the first 5 references of the metric 'numeric' cannot be read" in ended.err
    again = batchchat("run", recipe, "scoring=[{numeric: {reference: mixed}}]", "--json")
    assert json.loads(again.out)["scoring"]["metrics"]["numeric"]["n"] == 4
    assert batchchat("run", recipe, "scoring=[{numeric: {reference: word}}]").code == 2, "nor are they scored later"
