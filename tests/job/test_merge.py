"""Shards of one job, merged: what one run would have left."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import Command, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl


def job(folder: Path, **sections: Any) -> Path:
    """Two files of several formats, broken rows, and an id that comes twice."""
    turns = [{"id": n, "turns": ["one", "two"][: 1 + n % 2]} for n in range(11)]
    prompts = [{"prompt": f"What is {n}?", "answer": str(n)} for n in range(10)]
    again = [{"id": 3, "turns": ["again"]}, turns[3]]
    write_jsonl(folder / "a.jsonl", [*turns[:5], "{broken", *turns[5:], *again])
    write_jsonl(folder / "b.jsonl", prompts)
    return scripted_recipe(
        folder / "r.yaml",
        folder / "*.jsonl",
        generation={"samples": 2, "temperature": 1.0},
        engine={"scripted": {"answer": "counting", "fail_every": 9}},
        max_error_rate=1.0,
        **sections,
    )


def shards(batchchat: Command, recipe: Path, count: int, *overrides: str) -> list[Path]:
    for number in range(count):
        assert batchchat("run", recipe, "-q", f"source.shard={number}/{count}", *overrides).code == 0
    return [recipe.parent / f"runs/test/shard-{number}-of-{count}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 4])
def test_the_outputs_are_those_of_one_run(tmp_path: Path, batchchat: Command, count: int) -> None:
    recipe = job(tmp_path, sink={"formats": ["jsonl", "parquet"]}, scoring=["length"], gates=["length.mean >= 0"])
    assert batchchat("run", recipe, "-q", "name=whole").code == 0
    found = shards(batchchat, recipe, count)
    assert not (found[0] / "scores.jsonl").exists()
    merged = batchchat("merge", *reversed(found), "--output", tmp_path / "runs/merged")
    assert (merged.code, merged.err) == (0, "")
    for name in ("outputs.jsonl", "outputs.parquet", "errors.jsonl", "scores.jsonl"):
        assert (tmp_path / "runs/merged" / name).read_bytes() == (tmp_path / "runs/whole" / name).read_bytes(), name
    whole, one = report_of(recipe, "whole"), report_of(recipe, "merged")
    for part in ("rows", "samples", "turns", "tokens", "finish_reasons", "scoring", "gates"):
        assert one[part] == whole[part], part
    assert [shard["shard"] for shard in one["shards"]] == [f"{number}/{count}" for number in range(count)]
    assert sum(shard["rows"]["in"] for shard in one["shards"]) == whole["rows"]["in"] == 24
    again = batchchat("run", tmp_path / "runs/merged/recipe.yaml")
    assert again.code == 0
    assert "was finished before" in again.err, "the merged run is one as any other"


def test_rows_drawn_by_seed_are_shared_out_too(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path)
    drawn = ("source.shuffle=true", "source.sample=15", "source.limit=13")
    assert batchchat("run", recipe, "-q", "name=whole", *drawn).code == 0
    found = shards(batchchat, recipe, 3, *drawn)
    assert batchchat("merge", *found, "--output", tmp_path / "runs/merged", "--json").code == 0
    assert outputs(recipe, "merged") == outputs(recipe, "whole")


def test_more_shards_than_rows(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows))
    assert batchchat("run", recipe, "-q", "name=whole").code == 0
    found = shards(batchchat, recipe, 4)
    assert batchchat("merge", *found, "--output", tmp_path / "runs/merged").code == 0
    assert outputs(recipe, "merged") == outputs(recipe, "whole")


def test_a_row_whose_id_was_anothers_by_chance_gets_the_name_that_one_run_gives_it(
    tmp_path: Path, batchchat: Command
) -> None:
    """Two files count their questions from 0, as columns do that hold no ids."""
    for name in ("a", "b"):
        rows = [{"question_id": n, "turns": [f"{name} {n}"]} for n in range(5)]
        write_jsonl(tmp_path / f"{name}.jsonl", [*rows, {"id": "row-3", "turns": ["mine"]}][: 5 + (name == "b")])
    recipe = scripted_recipe(tmp_path / "r.yaml", tmp_path / "*.jsonl")
    assert batchchat("run", recipe, "-q", "name=whole").code == 0
    found = shards(batchchat, recipe, 2)
    assert batchchat("merge", *found, "--output", tmp_path / "runs/merged").code == 0
    whole, merged = (read_jsonl(tmp_path / f"runs/{name}/outputs.jsonl") for name in ("whole", "merged"))
    ids = [row["batchchat"]["id"] for row in merged]
    assert ids == [row["batchchat"]["id"] for row in whole]
    assert len(set(ids)) == 11


def test_what_is_no_whole_is_refused_with_its_name(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path)
    found = shards(batchchat, recipe, 3)
    output = tmp_path / "merged"

    def refused(*runs: Path) -> str:
        ended = batchchat("merge", *runs, "--output", output)
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert not output.exists()
        return ended.err

    assert "shards are missing: 1/3; name the folders of all 3" in refused(found[0], found[2])
    twice = refused(*found, found[1])
    assert f"{found[1]} and {found[1]} are both shard 1/3" in twice
    assert "no run directory" in refused(*found, tmp_path / "nothing")
    assert batchchat("run", recipe, "-q", "name=whole").code == 0
    assert "is no shard" in refused(*found, tmp_path / "runs/whole")
    assert batchchat("run", recipe, "-q", "source.shard=1/3", "name=other", "generation.seed=1").code == 0
    other = refused(found[0], tmp_path / "runs/other/shard-1-of-3", found[2])
    assert "generation.seed: 0 -> 1" in other
    assert str(found[0]) in other
    with closing(sqlite3.connect(found[1] / "run.sqlite")) as store, store:
        store.execute("DELETE FROM meta WHERE key = 'report'")
    assert f"the shard in {found[1]} is not finished; finish it with: batchchat run" in refused(*found)


@pytest.mark.parametrize(
    ("shard", "sentence"),
    [
        ("5/4", "is 5/4, but shards are counted from 0; write one of 0/4 to 3/4"),
        ("0/0", "0/1 for the whole"),
        ("slurm", "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT are not set"),
        ("one", "source.shard"),
    ],
)
def test_a_shard_that_is_none_is_refused(tmp_path: Path, batchchat: Command, shard: str, sentence: str) -> None:
    found = batchchat("run", job(tmp_path), f"source.shard={shard}")
    assert found.code == 2
    assert sentence in found.err
    assert not (tmp_path / "runs").exists()


def test_a_task_of_an_array_job_knows_its_shard(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sbatch --array=10-14:2`: three tasks, this is the second."""
    named = {"ID": "12", "COUNT": "3", "MIN": "10", "MAX": "14", "STEP": "2"}
    for name, value in named.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert batchchat("run", job(tmp_path), "-q", "source.shard=slurm").code == 0
    rows = read_jsonl(tmp_path / "runs/test/shard-1-of-3/outputs.jsonl")
    assert {row["batchchat"]["index"] % 3 for row in rows} == {1}
