"""What a run's scores and gates depend on besides its answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError
from batchchat.recipe import Recipe
from batchchat.scoring.gates import NotWorse, parse_gates
from batchchat.scoring.row import FILE
from batchchat.store import RunStore


def evaluation_mark(recipe: Recipe) -> dict[str, Any]:
    """What the scores and gates depend on besides the answers: equal marks, equal results."""
    plain = recipe.model_dump(mode="json", include={"scoring", "summary", "judges", "rewards", "gates"})
    runs = {gate.run for gate in parse_gates(recipe.gates) if isinstance(gate, NotWorse)}
    mark = {**plain, "runs": {run: _fingerprint(run) for run in sorted(runs)}}
    return dict(json.loads(json.dumps(mark)))  # as it reads when it was stored


def is_evaluated(store: RunStore, recipe: Recipe) -> bool:
    """Whether the run's scores are those that the recipe asks for: none of a shard, since scores are of the whole."""
    return recipe.source.shard is not None or bool(store.meta("evaluated") == evaluation_mark(recipe))


def scores_of(run: str) -> Path:
    """The scores of a run directory. Raises UsageError where there are none."""
    file = Path(run).expanduser() / FILE
    if file.is_file():
        return file
    if not file.parent.is_dir():
        raise UsageError(f"there is no run directory {run}; check its path")
    raise UsageError(f"{run} holds no {FILE}; score it first with: batchchat score {run} RECIPE")


def _fingerprint(run: str) -> str:
    """SHA-256 (hex) of a run's scores: what a gate on another run depends on."""
    with open(scores_of(run), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
