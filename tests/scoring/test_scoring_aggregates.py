"""Summaries of a run: means with the interval that fits, treatments, pass@k and majority votes, flat metric names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.scoring import Score
from batchchat.scoring.aggregates import ScoredAnswer, Summary, Tally
from batchchat.scoring.statistics import clustered_mean, wilson
from batchchat.scoring.treatments import Condition, Treatments


def answer(
    chat: int, value: float | None, sample: int = 0, turn: int = 0, condition: Condition = "complete", **score: Any
) -> ScoredAnswer:
    return ScoredAnswer(str(chat), sample, turn, condition, Score(value, "why", **score))


def summarize(
    metric: str,
    answers: Iterable[ScoredAnswer],
    treatments: Treatments | None = None,
    samples: int = 1,
    pass_at: Sequence[int] = (),
) -> Summary:
    tally = Tally(metric, treatments, samples)
    for one in answers:
        tally.add(one)
    return tally.summary(pass_at)


def test_right_or_wrong_with_one_answer_per_chat_has_wilsons_interval() -> None:
    summary = summarize("exact", [answer(chat, float(chat < 7)) for chat in range(10)])
    assert summary.estimate == wilson(7, 10)


def test_turns_of_one_chat_are_clustered() -> None:
    values = [0.2, 0.4, 0.9, 0.7, 0.1, 0.3]
    summary = summarize("f1", [answer(i // 2, value, turn=i % 2) for i, value in enumerate(values)])
    assert summary.estimate is not None
    assert summary.estimate.standard_error == clustered_mean(values, [0, 0, 1, 1, 2, 2]).standard_error
    assert (summary.estimate.n, summary.estimate.clusters) == (6, 3)
    assert summary.estimate.method == "clustered, Student's t"
    many = summarize("f1", [answer(i // 2, values[i % 6] + i / 1_000, turn=i % 2) for i in range(240)])
    assert many.estimate is not None
    assert "BCa" in many.estimate.method


def mixed() -> list[ScoredAnswer]:
    return [
        answer(0, 1.0),
        answer(1, 1.0, condition="truncated"),
        answer(2, 1.0, condition="refused"),
        answer(3, 0.0, condition="empty"),
        ScoredAnswer("4", 0, 0, "failed", None),
        answer(5, None, status="unscored"),
        answer(6, None, status="error"),
    ]


def test_what_is_not_complete_is_counted_apart_and_treated_as_said() -> None:
    by_default = summarize("exact", mixed())
    assert by_default.counts == {
        "answers": 7, "scored": 5, "unscored": 1, "skipped": 1, "scorer_errors": 1,
        "complete": 3, "truncated": 1, "refused": 1, "empty": 1, "failed": 1,
    }  # fmt: skip
    assert by_default.estimate is not None
    assert by_default.estimate.value == pytest.approx(3 / 5)
    strict = Treatments(truncated="wrong", refused="wrong", scorer_errors="wrong")
    estimate = summarize("exact", mixed(), strict).estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(1 / 6)
    assert estimate.n == 6
    lenient = Treatments(failed="skip", empty="skip", truncated="skip", refused="skip")
    estimate = summarize("exact", mixed(), lenient).estimate
    assert estimate is not None
    assert (estimate.value, estimate.n) == (1.0, 1)


CONDITIONS = st.sampled_from(["failed", "empty", "truncated", "refused", "complete"])
STATUSES = st.sampled_from(["scored", "unscored", "error"])


@settings(deadline=None)
@given(st.lists(st.tuples(CONDITIONS, STATUSES), max_size=20), st.sampled_from(["wrong", "skip"]))
def test_every_answer_is_counted_once_by_condition_and_never_lost(rows: list[tuple[Any, Any]], rule: Any) -> None:
    answers = [
        answer(chat, 1.0 if status == "scored" else None, condition=condition, status=status)
        for chat, (condition, status) in enumerate(rows)
    ]
    treatments = Treatments(failed=rule, empty=rule, truncated=rule, refused=rule, scorer_errors=rule)
    counts = summarize("exact", answers, treatments).counts
    assert counts["answers"] == len(rows) == counts["scored"] + counts["unscored"] + counts["skipped"]
    assert len(rows) == sum(counts[name] for name in ("complete", "failed", "empty", "truncated", "refused"))
    assert rule == "skip" or counts["skipped"] == 0


def test_pass_at_k_and_majority_read_the_samples_of_each_turn() -> None:
    rows = [
        *[answer(0, float(text == "7"), sample, parsed=text) for sample, text in enumerate(["7", "7", "5", "3"])],
        *[answer(1, float(text == "7"), sample, parsed=text) for sample, text in enumerate(["5", "5", "7", None])],
    ]
    summary = summarize("numeric", rows, samples=4, pass_at=(1, 2))
    assert summary.pass_at == pytest.approx({1: 3 / 8, 2: (5 / 6 + 3 / 6) / 2})
    assert summary.majority == 0.5
    with pytest.raises(ValueError, match="samples"):
        summarize("numeric", rows, samples=4, pass_at=(5,))
    with pytest.raises(ValueError, match="right or wrong"):
        summarize("f1", [answer(0, 0.3), answer(0, 1.0, 1)], samples=2, pass_at=(1,))


def test_there_is_no_majority_where_nothing_was_read_or_nothing_repeats() -> None:
    assert summarize("x", [answer(0, 1.0), answer(0, 0.0, 1)], samples=2).majority is None
    assert summarize("x", [answer(0, 1.0, parsed="a"), answer(1, 0.0, parsed="b")], samples=2).majority is None


def test_details_are_averaged_and_summed() -> None:
    summary = summarize("rouge", [answer(0, 1.0, details={"recall": 1.0}), answer(1, 0.0, details={"recall": 0.5})])
    assert summary.details == {"recall": 0.75}
    assert summary.detail_sums == {"recall": 1.5}


def test_metrics_have_flat_names_with_n_always_among_them() -> None:
    metrics = summarize("numeric", [answer(0, 1.0), answer(1, 0.0)], samples=2, pass_at=(1,)).metrics()
    assert metrics["numeric.mean"] == 0.5
    assert metrics["numeric.n"] == 2.0
    assert metrics["numeric.pass@1"] == 0.5
    part = summarize("numeric", [answer(0, None, status="unscored")]).metrics("category=math")
    assert part["numeric.mean[category=math]"] is None
    assert part["numeric.n[category=math]"] == 0.0
    assert part["numeric.unscored[category=math]"] == 1.0
    with pytest.raises(ValueError, match="may not be named low"):
        summarize("own", [answer(0, 1.0, details={"low": 1.0})]).metrics()


def test_a_generated_answer_without_a_score_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="needs a score"):
        summarize("exact", [ScoredAnswer("0", 0, 0, "complete", None)])
