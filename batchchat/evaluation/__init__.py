"""Scores of a run's answers, judges included: the pass over the answers, what it leaves, and what it comes to."""

from batchchat.evaluation.answers import Answered, Answers, FileAnswers, RunAnswers
from batchchat.evaluation.evaluator import AnswerChats, Evaluator
from batchchat.evaluation.gating import refuse_run_gates
from batchchat.evaluation.other_runs import open_answers
from batchchat.evaluation.scorebook import FILE as SCORES
from batchchat.evaluation.scoring_pass import evaluate_run, is_evaluated

__all__ = [
    "SCORES",
    "AnswerChats",
    "Answered",
    "Answers",
    "Evaluator",
    "FileAnswers",
    "RunAnswers",
    "evaluate_run",
    "is_evaluated",
    "open_answers",
    "refuse_run_gates",
]
