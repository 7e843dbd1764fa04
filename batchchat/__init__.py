"""Answer files of conversations with a language model, in batches that survive a kill.

from batchchat import Recipe, run
report = run(Recipe(name="demo", source={"path": "chats.jsonl"}))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchchat.version import __version__ as __version__

__all__ = ["Recipe", "RunProgress", "load_recipe", "run"]

if TYPE_CHECKING:
    from batchchat.job.run import run
    from batchchat.recipe import Recipe, load_recipe
    from batchchat.reporting.progress import RunProgress


def __getattr__(name: str) -> Any:
    """Import the public names on first use: `batchchat --help` must not wait for them."""
    if name in ("Recipe", "load_recipe"):
        from batchchat import recipe

        return getattr(recipe, name)
    if name == "run":
        from batchchat.job.run import run

        return run
    if name == "RunProgress":
        from batchchat.reporting.progress import RunProgress

        return RunProgress
    raise AttributeError(f"module 'batchchat' has no attribute {name!r}")
