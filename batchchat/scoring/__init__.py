"""Scores of answers, what they say together, and whether that is good enough. No torch, no model, no files."""

from batchchat.scoring.base import Answer, Score, ScoreFunction, Scorer, ScorerOptions
from batchchat.scoring.table import SCORERS, make_scorer

__all__ = [
    "SCORERS",
    "Answer",
    "Score",
    "ScoreFunction",
    "Scorer",
    "ScorerOptions",
    "make_scorer",
]
