"""Functions of the user's own, named in a recipe: `module:function`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError


def load_function(target: str, setting: str) -> Callable[..., Any]:
    """The callable that `module:function` names; UsageError, naming the recipe's `setting`, where there is none."""
    module_name, _, path = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # an installed command does not look where it runs; behind everything that is installed
    try:
        found: Any = import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise UsageError(
            f"{setting}: the module '{module_name}' cannot be imported ({type(error).__name__}: {error}); "
            "run from the folder that holds it or install it"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise UsageError(f"{setting}: the module '{module_name}' has no '{path}'; check its name")
        found = getattr(found, name)
    if not callable(found):
        raise UsageError(f"{setting}: '{target}' is a {type(found).__name__}; name a function")
    function: Callable[..., Any] = found
    return function
