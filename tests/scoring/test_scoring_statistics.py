"""Statistics against independent computations: scipy, statsmodels, and exact enumeration on small cases."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.scoring import statistics as ours

scipy_stats = pytest.importorskip("scipy.stats")
statsmodels = pytest.importorskip("statsmodels.api")
proportions = pytest.importorskip("statsmodels.stats.proportion")
inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
multitest = pytest.importorskip("statsmodels.stats.multitest")
sm_power = pytest.importorskip("statsmodels.stats.power")

RANDOM = np.random.default_rng(7)
SCORES = RANDOM.gamma(2.0, size=60)
CLUSTERS = RANDOM.integers(0, 15, size=60)


def test_mean_and_its_standard_error_agree_with_scipy() -> None:
    found = ours.mean(SCORES)
    assert found.standard_error == pytest.approx(scipy_stats.sem(SCORES))
    low, high = scipy_stats.ttest_1samp(SCORES, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((SCORES.mean(), low, high))
    assert found.n == 60


def test_clustered_standard_error_agrees_with_statsmodels() -> None:
    fit = statsmodels.OLS(SCORES, np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": CLUSTERS, "use_correction": True, "df_correction": True}, use_t=True
    )
    found = ours.clustered_mean(SCORES, CLUSTERS)
    assert found.standard_error == pytest.approx(float(fit.bse[0]))
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert found.clusters == len(set(CLUSTERS.tolist()))


def test_clusters_of_one_are_the_plain_mean() -> None:
    assert ours.clustered_mean(SCORES, np.arange(60)).standard_error == pytest.approx(ours.mean(SCORES).standard_error)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_statsmodels_and_stays_within_zero_and_one(case: tuple[int, int]) -> None:
    successes, n = case
    found = ours.wilson(successes, n)
    low, high = proportions.proportion_confint(successes, n, method="wilson")
    assert found.low == pytest.approx(low, abs=1e-12)
    assert found.high == pytest.approx(high, abs=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("scores", [SCORES, (SCORES > 1.5).astype(float), np.round(SCORES)], ids=["many", "0/1", "few"])
def test_bca_agrees_with_scipy(scores: Sequence[float]) -> None:
    found = ours.bootstrap_mean(scores, resamples=20_000)
    scipys = scipy_stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    width = scipys.confidence_interval.high - scipys.confidence_interval.low
    # Means of 60 scores of 0 and 1 lie on a grid, and a bound may fall on either side of a step.
    near = max(0.06 * width, 1.01 / 60 if set(scores) == {0.0, 1.0} else 0.0)
    assert found.low == pytest.approx(scipys.confidence_interval.low, abs=near)
    assert found.high == pytest.approx(scipys.confidence_interval.high, abs=near)
    assert found.standard_error == pytest.approx(scipys.standard_error, rel=0.05)


def test_both_ways_to_draw_resamples_agree() -> None:
    few = np.repeat([0.0, 1.0, 4.0], [40, 30, 10])
    jittered = few + np.linspace(0, 1e-9, few.size)  # equal but for a hair, so that the units are drawn one by one
    one, other = ours.bootstrap_mean(few, resamples=20_000), ours.bootstrap_mean(jittered, resamples=20_000)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.03)


def test_bootstrap_of_clusters_draws_whole_chats() -> None:
    # Ten chats of ten equal scores hold ten observations, not a hundred.
    chats = np.repeat(np.arange(10), 10)
    values = np.repeat(RANDOM.random(10), 10)
    whole, single = ours.bootstrap_mean(values, chats), ours.bootstrap_mean(values[::10])
    assert whole.standard_error == pytest.approx(single.standard_error, rel=0.05)
    naive = ours.bootstrap_mean(values)
    assert whole.standard_error is not None
    assert naive.standard_error is not None
    assert whole.standard_error > 2.5 * naive.standard_error


def test_bootstrap_of_a_hundred_thousand_scores_takes_under_ten_seconds() -> None:
    values = RANDOM.random(100_000)
    began = time.process_time()
    found = ours.bootstrap_mean(values)
    assert time.process_time() - began < 10
    assert found.standard_error == pytest.approx(values.std() / math.sqrt(100_000), rel=0.06)
    assert "resamples" in found.method


def test_a_bootstrap_is_the_same_twice_and_has_no_width_where_all_scores_are_equal() -> None:
    assert ours.bootstrap_mean(SCORES) == ours.bootstrap_mean(SCORES)
    flat = ours.bootstrap_mean([1.0, 1.0, 1.0])
    assert (flat.low, flat.high) == (1.0, 1.0)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (8, 3), (20, 20), (5, 30), (60, 90)])
def test_mcnemar_agrees_with_statsmodels_and_with_enumeration(gained: int, lost: int) -> None:
    table = [[10, gained], [lost, 10]]
    n = 20 + gained + lost
    exact = contingency.mcnemar(table, exact=True).pvalue
    assert ours.mcnemar(gained, lost, n, "exact").p_value == pytest.approx(exact)
    chi2 = contingency.mcnemar(table, exact=False, correction=False).pvalue
    assert ours.mcnemar(gained, lost, n, "chi-squared").p_value == pytest.approx(chi2)
    # mid-p by enumeration: the outcomes more extreme than this one, and half of those as extreme.
    changed = gained + lost
    chance = [math.comb(changed, k) / 2**changed for k in range(changed + 1)]
    gap = abs(gained - lost)
    more = sum(p for k, p in enumerate(chance) if abs(2 * k - changed) > gap)
    same = sum(p for k, p in enumerate(chance) if abs(2 * k - changed) == gap)
    assert ours.mcnemar(gained, lost, n).p_value == pytest.approx(more + same / 2)
    assert "mid-p" in ours.mcnemar(gained, lost, n).method


def test_mcnemar_without_changes_says_so() -> None:
    assert ours.mcnemar(0, 0, 5).p_value == 1.0
    with pytest.raises(ValueError, match="do not fit"):
        ours.mcnemar(4, 4, 5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_paired_permutation_is_exact_on_small_cases(pairs: list[tuple[int, int]]) -> None:
    gaps = [left - right for left, right in pairs]
    totals = [
        abs(sum(s * g for s, g in zip(signs, gaps, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(gaps))
    ]
    expected = sum(total >= abs(sum(gaps)) for total in totals) / len(totals)
    found = ours.paired_permutation([left for left, _ in pairs], [right for _, right in pairs])
    assert found.p_value == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [1, 9], ids=["few kinds", "many kinds"])
def test_paired_permutation_of_many_rows_agrees_with_scipy(decimals: int) -> None:
    random = np.random.default_rng(3)
    left, right = np.round(random.random(200), decimals), np.round(random.random(200) + 0.05, decimals)
    found = ours.paired_permutation(left, right)
    scipys = scipy_stats.permutation_test(
        (left - right,), np.mean, permutation_type="samples", n_resamples=9_999, rng=np.random.default_rng(4)
    )
    assert found.p_value == pytest.approx(scipys.pvalue, abs=0.02)


def test_paired_permutation_exchanges_whole_clusters() -> None:
    left, right = np.repeat([1.0, 1.0, 1.0], 20), np.zeros(60)
    chats = np.repeat([0, 1, 2], 20)
    assert ours.paired_permutation(left, right, chats).p_value == pytest.approx(2 / 8)
    assert ours.paired_permutation(left, right).p_value < 0.001


def test_paired_bootstrap_is_the_interval_of_the_differences() -> None:
    left, right = SCORES, SCORES - 0.5
    found = ours.paired_bootstrap(left, right)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5)
    with pytest.raises(ValueError, match="equally many"):
        ours.paired_bootstrap([1.0, 2.0], [1.0])


@pytest.mark.parametrize("p_values", [[0.04], [0.01, 0.04, 0.03, 0.005], [0.5, 0.5, 0.9], [0.02, 0.02, 0.0, 1.0, 0.6]])
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    expected = multitest.multipletests(p_values, method="holm")[1]
    found = ours.holm({str(place): p_value for place, p_value in enumerate(p_values)})
    assert list(found.values()) == pytest.approx(list(expected))


@settings(deadline=None)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    subsets = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert ours.pass_at_k(n, correct, k) == pytest.approx(float(Fraction(sum(map(any, subsets)), len(subsets))))


def test_pass_at_more_samples_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"generation\.samples"):
        ours.pass_at_k(3, 1, 4)


def test_majority_vote_prefers_the_first_of_equally_frequent_answers() -> None:
    assert ours.majority_vote(["7", "5", "5", "7", None]) == "7"
    assert ours.majority_vote([None, None]) is None


def test_win_rate_counts_a_tie_half() -> None:
    found = ours.win_rate([1, 1, 0.5, 0])
    assert (found.value, found.n) == (0.625, 4)
    with pytest.raises(ValueError, match="outcomes"):
        ours.win_rate([1, 2])


GAMES = [
    *[("a", "b", 1.0)] * 30, *[("a", "b", 0.0)] * 10, *[("b", "c", 1.0)] * 25, *[("b", "c", 0.0)] * 15,
    *[("a", "c", 1.0)] * 33, *[("a", "c", 0.0)] * 7, *[("a", "c", 0.5)] * 4,
]  # fmt: skip


def test_bradley_terry_agrees_with_logistic_regression() -> None:
    design, won = [], []
    for one, other, outcome in GAMES:
        row = [0.0, 0.0]  # a and b; c is the anchor
        for name, sign in ((one, 1.0), (other, -1.0)):
            if name != "c":
                row["ab".index(name)] += sign
        design.append(row)
        won.append(outcome)
    fit = statsmodels.GLM(won, np.array(design), family=statsmodels.families.Binomial()).fit()
    found = ours.bradley_terry(GAMES, anchor="c")
    elo = 400 / math.log(10)
    for name, weight, error in zip("ab", fit.params, fit.bse, strict=True):
        assert found[name].value == pytest.approx(weight * elo, rel=1e-5)
        assert found[name].standard_error == pytest.approx(error * elo, rel=1e-4)
    assert found["c"].value == 0.0


def test_bradley_terry_of_two_players_is_the_log_odds() -> None:
    found = ours.bradley_terry([("a", "b", 1.0)] * 10 + [("a", "b", 0.0)])
    assert found["a"].value - found["b"].value == pytest.approx(400.0)
    assert found["a"].value == pytest.approx(-found["b"].value)
    assert found["a"].n == 11


def test_ratings_that_are_infinite_are_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match=r"not finite: .*a; b, c"):
        ours.bradley_terry([("a", "b", 1.0), ("b", "c", 1.0), ("c", "b", 1.0)])


def test_length_controlled_win_rate_agrees_with_logistic_regression_and_removes_a_taste_for_length() -> None:
    random = np.random.default_rng(5)
    gaps = random.normal(150, 100, size=800)
    won = (random.random(800) < 1 / (1 + np.exp(-gaps / 60))).astype(float)  # length is all that counts
    plain, controlled = ours.win_rate(won), ours.length_controlled_win_rate(won, gaps)
    design = np.stack([np.ones(800), np.tanh(gaps / gaps.std())], axis=1)
    fit = statsmodels.GLM(won, design, family=statsmodels.families.Binomial()).fit(cov_type="HC0")
    assert controlled.value == pytest.approx(1 / (1 + math.exp(-fit.params[0])), rel=1e-6)
    low = 1 / (1 + math.exp(-(fit.params[0] - 1.959964 * fit.bse[0])))
    assert controlled.low == pytest.approx(low, rel=1e-4)
    assert plain.value > 0.8
    assert abs(controlled.value - 0.5) < 0.15


def test_a_win_rate_that_length_alone_decides_has_no_controlled_value() -> None:
    gaps = np.arange(-20, 20) + 0.5
    with pytest.raises(ValueError, match="length alone"):
        ours.length_controlled_win_rate((gaps > 0).astype(float), gaps)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_kappa_agrees_with_statsmodels(weights: str) -> None:
    random = np.random.default_rng(6)
    one = random.integers(1, 6, size=120)
    other = np.clip(one + random.integers(-1, 2, size=120), 1, 5)
    table = np.zeros((5, 5))
    np.add.at(table, (one - 1, other - 1), 1)
    expected = inter_rater.cohens_kappa(table, wt={"none": None}.get(weights, weights))
    found = ours.cohen_kappa(one.tolist(), other.tolist(), weights)  # type: ignore[arg-type]
    assert found.value == pytest.approx(expected.kappa)
    assert found.standard_error == pytest.approx(expected.std_kappa, rel=1e-6)


def test_kappa_of_one_grade_throughout_does_not_exist() -> None:
    with pytest.raises(ValueError, match="one grade"):
        ours.cohen_kappa(["a", "a"], ["a", "a"])


def test_correlation_agrees_with_scipy() -> None:
    other = SCORES + RANDOM.normal(size=60)
    pearson = scipy_stats.pearsonr(SCORES, other)
    found = ours.correlation(SCORES, other, "pearson")
    assert found.value == pytest.approx(pearson.statistic)
    assert (found.low, found.high) == pytest.approx(tuple(pearson.confidence_interval()))
    assert ours.correlation(SCORES, other).value == pytest.approx(scipy_stats.spearmanr(SCORES, other).statistic)
    with pytest.raises(ValueError, match="constant"):
        ours.correlation([1, 1, 1, 1], [1, 2, 3, 4])


def test_a_difference_that_can_be_detected_has_the_power_that_statsmodels_gives_it() -> None:
    seen = ours.detectable_difference(0.4, 500)
    power = sm_power.normal_power(seen / 0.4, 500, 0.05, alternative="two-sided", sigma=1.0)
    assert power == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")], [[1.0]]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    for function in (ours.mean, ours.bootstrap_mean):
        with pytest.raises(ValueError, match="scores"):
            function(values)


def test_one_score_has_a_mean_without_an_interval() -> None:
    for found in (ours.mean([0.5]), ours.bootstrap_mean([0.5]), ours.clustered_mean([0.5, 0.7], ["a", "a"])):
        assert (found.low, found.high, found.standard_error) == (None, None, None)
