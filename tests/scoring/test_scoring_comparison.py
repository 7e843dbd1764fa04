"""Comparing two runs: pairing, the test that fits, Holm over metrics, and what could have been seen."""

from __future__ import annotations

import pytest

from batchchat.scoring.comparison import Key, compare_all, compare_metric
from batchchat.scoring.statistics import mcnemar


def run(values: list[float], turns: int = 1) -> dict[Key, float]:
    return {(f"chat-{i // turns}", 0, i % turns): value for i, value in enumerate(values)}


RIGHT = [float(i % 3 != 0) for i in range(90)]
SPOILED = [0.0 if i % 10 == 1 else value for i, value in enumerate(RIGHT)]


def test_a_run_against_itself_does_not_differ() -> None:
    found = compare_metric("exact", run(RIGHT), run(RIGHT))
    # That no row of 90 changed says that few would: 3.84 / (90 + 3.84) at most.
    bound = 1.959964**2 / (90 + 1.959964**2)
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx((0.0, -bound, bound))
    assert found.test.p_value == 1.0
    assert found.changed == ()


def test_a_spoiled_copy_is_found_out_with_the_chats_that_changed() -> None:
    found = compare_metric("exact", run(SPOILED), run(RIGHT))
    lost = [key for key in run(RIGHT) if run(SPOILED)[key] < run(RIGHT)[key]]
    assert list(found.changed) == lost
    assert found.test == mcnemar(0, len(lost), 90)
    assert found.difference.value == pytest.approx(-len(lost) / 90)
    assert found.difference.high is not None
    assert found.difference.high < 0
    assert found.detectable is not None
    assert 0 < found.detectable < 0.2


def test_turns_of_one_chat_are_exchanged_together() -> None:
    found = compare_metric("judge", run([8.0, 8.0, 7.0, 7.0, 6.0, 6.0], turns=2), run([5.0] * 6, turns=2))
    assert found.test.p_value == pytest.approx(2 / 8)
    assert (found.difference.n, found.difference.clusters) == (6, 3)
    assert found.changed[:2] == (("chat-0", 0, 0), ("chat-0", 0, 1))


def test_only_what_both_runs_scored_is_compared_and_the_rest_is_named() -> None:
    ours, theirs = run([1.0, 0.0, 1.0]), run([1.0, 1.0])
    theirs["other", 0, 0] = 1.0
    found = compare_metric("exact", ours, theirs)
    assert found.difference.n == 2
    assert (found.only_ours, found.only_theirs) == ((("chat-2", 0, 0),), (("other", 0, 0),))
    with pytest.raises(ValueError, match="share no scored answer"):
        compare_metric("exact", ours, {("z", 0, 0): 1.0})


def test_p_values_of_several_metrics_are_corrected_together() -> None:
    ours = {"exact": run(SPOILED), "f1": run([value / 2 for value in RIGHT]), "mine": run(RIGHT)}
    theirs = {"f1": run(RIGHT), "exact": run(RIGHT)}
    found = compare_all(ours, theirs)
    assert [comparison.metric for comparison in found] == ["exact", "f1"]
    smaller = min(found, key=lambda comparison: comparison.test.p_value)
    assert smaller.adjusted_p == pytest.approx(2 * smaller.test.p_value)
    assert all(comparison.adjusted_p >= comparison.test.p_value for comparison in found)
