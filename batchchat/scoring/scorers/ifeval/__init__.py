"""`ifeval`: whether an answer follows the verifiable instructions of its prompt, strictly and loosely."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from pydantic import Field

from batchchat.scoring.base import Answer, BadReference, Score, ScoreFunction, ScorerOptions, column
from batchchat.scoring.extras import need
from batchchat.scoring.limited import time_limit
from batchchat.scoring.scorers.ifeval.instructions import INSTRUCTIONS

NEEDS_REFERENCE = False
DETAILS = ("strict", "loose", "followed_strict", "followed_loose", "instructions")
OVERALL = ("instructions_strict", "instructions_loose")


class Options(ScorerOptions):
    """Options of `ifeval`."""

    instructions: str = Field(
        default="instruction_id_list", description="Column with the list of instruction ids, as `keywords:existence`."
    )
    parameters: str = Field(
        default="kwargs", description="Column with one mapping of parameters per instruction; null values are absent."
    )
    mode: Literal["strict", "loose"] = Field(
        default="strict",
        description="Which of the two is the score; the other is in the details. `loose` accepts an answer that "
        "follows once its first line, its last line or its asterisks are taken away.",
    )
    seconds: float = Field(
        default=1.0,
        gt=0,
        description="Time limit of the patterns per row (keywords are some); an answer that exceeds it is an error of "
        "that row.",
    )


def make(options: Options) -> ScoreFunction:
    """1 where every instruction is followed, else 0. Details: `strict`, `loose`, and the numbers of instructions
    followed (`followed_strict`, `followed_loose`) and given (`instructions`). A row without instructions is
    unscored; an instruction or parameter that IFEval does not have raises BadReference."""
    need("nltk", "the scorer 'ifeval'")
    need("py3langid", "the scorer 'ifeval'")

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        names = column(columns, options.instructions)
        if not names:
            return Score(None, f"no instructions in column '{options.instructions}'", status="unscored")
        parameters = column(columns, options.parameters) or [{}] * len(names)
        if len(parameters) != len(names):
            raise BadReference(f"{len(names)} instructions but {len(parameters)} entries in '{options.parameters}'")
        checks = [instruction(name, given or {}) for name, given in zip(names, parameters, strict=True)]
        with time_limit(options.seconds, "the instructions"):
            strict = [follows(check, answer.text) for check in checks]
            variants = loose_variants(answer.text)
            loose = [any(follows(check, variant) for variant in variants) for check in checks]
        details = {
            "strict": float(all(strict)),
            "loose": float(all(loose)),
            "followed_strict": float(sum(strict)),
            "followed_loose": float(sum(loose)),
            "instructions": float(len(checks)),
        }
        missed = [
            name
            for name, followed in zip(names, strict if options.mode == "strict" else loose, strict=True)
            if not followed
        ]
        reason = f"not followed: {', '.join(missed)}" if missed else f"all {len(names)} instructions followed"
        return Score(details[options.mode], reason, details=details)

    return score


def overall(sums: Mapping[str, float]) -> Mapping[str, float]:
    """The shares of all instructions that were followed: IFEval's instruction-level accuracy."""
    return {f"instructions_{mode}": sums[f"followed_{mode}"] / sums["instructions"] for mode in ("strict", "loose")}


def instruction(name: str, parameters: Mapping[str, Any]) -> Callable[[str], bool]:
    """The check of one instruction; BadReference naming what is unknown or missing."""
    check = INSTRUCTIONS.get(name)
    if check is None:
        near = difflib.get_close_matches(name, INSTRUCTIONS, n=1)
        raise BadReference(f"there is no instruction '{name}'{f'; the nearest is {near[0]}' if near else ''}")
    given = {key: value for key, value in parameters.items() if value is not None}
    needed = {key for key in inspect.signature(check).parameters if key != "response"}
    if needed != given.keys():
        wrong = ", ".join(sorted(needed ^ given.keys()))
        listed = ", ".join(sorted(needed)) or "no parameters"
        raise BadReference(f"the instruction '{name}' takes {listed}; missing or unknown: {wrong}")
    return partial(check, **given)


def follows(check: Callable[[str], bool], response: str) -> bool:
    """Whether a response that is not blank passes the check."""
    return bool(response.strip()) and check(response)


def loose_variants(response: str) -> tuple[str, ...]:
    """The response as it is, without its first line, its last line and both; and each of them without asterisks."""
    lines = response.split("\n")
    cut = (response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])))
    return tuple(dict.fromkeys(cut + tuple(variant.replace("*", "") for variant in cut)))
