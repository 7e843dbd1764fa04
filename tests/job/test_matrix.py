"""A matrix: every combination is a run, and one table compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.errors import UsageError
from batchchat.job.run import run
from batchchat.recipe import load_recipe
from tests.support.jobs import Command, scripted_recipe, write_jsonl


def recipe(folder: Path, matrix: dict[str, Any], **sections: Any) -> Path:
    rows = [{"id": f"c{n}", "messages": [{"role": "user", "content": "word " * n}]} for n in range(1, 9)]
    source = write_jsonl(folder / "in.jsonl", rows)
    scoring = [{"length": {"unit": "words"}}]
    return scripted_recipe(folder / "r.yaml", source, matrix=matrix, scoring=scoring, **sections)


MATRIX = {
    "engine.scripted.answer": ["echo", "counting"],
    "chat.system": {"plain": None, "be brief": "Be brief."},
    "generation.samples": [1, 2],
}


def test_every_combination_is_a_named_run_in_one_table(tmp_path: Path, batchchat: Command) -> None:
    path = recipe(tmp_path, MATRIX)
    ended = batchchat("run", path, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    names = [one["name"] for one in found["runs"]]
    assert names[:3] == ["test-echo-plain-1", "test-echo-plain-2", "test-echo-be-brief-1"]
    assert len(names) == 8 == len(set(names))
    for one in found["runs"]:
        resolved = load_recipe(tmp_path / "runs" / one["name"] / "recipe.yaml")
        assert resolved.engine.options.answer == one["settings"]["engine.scripted.answer"]
        assert resolved.chat.system == MATRIX["chat.system"][one["settings"]["chat.system"]]
        assert not resolved.matrix
    assert [row["run"] for row in found["table"]] == names
    echo, counting = found["runs"][0]["metrics"]["length"]["mean"], found["runs"][4]["metrics"]["length"]["mean"]
    (difference,) = (one["difference"]["value"] for one in found["comparison"]["against_first"][names[4]])
    assert difference == pytest.approx(counting - echo)
    assert echo == 4.5, "words of 1 to 8"
    table = (tmp_path / "runs/test-matrix.md").read_text(encoding="utf-8")
    assert table.count("\n") == 2 + 8
    assert table.count("Δ") == 7
    again = batchchat("run", path)
    assert again.err.count("was finished before") == 8
    assert "test-counting-be-brief-2" in again.out


@pytest.mark.parametrize(
    ("matrix", "sections", "said"),
    [
        ({"generation.seed": list(range(100)), "generation.top_k": list(range(100))}, {}, "makes 10,000 runs"),
        ({"generation.temperature": [0, -1]}, {}, "the matrix with generation.temperature=-1 is no recipe"),
        ({"generation.temprature": [0]}, {}, "did you mean generation.temperature?"),
        ({"generation.temperature": []}, {}, "matrix"),
        ({"generation.temperature": 0.5}, {}, "matrix"),
        ({"generation.seed": [1, 2]}, {"sink": {"directory": "runs/one"}}, "has no {name}"),
    ],
)
def test_what_is_no_matrix_is_refused_before_the_first_run(
    tmp_path: Path, batchchat: Command, matrix: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    ended = batchchat("run", recipe(tmp_path, matrix, **sections))
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "runs").exists()


def test_the_limit_can_be_raised_and_one_run_is_no_matrix(tmp_path: Path, batchchat: Command) -> None:
    path = recipe(tmp_path, {"generation.seed": [1, 2, 3]})
    ended = batchchat("run", path, "--max-runs", "2")
    assert ended.code == 2
    assert "--max-runs 3" in ended.err
    assert batchchat("run", path, "--max-runs", "3").code == 0
    with pytest.raises(UsageError, match="is 3 runs"):
        run(load_recipe(path))
