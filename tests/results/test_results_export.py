"""Exports: every form and format read back by those who read them, also of a run that is not finished."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.chats import Place
from batchchat.recipe import load_recipe
from batchchat.results import open_results
from batchchat.results.exporting import Export
from batchchat.store import RunDirectory, RunStore
from batchchat.store.database import StoredRow, TurnRecord
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl


@pytest.fixture
def sampled(tmp_path: Path, batchchat: Command) -> Path:
    """A run with three samples a chat, whose lengths differ; every fifth row fails."""
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    rows = [
        {"id": f"c/{n}", "turns": [f"say {n}", "again"], "kind": "ab"[n % 2], "a b": n, "state": f"s{n}"}
        for n in range(10)
    ]
    rows[1]["tools"] = tools
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows),
        chat={"turns": "scripted"},
        engine={"scripted": {"answer": "counting", "fail_every": 5}},
        generation={"samples": 3, "max_new_tokens": 400},
        scoring=[{"length": {"unit": "words"}}],
        max_error_rate=1.0,
    )
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    return tmp_path / "runs/test"


def exported(batchchat: Command, run: Path, name: str, *options: str) -> list[dict[str, Any]]:
    file = run.parent / name
    ended = batchchat("export", run, "--output", file, *options)
    assert ended.code == 0, ended.err
    return read_jsonl(file)


def test_rows_are_chosen_by_what_is_known_of_them(sampled: Path, batchchat: Command) -> None:
    everything = exported(batchchat, sampled, "all.jsonl")
    assert len(everything) == 8 * 3
    assert everything[0]["kind"] == "a"
    assert [message["role"] for message in everything[0]["messages"]] == ["user", "assistant"] * 2
    assert "tools" in everything[3]
    for where, holds in {
        "kind == 'b'": lambda row: row["kind"] == "b",
        "length > 20": lambda row: row["scores"]["length"] > 20,
        'score["length"] <= 20 and not kind == "a"': lambda row: row["scores"]["length"] <= 20 and row["kind"] != "a",
        'column["a b"] in (3, 5)': lambda row: row["a b"] in (3, 5),
        "sample == 1 or 2 <= completion_tokens < 60": lambda row: (
            row["sample"] == 1 or 2 <= row["completion_tokens"] < 60
        ),
        "matches(id, '[12]$') and tool_calls == 0": lambda row: row["id"][-1] in "12",
        "kind is not null and 'nine' in answer": lambda row: "nine" in row["messages"][-1]["content"],
    }.items():
        wanted = [row for row in everything if holds(row)]
        assert 0 < len(wanted) < 24, where
        assert exported(batchchat, sampled, "some.jsonl", "--where", where) == wanted, where


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("lenght > 3", "did you mean length?"),
        ("length >", "cannot be read"),
        ("__import__('os').system('true')", "is not understood"),
        ("(lambda: 1)()", "is not understood"),
        ("[x for x in id]", "is not understood"),
        ("length ** 9 > 1", "is not understood"),
        ("matches(id, '[')", "regular expression"),
        ("(" * 3000 + "1", "cannot be read"),
    ],
)
def test_what_is_no_condition_is_refused(sampled: Path, batchchat: Command, where: str, said: str) -> None:
    ended = batchchat("export", sampled, "--output", sampled / "x.jsonl", "--where", where)
    assert ended.code == 2
    assert said in ended.err
    assert not (sampled / "x.jsonl").exists()


def test_columns_are_chosen_and_renamed(sampled: Path, batchchat: Command) -> None:
    rows = exported(batchchat, sampled, "named.jsonl", "--columns", "who=id, n=a b, messages")
    assert list(rows[0]) == ["who", "n", "messages"]
    assert rows[-1]["who"] == "c/8"
    assert batchchat("export", sampled, "-o", sampled / "x.jsonl", "--columns", "nothing").code == 2


def test_the_best_sample_and_preferences_go_by_a_metric(sampled: Path, batchchat: Command) -> None:
    everything = exported(batchchat, sampled, "all.jsonl")
    best = exported(batchchat, sampled, "best.jsonl", "--samples", "best", "--by", "length")
    pairs = exported(batchchat, sampled, "pairs.jsonl", "--form", "preference")
    assert len(best) == len(pairs) == 8
    for row, pair in zip(best, pairs, strict=True):
        scores = [one["scores"]["length"] for one in everything if one["id"] == row["id"]]
        assert row["scores"]["length"] == max(scores) == pair["score_chosen"]
        assert min(scores) == pair["score_rejected"]
        assert pair["prompt"] + pair["chosen"] == row["messages"]
        assert pair["chosen"][0] != pair["rejected"][0]
    ended = batchchat("export", sampled, "-o", sampled / "x.jsonl", "--form", "preference", "--by", "bleu")
    assert ended.code == 2
    assert "it has length" in ended.err


def test_trainers_get_conversations(sampled: Path, batchchat: Command) -> None:
    whole = exported(batchchat, sampled, "m.jsonl", "--form", "messages")
    assert all(set(row) <= {"messages", "tools"} for row in whole)
    parts = exported(batchchat, sampled, "p.jsonl", "--form", "prompt-completion")
    assert [part["prompt"] + part["completion"] for part in parts] == [row["messages"] for row in whole]


def test_every_format_holds_the_same(sampled: Path, batchchat: Command) -> None:
    import datasets
    import pyarrow.parquet as pq

    rows = exported(batchchat, sampled, "all.jsonl")
    for name in ("all.parquet", "all", "all.csv"):
        ended = batchchat("export", sampled, "--output", sampled.parent / name)
        assert ended.code == 0, ended.err
    ids = [row["id"] for row in rows]
    table = pq.read_table(sampled.parent / "all.parquet")
    assert table.column("id").to_pylist() == ids
    assert [json.loads(json.dumps(one)) for one in table.column("messages").to_pylist()] == [
        row["messages"] for row in rows
    ]
    assert datasets.load_from_disk(str(sampled.parent / "all"))["messages"][0] == rows[0]["messages"]
    with open(sampled.parent / "all.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == ids
    assert lines[0]["state"] == "answered"
    assert lines[0]["column.state"] == "s0"
    assert [float(line["score.length"]) for line in lines] == [row["scores"]["length"] for row in rows]


def test_shards_hold_all_rows_in_order(sampled: Path, batchchat: Command) -> None:
    ended = batchchat("export", sampled, "--output", sampled / "part.jsonl", "--shard-rows", "10")
    files = [Path(line) for line in ended.out.split()]
    assert [file.name for file in files] == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert [len(read_jsonl(file)) for file in files] == [10, 10, 4]
    assert [row for file in files for row in read_jsonl(file)] == exported(batchchat, sampled, "all.jsonl")


def test_an_interrupted_run_gives_what_is_done(tmp_path: Path, batchchat: Command) -> None:
    recipe = load_recipe(scripted_recipe(tmp_path / "r.yaml", "in.jsonl"))
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.recipe.write_text(recipe.dump_yaml(), encoding="utf-8")
    store = RunStore(directory.database)
    for n in range(4):
        row = {"id": f"c{n}", "messages": [{"role": "user", "content": f"ask {n}"}]}
        store.add_row(StoredRow(n, n, Place("in.jsonl", n + 1), f"c{n}", "messages", json.dumps(row), 1))
    said = {"message": {"role": "assistant", "content": "told"}, "seed": 1, "raw": "told", "token_ids": [1]}
    store.add_turn(TurnRecord(2, 0, 0, 3, 1, "stop", 0.0, 0.0, 1.0, said))
    store.fail_row(3, "it failed")
    store.commit()  # and is still open: another process works on the run
    ended = batchchat("export", directory.path)
    assert ended.code == 0, ended.err
    assert [row["id"] for row in read_jsonl(directory.path / "export.jsonl")] == ["c2"]
    assert "1 rows; left out: 2 not answered yet, 1 failed samples" in ended.err
    assert "the run is not finished; go on with: batchchat run" in ended.err
    store.close()


def test_reading_a_run_changes_nothing_of_it(sampled: Path) -> None:
    before = {path.name: path.read_bytes() for path in sampled.iterdir() if path.is_file()}
    with open_results(sampled) as results:
        assert len(list(Export(results).rows())) == 24
    after = {path.name: path.read_bytes() for path in sampled.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before
