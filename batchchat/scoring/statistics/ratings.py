"""Who wins: win rates with ties, Bradley-Terry ratings, and a win rate freed of a taste for length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from batchchat.scoring.statistics.estimate import Estimate, Numbers, normal_quantile, numbers
from batchchat.scoring.statistics.proportions import clustered_tango, tango

_ITERATIONS = 100
_ELO = 400 / math.log(10)


def win_rate(outcomes: ArrayLike, clusters: ArrayLike | None = None, confidence: float = 0.95) -> Estimate:
    """Share of comparisons won, a tie counting half.

    It is (1 + won - lost) / 2 in shares of all, and so its interval is Tango's of won against lost, at the effective
    number of comparisons where they come in clusters. `outcomes` are 1 for won, 0.5 for a tie, 0 for lost; ValueError
    for others.
    """
    leads = 2 * _outcomes(outcomes) - 1
    if clusters is None or np.unique(np.asarray(clusters)).size == leads.size:
        lead = tango(float((leads > 0).sum()), float((leads < 0).sum()), leads.size, confidence)
    else:
        lead = clustered_tango(leads, clusters, confidence)
    half = [None if bound is None else (1 + bound) / 2 for bound in (lead.low, lead.high)]
    error = None if lead.standard_error is None else lead.standard_error / 2
    return replace(lead, value=(1 + lead.value) / 2, standard_error=error, low=half[0], high=half[1])


def bradley_terry(
    games: Sequence[tuple[str, str, float]], confidence: float = 0.95, anchor: str | None = None
) -> dict[str, Estimate]:
    """Ratings on Elo's scale (400 points: odds of 10 to 1) from games `(one, other, outcome of one)`.

    Maximum likelihood by Newton's method, a tie as half a win each. Ratings have mean 0, or `anchor` has 0 and the
    others are relative to it; intervals are normal, from the inverse Fisher information under the same constraint.
    `n` counts each player's games. ValueError where ratings do not exist: fewer than two players, or a group that
    never lost, or never won, against the rest, whose rating would be infinite.
    """
    names = sorted({name for one, other, _ in games for name in (one, other)})
    if len(names) < 2:
        raise ValueError("ratings need games between at least two players")
    if anchor is not None and anchor not in names:
        raise ValueError(f"the anchor '{anchor}' has played no game; choose one of {', '.join(names)}")
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for one, other, outcome in games:
        if one == other or not 0 <= outcome <= 1:
            raise ValueError(f"a game has two players and an outcome from 0 to 1, not {(one, other, outcome)}")
        wins[place[one], place[other]] += outcome
        wins[place[other], place[one]] += 1 - outcome
    _refuse_infinite(wins, names)
    ratings, information = _fit_ratings(wins)
    if anchor is None:
        covariance = np.linalg.pinv(information)
    else:
        ratings -= ratings[place[anchor]]
        free = [index for index in range(len(names)) if index != place[anchor]]
        covariance = np.zeros_like(information)
        covariance[np.ix_(free, free)] = np.linalg.inv(information[np.ix_(free, free)])
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0)) * _ELO
    reach = normal_quantile(confidence) * errors
    played = (wins + wins.T).sum(axis=1)
    return {
        name: Estimate(
            float(ratings[i] * _ELO),
            round(float(played[i])),
            float(errors[i]),
            float(ratings[i] * _ELO - reach[i]),
            float(ratings[i] * _ELO + reach[i]),
            confidence,
            "Bradley-Terry, Fisher information",
        )
        for name, i in place.items()
    }


def _refuse_infinite(wins: Numbers, names: Sequence[str]) -> None:
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(wins > 0, directed=True, connection="strong")
    if count > 1:
        groups: Mapping[int, list[str]] = {
            group: [name for name, own in zip(names, label, strict=True) if own == group] for group in range(count)
        }
        listed = "; ".join(sorted(", ".join(group) for group in groups.values()))
        raise ValueError(
            f"ratings are not finite: between these groups one side won every game or none was played: {listed}"
        )


def _fit_ratings(wins: Numbers) -> tuple[Numbers, Numbers]:
    """(log-odds ratings of mean 0, Fisher information at them), both in natural logarithms."""
    played = wins + wins.T
    ratings = np.zeros(len(wins))
    for _ in range(_ITERATIONS):
        expected = 1 / (1 + np.exp(ratings[None, :] - ratings[:, None]))
        gradient = (wins - played * expected).sum(axis=1)
        weight = played * expected * (1 - expected)
        information = np.diag(weight.sum(axis=1)) - weight
        step = np.linalg.pinv(information) @ gradient
        # Far from the solution a Newton step can overshoot; three log-odds at a time keep it in reach.
        step *= min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-300))
        ratings += step
        if float(np.abs(step).max()) < 1e-10:
            return ratings - ratings.mean(), information
    raise ValueError("the ratings did not converge; the games are too one-sided to rate the players")


def length_controlled_win_rate(
    outcomes: ArrayLike, length_gaps: ArrayLike, difficulty: ArrayLike | None = None, confidence: float = 0.95
) -> Estimate:
    """The win rate to be expected if both answers had been equally long.

    A logistic regression of the outcome on tanh(gap / deviation of the gaps) and, where it is given, on each question's
    difficulty, as in length-controlled AlpacaEval (arXiv 2404.04475): the win rate is the mean over the questions of
    the curve's value at gap 0. `length_gaps` are own length minus the other's. AlpacaEval also draws the fit towards
    its baseline with judgements of its own, which are not at hand; `method` says what is left out, and
    docs/STATISTICS.md by how much its leaderboard differs. The interval is the normal one of the log-odds (robust
    standard error), mapped to the share. ValueError where length alone decides every game, for then the curve is a
    step, and where questions have no difficulty.
    """
    won, gaps = _outcomes(outcomes), numbers(length_gaps, "length_gaps")
    if won.size != gaps.size:
        raise ValueError(f"{won.size} outcomes but {gaps.size} length gaps")
    spread = float(gaps.std())
    level = [np.ones_like(won)]
    if difficulty is not None:
        hard = numbers(difficulty, "difficulty")
        if hard.size != won.size:
            raise ValueError(f"{won.size} outcomes but {hard.size} difficulties")
        level += [] if np.ptp(hard) == 0 else [hard]
    length = [] if spread == 0 else [np.tanh(gaps / spread)]
    weights, covariance = _fit_logistic(np.stack([*level, *length], axis=1), won)
    at_zero = np.stack([*level, *(np.zeros_like(won) for _ in length)], axis=1)
    chances = 1 / (1 + np.exp(-(at_zero @ weights)))
    share = float(chances.mean())
    slope = (at_zero * (chances * (1 - chances))[:, None]).mean(axis=0)
    error = math.sqrt(float(slope @ covariance @ slope))
    centre, reach = math.log(share / (1 - share)), normal_quantile(confidence) * error / (share * (1 - share))
    told = (
        "without a term per question, so not AlpacaEval's figure" if difficulty is None else "term per question given"
    )
    return Estimate(
        share,
        won.size,
        error,
        _logistic(centre - reach),
        _logistic(centre + reach),
        confidence,
        f"length-controlled, logistic regression, {told}; not drawn towards AlpacaEval's baseline",
    )


def _fit_logistic(design: Numbers, outcome: Numbers) -> tuple[Numbers, Numbers]:
    """(weights, their robust covariance) of a logistic regression with outcomes from 0 to 1."""
    weights = np.zeros(design.shape[1])
    for _ in range(_ITERATIONS):
        expected = 1 / (1 + np.exp(-np.clip(design @ weights, -700, 700)))
        information = design.T @ (design * (expected * (1 - expected))[:, None])
        if np.linalg.cond(information) > 1e12 or float(np.abs(weights).max()) > 30:
            break
        step = np.linalg.solve(information, design.T @ (outcome - expected))
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-300))
        weights = weights + step
        if float(np.abs(step).max()) < 1e-10:
            inverse = np.linalg.inv(information)
            residual = design * (outcome - expected)[:, None]
            return weights, inverse @ (residual.T @ residual) @ inverse
    raise ValueError("one side won every game, or length alone decides them: no finite win rate at equal length exists")


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _outcomes(outcomes: ArrayLike) -> Numbers:
    values = numbers(outcomes, "outcomes")
    if not np.isin(values, (0.0, 0.5, 1.0)).all():
        raise ValueError("outcomes are 1 (won), 0.5 (tie) or 0 (lost)")
    return values
