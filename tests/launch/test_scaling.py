"""Replicas come and go with the work that is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.launch.scaling import Scaling
from batchchat.recipe import load_recipe
from batchchat.recipe.mistakes import RecipeError
from batchchat.schedule import Feed
from tests.support.jobs import Command, outputs, report_of
from tests.support.replicas import MISBEHAVING, engine_of, few, job, until_all_take_part

ROWS = 4


@given(least=st.integers(1, 4), looks=st.lists(st.tuples(st.integers(0, 40), st.floats(0, 5)), max_size=30))
def test_what_is_held_stays_within_bounds_and_follows_the_work(least: int, looks: list[tuple[int, float]]) -> None:
    scaling, held, now, most = Scaling(least, patience=8.0), least, 0.0, 6
    for work, seconds in [*looks, *[(17, 4.0)] * 4]:
        now += seconds
        before, needed = held, max(least, min(most, -(-work // ROWS)))
        held += scaling.change(held, most, work, ROWS, now)
        assert held >= needed, "more are asked for at once"
        assert held in (before, needed)
    assert held == 5


def test_a_moment_without_work_ends_no_replica() -> None:
    scaling = Scaling(1, patience=10.0)
    assert scaling.change(4, 8, 3, ROWS, 0.0) == 0
    assert scaling.change(4, 8, 16, ROWS, 9.0) == 0
    assert scaling.change(4, 8, 3, ROWS, 11.0) == 0, "too little again, for a moment"
    assert scaling.change(4, 8, 3, ROWS, 21.0) == -3


def test_replicas_come_with_the_work_and_go_without_it(tmp_path: Path) -> None:
    recipe = job(tmp_path, engine={"replicas": 3}, scripted={"function": f"{MISBEHAVING}:lingers"})
    engine = engine_of(recipe, scaling=Scaling(1, patience=0.2))
    try:
        assert engine.standing().count("let go") == 2, "one is started, the others wait for work"
        done = 0
        for _ in range(2):
            done += len(list(engine.run(Feed(until_all_take_part(engine), 64))))
            done += len(list(engine.run(Feed(few(), 9))))
            assert engine.standing().count("let go") == 2
        facts = engine.describe()
    finally:
        engine.close()
    assert sum(replica.answered for replica in facts.replicas) == done
    assert [(replica.restarts, replica.lost, replica.given_up) for replica in facts.replicas] == [(0, 0, None)] * 3


def test_a_recipe_with_bounds(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path)
    assert batchchat("run", recipe, "name=one", "-q").code == 0
    assert batchchat("run", recipe, "name=some", "engine.replicas=2", "engine.min_replicas=1", "-q").code == 0
    assert outputs(recipe, "some") == outputs(recipe, "one")
    (more,) = report_of(recipe, "some")["events"]["first"]
    assert (more["event"], more["detail"].split(",")[0]) == ("scaled", "2 replicas instead of 1")
    with pytest.raises(RecipeError, match="has min_replicas 3, but replicas, which is the most, is 2"):
        load_recipe(recipe, ["engine.replicas=2", "engine.min_replicas=3"])
