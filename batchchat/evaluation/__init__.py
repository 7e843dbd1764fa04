"""Scores of a run's answers, judges included: the pass over the answers, what it leaves, and what it comes to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchchat.evaluation.answers import Answered, Answers, FileAnswers, RunAnswers
    from batchchat.evaluation.evaluator import AnswerChats, Evaluator
    from batchchat.evaluation.gating import refuse_run_gates
    from batchchat.evaluation.mark import evaluation_mark, is_evaluated
    from batchchat.evaluation.other_runs import open_answers
    from batchchat.evaluation.scoring_pass import evaluate_run

__all__ = [
    "AnswerChats",
    "Answered",
    "Answers",
    "Evaluator",
    "FileAnswers",
    "RunAnswers",
    "evaluate_run",
    "evaluation_mark",
    "is_evaluated",
    "open_answers",
    "refuse_run_gates",
]

_PLACES = {
    "answers": ("Answered", "Answers", "FileAnswers", "RunAnswers"),
    "evaluator": ("AnswerChats", "Evaluator"),
    "gating": ("refuse_run_gates",),
    "mark": ("evaluation_mark", "is_evaluated"),
    "other_runs": ("open_answers",),
    "scoring_pass": ("evaluate_run",),
}


def __getattr__(name: str) -> Any:
    """Import on first use: whether a run was scored before is told without what scores it."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"batchchat.evaluation.{module}"), name)
    raise AttributeError(f"module 'batchchat.evaluation' has no attribute {name!r}")
