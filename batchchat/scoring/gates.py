"""Gates: conditions on a run's metrics that a build must meet.

    numeric.mean >= 0.80                         a metric against a number: >=, <=, >, <
    errors <= 1%                                 a percentage is a share: 1% is 0.01
    numeric.mean not worse than RUN by 0.02      a paired comparison with another run

A "not worse" gate holds when the whole interval of the difference lies above minus the margin: the run has to show
that it is not worse. An interval that is too wide to tell does not pass, and the reason begins with `undecided`.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from batchchat.errors import UsageError

if TYPE_CHECKING:  # numbers are not needed to read a gate
    from batchchat.scoring.statistics import Estimate

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_NAME = r"(?P<metric>[^\s<>=!\[]+(?:\[[^\]]*\])?)"
_NUMBER = r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<percent>%)?"
_THRESHOLD = re.compile(rf"{_NAME}\s*(?P<operator>>=|<=|>|<)\s*{_NUMBER}")
_NOT_WORSE = re.compile(rf"{_NAME}\s+not\s+worse\s+than\s+(?P<run>\S.*?)\s+by\s+{_NUMBER}")

LOWER_IS_BETTER = frozenset(
    {"errors", "failed", "empty", "truncated", "refused", "scorer_errors", "unscored", "seconds"}
)
"""Metrics (by the last part of their name) of which less is better."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """`metric operator bound`."""

    text: str
    metric: str
    operator: str
    bound: float


@dataclass(frozen=True, slots=True)
class NotWorse:
    """`metric not worse than run by margin`; the margin is not negative and in the metric's own unit."""

    text: str
    metric: str
    run: str
    margin: float


Gate = Threshold | NotWorse


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether a gate was met, and in one sentence why. `measured` is the metric, or the difference to the other run."""

    gate: Gate
    passed: bool
    reason: str
    measured: float | None


Compare = Callable[[str, str], "Estimate | str"]
"""(run, metric) -> this run's metric minus that run's over the chats that both have, with its interval; or why the two
cannot be compared, which fails the gate."""


def parse_gate(text: str) -> Gate:
    """A gate from its line in a recipe; UsageError showing the forms that there are."""
    line = text.strip()
    found = _NOT_WORSE.fullmatch(line)
    if found:
        margin = _number(found)
        if margin < 0:
            raise UsageError(f"the gate '{text}' has a negative margin; write how much worse is still allowed: by 0.02")
        return NotWorse(line, found["metric"], found["run"].strip("'\""), margin)
    found = _THRESHOLD.fullmatch(line)
    if found:
        return Threshold(line, found["metric"], found["operator"], _number(found))
    raise UsageError(
        f"the gate '{text}' cannot be read; write it as `numeric.mean >= 0.80`, `errors <= 1%` "
        "or `numeric.mean not worse than runs/before by 0.02`"
    )


def parse_gates(texts: Sequence[str]) -> tuple[Gate, ...]:
    """Every gate of a recipe, in order."""
    return tuple(parse_gate(text) for text in texts)


def check_metrics(gates: Sequence[Gate], known: Collection[str]) -> None:
    """UsageError for the first gate on a metric that the run will not have, with the nearest name."""
    for gate in gates:
        if gate.metric not in known:
            near = difflib.get_close_matches(gate.metric, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(sorted(known)) or 'none'}"
            raise UsageError(
                f"the gate '{gate.text}' is on '{gate.metric}', a metric that this run does not have; {hint}"
            )


def evaluate_gates(
    gates: Sequence[Gate],
    metrics: Mapping[str, float | None],
    compare: Compare | None = None,
    lower_is_better: Collection[str] = LOWER_IS_BETTER,
) -> tuple[GateResult, ...]:
    """The result of every gate, in order.

    A metric that was not measured (None or NaN) fails its gate. UsageError for a metric that is not in `metrics`,
    and for a "not worse" gate without `compare`.
    """
    check_metrics(gates, metrics.keys())
    results: list[GateResult] = []
    for gate in gates:
        if isinstance(gate, Threshold):
            results.append(_against_bound(gate, metrics[gate.metric]))
        elif compare is None:
            raise UsageError(f"the gate '{gate.text}' needs the results of '{gate.run}', which are not at hand")
        else:
            lower = gate.metric.partition("[")[0].rpartition(".")[2] in lower_is_better
            difference = compare(gate.run, gate.metric)
            if isinstance(difference, str):
                results.append(GateResult(gate, False, difference, None))
            else:
                results.append(_against_run(gate, difference, lower))
    return tuple(results)


def _against_bound(gate: Threshold, value: float | None) -> GateResult:
    if value is None or math.isnan(value):
        return GateResult(gate, False, f"{gate.metric} was not measured", None)
    passed = _OPERATORS[gate.operator](value, gate.bound)
    reason = f"{gate.metric} is {value:.6g}, {'as' if passed else 'not'} {gate.operator} {gate.bound:g}"
    return GateResult(gate, passed, reason, value)


def _against_run(gate: NotWorse, difference: Estimate, lower_is_better: bool) -> GateResult:
    value = difference.value
    if difference.low is None or difference.high is None or math.isnan(value):
        reason = f"undecided: the difference to {gate.run} has no interval: n is {difference.n} ({difference.method})"
        return GateResult(gate, False, reason, None if math.isnan(value) else value)
    worst, seen = (-difference.high, -value) if lower_is_better else (difference.low, value)
    passed = worst >= -gate.margin
    figures = (
        f"{gate.metric} differs from {gate.run} by {value:+.4g}, interval {difference.low:+.4g} to "
        f"{difference.high:+.4g}, n {difference.n:,}"
    )
    if passed:
        return GateResult(gate, True, f"{figures}: not worse by more than {gate.margin:g}", value)
    if seen < -gate.margin:
        return GateResult(gate, False, f"{figures}: worse by more than {gate.margin:g}", value)
    return GateResult(gate, False, f"undecided: {figures}: {_too_few(gate, difference)}", value)


def _too_few(gate: NotWorse, difference: Estimate) -> str:
    """That the rows do not tell whether a run is worse, and how many might."""
    units = difference.clusters or difference.n
    if gate.margin <= 0:
        return "no number of answers shows a margin of 0; allow for a small one, such as by 0.02"
    needed = rows_for_margin(gate.margin)
    if units < needed:
        return (
            f"{units:,} chats are too few to tell; scores of 0 and 1 take {needed:,} for a margin of {gate.margin:g} "
            "even where no answer changes, so score more chats or allow for more"
        )
    return f"the answers that changed leave open whether it is worse by more than {gate.margin:g}; score more"


def rows_for_margin(margin: float) -> int:
    """How many rows of 0 and 1, none of them changed, show with 95 % confidence that a run is not worse by `margin`:
    the least n with z² / (n + z²) <= margin, from Tango's interval."""
    z = NormalDist().inv_cdf(0.975)
    return max(1, math.ceil(z * z * (1 - margin) / margin)) if margin < 1 else 1


def _number(found: re.Match[str]) -> float:
    number = float(found["number"])
    return number / 100 if found["percent"] else number
