"""Answer files of conversations with a language model, in batches that survive a kill.

from batchchat import Recipe, run
result = run(Recipe(name="demo", source={"path": "chats.jsonl"}))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchchat.version import __version__ as __version__

__all__ = ["Recipe", "RunProgress", "RunResult", "answer", "load_recipe", "load_result", "run"]

if TYPE_CHECKING:
    from batchchat.job.answer import answer, load_result
    from batchchat.job.finished import RunResult
    from batchchat.job.run import run
    from batchchat.recipe import Recipe, load_recipe
    from batchchat.reporting.progress import RunProgress

_PLACES = {
    "Recipe": "batchchat.recipe",
    "RunProgress": "batchchat.reporting.progress",
    "RunResult": "batchchat.job.finished",
    "answer": "batchchat.job.answer",
    "load_recipe": "batchchat.recipe",
    "load_result": "batchchat.job.answer",
    "run": "batchchat.job.run",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: `batchchat --help` must not wait for them."""
    if name not in _PLACES:
        raise AttributeError(f"module 'batchchat' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
