"""Numbers of replicas compared, and the simulation of very many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.scaling import simulate
from tests.support.jobs import Command, scripted_recipe, write_jsonl


def test_a_recipe_is_run_with_numbers_of_replicas(tmp_path: Path, batchchat: Command) -> None:
    rows = write_jsonl(tmp_path / "in.jsonl", [{"prompt": f"row {n}"} for n in range(20)])
    recipe = scripted_recipe(tmp_path / "r.yaml", rows, engine={"replicas": 1})
    found = batchchat("bench", recipe, "--replicas", "2", "--json")
    assert found.code == 0, found.err
    one, two = json.loads(found.out)
    assert one["report"]["engine"].get("replicas") is None
    assert len(two["report"]["engine"]["replicas"]) == 2
    wrong = batchchat("bench", recipe, "--replicas", "1,many")
    assert wrong.code == 2
    assert "has to be numbers such as 1,2" in wrong.err


@pytest.mark.parametrize("replicas", [1, 5])
def test_simulated_rows_are_busy_until_the_tail(replicas: int) -> None:
    found = simulate(replicas, rows=8, step=0.01, driver=0.0001, per_row=30)
    assert found.answers == replicas * 8 * 30
    assert found.busy > 0.8
    assert found.driver < 0.5


def test_a_simulated_driver_that_is_too_slow_is_what_limits() -> None:
    found = simulate(20, rows=8, step=0.01, driver=0.05, per_row=10)
    assert found.driver > 0.95
    assert found.per_second == pytest.approx(1 / 0.05, rel=0.1)
    assert found.busy < 0.5
