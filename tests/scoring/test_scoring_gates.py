"""Gates: how they are read, when they hold, and what CI is told about them."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from batchchat.errors import UsageError
from batchchat.reporting.scores import GateOutcome
from batchchat.reporting.writers import junit, markdown
from batchchat.scoring.gates import NotWorse, Threshold, check_metrics, evaluate_gates, parse_gate, parse_gates
from batchchat.scoring.statistics import Estimate, paired_bootstrap

METRICS: dict[str, float | None] = {
    "numeric.mean": 0.8,
    "errors": 0.01,
    "tokens_per_second": 49.9,
    "judge.mean": None,
    "numeric.mean[category=math]": 0.7,
}


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("numeric.mean >= 0.80", Threshold("numeric.mean >= 0.80", "numeric.mean", ">=", 0.8)),
        (" errors<=1% ", Threshold("errors<=1%", "errors", "<=", 0.01)),
        ("tokens_per_second > 5e1", Threshold("tokens_per_second > 5e1", "tokens_per_second", ">", 50.0)),
        ("code.pass@8 < .5", Threshold("code.pass@8 < .5", "code.pass@8", "<", 0.5)),
        ("gain.mean >= -1", Threshold("gain.mean >= -1", "gain.mean", ">=", -1.0)),
        (
            "numeric.mean not worse than runs/last night by 2%",
            NotWorse("numeric.mean not worse than runs/last night by 2%", "numeric.mean", "runs/last night", 0.02),
        ),
    ],
)
def test_gates_are_read(text: str, gate: Any) -> None:
    assert parse_gate(text) == gate


@pytest.mark.parametrize(
    "text",
    ["", "numeric.mean", "numeric.mean = 0.8", "numeric.mean == 0.8", "numeric.mean >= high", "numeric.mean >= 0.8 0.9",
     "numeric.mean >= 80%%", "numeric.mean not worse than RUN", "0.5 <= numeric.mean <= 0.9"],
)  # fmt: skip
def test_what_is_no_gate_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="not worse than"):
        parse_gate(text)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        parse_gate("a not worse than RUN by -0.1")


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("numeric.mean >= 0.8", True),
        ("numeric.mean > 0.8", False),
        ("errors <= 1%", True),
        ("errors < 1%", False),
        ("tokens_per_second >= 50", False),
        ("judge.mean >= 0", False),
        ("numeric.mean[category=math] >= 0.7", True),
    ],
)
def test_thresholds_are_held_to_the_metric(text: str, passed: bool) -> None:
    (result,) = evaluate_gates([parse_gate(text)], METRICS)
    assert result.passed is passed
    assert result.gate.metric in result.reason


def test_a_metric_that_was_not_measured_fails_its_gate() -> None:
    for value in (None, float("nan")):
        (result,) = evaluate_gates([parse_gate("x >= 0")], {"x": value})
        assert not result.passed
        assert "not measured" in result.reason


def test_a_metric_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'numeric\.mean'"):
        check_metrics([parse_gate("numerc.mean >= 0.8")], METRICS.keys())
    with pytest.raises(UsageError, match="choose one of"):
        evaluate_gates([parse_gate("zzz >= 0.8")], METRICS)


def against(low: float, high: float, metric: str = "numeric.mean", margin: str = "0.02") -> bool:
    gate = parse_gate(f"{metric} not worse than RUN by {margin}")
    difference = Estimate((low + high) / 2, 100, low=low, high=high)
    (result,) = evaluate_gates([gate], {**METRICS, metric: 0.5}, lambda run, name: difference)
    return result.passed


def test_not_worse_needs_the_whole_interval_above_the_margin() -> None:
    assert against(-0.01, 0.05)
    assert against(-0.02, 0.05)
    assert not against(-0.03, 0.05)
    assert not against(-0.10, -0.05)
    assert against(0.01, 0.05)


def test_not_worse_looks_at_the_other_end_where_less_is_better() -> None:
    assert against(-0.05, 0.01, metric="errors")
    assert not against(-0.05, 0.03, metric="errors")
    assert not against(-0.05, 0.03, metric="numeric.truncated[category=math]")


def test_a_comparison_without_an_interval_or_without_the_other_run_does_not_pass() -> None:
    gate = parse_gate("numeric.mean not worse than RUN by 0.02")
    (result,) = evaluate_gates([gate], METRICS, lambda run, name: Estimate(0.0, 1))
    assert not result.passed
    with pytest.raises(UsageError, match="RUN"):
        evaluate_gates([gate], METRICS)


def test_a_run_is_not_worse_than_itself_and_a_spoiled_copy_is() -> None:
    scores = [float(index % 5 != 0) for index in range(400)]
    spoiled = [0.0 if index % 10 == 1 else score for index, score in enumerate(scores)]
    gate = parse_gate("numeric.mean not worse than before by 0.02")
    for now, passed in ((scores, True), (spoiled, False)):
        (result,) = evaluate_gates([gate], METRICS, lambda run, name, now=now: paired_bootstrap(now, scores))  # type: ignore[misc]
        assert result.passed is passed


HOSTILE = 'a|b <x> & "y" \u0007 `c` *d* [e]'


def results() -> Any:
    gates = [*parse_gates(["numeric.mean >= 0.5", "errors <= 0.1%"]), Threshold(HOSTILE, "errors", ">", 1.0)]
    return [GateOutcome.of(result) for result in evaluate_gates(gates, METRICS)]


def test_junit_names_what_failed_and_is_xml_whatever_the_names_hold() -> None:
    text = junit.render_gates(results(), HOSTILE)
    root = ElementTree.fromstring(text.encode())
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    failed = [case.get("name") for case in suite.findall("testcase") if case.find("failure") is not None]
    assert failed == ["errors <= 0.1%", HOSTILE.replace("\u0007", "\\x07")]
    assert text.startswith("<?xml")


def test_markdown_puts_failed_gates_first_and_escapes_its_cells() -> None:
    text = markdown.render_gates(results(), HOSTILE)
    lines = text.rstrip("\n").split("\n")
    assert "2 of 3 gates failed" in text
    assert [line.startswith("| **failed**") for line in lines[-3:]] == [True, True, False]
    assert "<x>" not in text
    assert r"a\|b" in text
    assert "no gates" in markdown.render_gates([], "run")
    assert "All 1 gates passed" in markdown.render_gates(results()[:1], "run")


def test_outcomes_hold_every_result_in_order() -> None:
    outcomes = [outcome.as_dict() for outcome in results()]
    assert [outcome["passed"] for outcome in outcomes] == [True, False, False]
    assert outcomes[0]["measured"] == 0.8
    assert outcomes[2]["gate"] == HOSTILE
