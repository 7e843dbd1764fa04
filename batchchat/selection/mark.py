"""What it depends on which answers of a run are kept, told without what chooses them."""

from __future__ import annotations

import json
from typing import Any

from batchchat.evaluation.mark import evaluation_mark
from batchchat.recipe import Recipe
from batchchat.sources.files import DataFile
from batchchat.sources.paths import find
from batchchat.store import RunStore

SELECTED = "selected"
"""Where the store has the mark of what was kept."""


def is_selected(store: RunStore, recipe: Recipe) -> bool:
    """Whether what is kept is what the recipe asks for: none of a shard, since steps are of the whole."""
    return recipe.source.shard is not None or store.meta(SELECTED) == selection_mark(recipe)


def selection_mark(recipe: Recipe) -> dict[str, Any] | None:
    """What it depends on which answers are kept, besides the answers: equal marks, equal files. None where none is."""
    if not recipe.keep:
        return None
    names = [name for step in recipe.keep if step.contaminated is not None for name in step.contaminated.by]
    found = [item for name in names for item in find(name) if isinstance(item, DataFile)]
    stamps = {str(file.path): [file.path.stat().st_size, file.path.stat().st_mtime_ns] for file in found}
    mark = {"scores": evaluation_mark(recipe), **recipe.model_dump(mode="json", include={"keep"}), "files": stamps}
    return dict(json.loads(json.dumps(mark)))  # as it reads when it was stored
