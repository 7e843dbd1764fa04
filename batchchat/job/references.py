"""Whether a run's references can be read, and its columns are there, found out before anything is generated."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from batchchat.errors import UsageError
from batchchat.evaluation import Evaluator
from batchchat.job.reading import ChatReader
from batchchat.prompts import row_samples
from batchchat.recipe import Recipe
from batchchat.selection.selecting import refuse_unknown_names
from batchchat.sources import Source
from batchchat.store import RunStore

log = logging.getLogger("batchchat")

_ROWS = 100


def check_references(evaluator: Evaluator, source: Source, recipe: Recipe) -> None:
    """Try the references of the input's first rows. Raises UsageError where a metric can read none of them, for then
    the recipe names the wrong column or scorer, and for a condition of `keep` on a column that none of them has; where
    a metric cannot read some, says which."""
    if not recipe.scoring and not recipe.keep:
        return
    head = {"limit": min(_ROWS, recipe.source.limit or _ROWS), "sample": None, "shuffle": False}
    first = recipe.model_copy(update={"source": recipe.source.model_copy(update=head)})
    with closing(RunStore(Path(":memory:"))) as store:
        reader = ChatReader(source, first, store, lambda chat: row_samples(recipe.generation, chat.settings))
        chats = [(chat, row.data) for row, chat in reader.chats()]
    if chats:
        refuse_unknown_names(recipe.keep, {*recipe.metrics, *(name for _, row in chats for name in row)})
    for metric, bad in evaluator.bad_references(chats).items():
        if len(bad.mistakes) == bad.tried:
            raise UsageError(
                f"no reference of the metric '{metric}' can be read in the first {len(chats)} chats, the first is "
                f"{bad.mistakes[0]}; name the right column with `reference:`, or a scorer that reads it"
            )
        log.warning(
            "%d of the first %d references of the metric '%s' cannot be read, so their answers will have no score; the "
            "first is %s",
            len(bad.mistakes),
            bad.tried,
            metric,
            bad.mistakes[0],
        )
