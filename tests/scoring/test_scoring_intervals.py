"""Intervals at few rows: what they cover, and what a gate on "not worse than" lets through."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.scoring import statistics as stats
from batchchat.scoring.comparison import compare_all, compare_metric, correct_together
from batchchat.scoring.gates import evaluate_gates, parse_gate, rows_for_margin
from tests.support.interval_coverage import KINDS, RIGHT, SIZES, coverage, pass_rate

optimize = pytest.importorskip("scipy.optimize")


@pytest.mark.parametrize(("n", "right", "margin"), [*itertools.product(SIZES, RIGHT, (0.02, 0.1, 0.3))])
def test_a_run_that_is_worse_passes_in_under_5_percent(n: int, right: float, margin: float) -> None:
    assert pass_rate(n, right, margin) < 0.05


LEAST = dict.fromkeys((kind.name for kind in KINDS if "share of right" in kind.name or "kappa" in kind.name), 0.9)
"""Counts of few rows jump: no interval of a share is nearer to 95 % at every share."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_intervals_cover_what_they_promise(kind: object) -> None:
    for n in (10, 20, 50):
        found = coverage(kind, n, 300)  # type: ignore[arg-type]
        assert found is not None
        assert found > LEAST.get(kind.name, 0.92) - 0.02, n  # type: ignore[attr-defined]


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 2), (3, 1, 10), (0, 5, 20), (9, 9, 44), (1, 12, 44)])
def test_tangos_interval_is_where_the_score_test_turns(gained: int, lost: int, n: int) -> None:
    found = stats.tango(gained, lost, n)
    for bound in (found.low, found.high):
        assert bound is not None

        def loglikelihood(loss: float, gap: float = bound) -> float:
            chances = (loss + gap, loss, 1 - 2 * loss - gap)
            counts = (gained, lost, n - gained - lost)
            return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, chances, strict=True) if k)

        low, high = max(0.0, -bound), (1 - bound) / 2
        loss = optimize.minimize_scalar(loglikelihood, bounds=(low, high), options={"xatol": 1e-12}, method="bounded").x
        variance = n * (2 * loss + bound - bound**2)
        assert abs(gained - lost - n * bound) / math.sqrt(variance) == pytest.approx(1.959964, abs=2e-3)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_tango_holds_its_estimate_and_has_width(case: tuple[int, int, int]) -> None:
    n, gained, lost = case
    lost = min(lost, n - gained)
    found, other = stats.tango(gained, lost, n), stats.tango(lost, gained, n)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.5 / (n + 4)
    assert (found.low, found.high) == pytest.approx((-other.high, -other.low), abs=1e-9)  # type: ignore[operator]


def test_clusters_count_for_as_many_rows_as_they_say() -> None:
    same = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], 10)
    chats = np.repeat(np.arange(8), 10)
    whole, single = stats.clustered_wilson(same, chats), stats.wilson(6, 8)
    assert whole.low is not None
    assert single.low is not None
    assert whole.low < single.low  # no more than eight rows, and Student's t besides
    assert stats.clustered_wilson(np.ones(80), chats).low == pytest.approx(1 / (1 + 2.364624**2 / 8), abs=1e-4)
    assert stats.clustered_tango(np.zeros(80), chats).low < -0.3  # type: ignore[operator]


@pytest.mark.parametrize("chats", [2, 5, 20])
def test_no_interval_of_few_rows_is_without_width(chats: int) -> None:
    labels = np.repeat(np.arange(chats), 2)
    for values in (np.zeros(2 * chats), np.ones(2 * chats), np.full(2 * chats, 0.5), np.full(2 * chats, 7.0)):
        for found in (
            stats.score_interval(values, labels),
            stats.score_interval(values, np.arange(2 * chats)),
            stats.paired_interval(values, values, labels),
            stats.paired_interval(values, values, np.arange(2 * chats)),
        ):
            assert found.low is None or found.high - found.low > 0.05  # type: ignore[operator]
    assert stats.win_rate(np.ones(chats)).low < 1  # type: ignore[operator]


def run(values: list[float], per_chat: int = 1) -> dict[tuple[str, int, int], float]:
    return {(f"c{place // per_chat}", 0, place % per_chat): value for place, value in enumerate(values)}


@pytest.mark.parametrize(
    ("ours", "theirs", "margin", "says"),
    [
        ([1.0, 0.0], [1.0, 0.0], "0.02", "2 chats are too few to tell; scores of 0 and 1 take 189"),
        ([0.5, 0.25], [0.5, 0.25], "0.02", "undecided"),
        ([1.0] * 188, [1.0] * 188, "0.02", "take 189"),
        ([1.0] * 189, [1.0] * 189, "0.02", "not worse by more than 0.02"),
        ([0.0] * 50, [1.0] * 50, "0.02", "worse by more than 0.02"),
        ([1.0] * 300 + [0.0] * 5, [1.0] * 305, "0.02", "leave open whether"),
        ([1.0] * 9, [1.0] * 9, "0", "no number of answers shows a margin of 0"),
        ([7.0], [7.0], "1", "no interval"),
    ],
)
def test_a_gate_that_cannot_know_says_so(ours: list[float], theirs: list[float], margin: str, says: str) -> None:
    gate = parse_gate(f"m.mean not worse than RUN by {margin}")
    difference = compare_metric("m", run(ours), run(theirs)).difference
    (result,) = evaluate_gates([gate], {"m.mean": 0.5}, lambda *_: difference)
    assert says in result.reason
    assert result.passed is (says == "not worse by more than 0.02")


def test_turns_of_a_chat_do_not_make_a_gate_pass() -> None:
    gate = parse_gate("m.mean not worse than RUN by 0.1")
    for per_chat, passed in ((1, True), (20, False)):
        difference = compare_metric("m", run([1.0] * 60, per_chat), run([1.0] * 60, per_chat)).difference
        (result,) = evaluate_gates([gate], {"m.mean": 1.0}, lambda *_, found=difference: found)  # type: ignore[misc]
        assert result.passed is passed


def test_the_rows_that_a_margin_takes_are_the_fewest_that_pass() -> None:
    for margin in (0.01, 0.02, 0.05, 0.1, 0.3):
        rows = rows_for_margin(margin)
        assert stats.tango(0, 0, rows).low >= -margin > stats.tango(0, 0, rows - 1).low  # type: ignore[operator]


def test_holm_corrects_over_every_pair_and_metric() -> None:
    base = {name: run([1.0] * 30) for name in ("a", "b")}
    worse = {name: run([0.0] * 6 + [1.0] * 24) for name in ("a", "b")}
    alone = compare_all(worse, base)
    raw = alone[0].test.p_value
    assert [one.adjusted_p for one in alone] == pytest.approx([2 * raw] * 2)
    together = correct_together({"x": alone, "y": alone, "z": alone})
    assert [one.adjusted_p for found in together.values() for one in found] == pytest.approx([6 * raw] * 6)


def test_kappa_has_an_interval_within_its_bounds_and_none_from_few_items() -> None:
    agreed = ["a", "b"] * 10
    found = stats.cohen_kappa(agreed, agreed)
    assert found.value == found.high == 1.0
    assert found.low is not None
    assert 0 < found.low < 1
    nearly = stats.cohen_kappa(agreed, [*agreed[:-1], "a"])
    assert nearly.high is not None
    assert nearly.high <= 1
    assert stats.cohen_kappa(["a", "b", "a"], ["a", "b", "b"]).low is None
    assert stats.correlation([1, 2, 3, 4], [2, 4, 6, 8]).low is None


def test_a_length_controlled_win_rate_has_a_term_per_question_where_it_is_given() -> None:
    random = np.random.default_rng(8)
    hard = random.normal(0, 2, 4_000)
    gaps = -300 - 200 * hard + random.normal(0, 200, 4_000)  # the hard ones are answered at length
    level = -1.5 + hard
    won = (random.random(4_000) < 1 / (1 + np.exp(-(level + 2 * np.tanh(gaps / gaps.std()))))).astype(float)
    truth = float((1 / (1 + np.exp(-level))).mean())
    told = stats.length_controlled_win_rate(won, gaps, hard)
    assert told.value == pytest.approx(truth, abs=0.03)
    assert told.low is not None
    assert told.high is not None
    assert told.low < truth < told.high
    assert "term per question given" in told.method
    untold = stats.length_controlled_win_rate(won, gaps)
    assert abs(untold.value - truth) > abs(told.value - truth)
    assert "not AlpacaEval's figure" in untold.method
    with pytest.raises(ValueError, match="difficulties"):
        stats.length_controlled_win_rate(won, gaps, hard[1:])
