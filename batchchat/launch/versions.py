"""What decides about answers and must be the same wherever a run computes."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

from batchchat.version import __version__

_PACKAGES = ("torch", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Of batchchat, Python and the packages that compute."""
    found = {"batchchat": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def difference(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """In words, where two places differ."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    lines = [f"{name} {there.get(name, 'none')} instead of {here.get(name, 'none')}" for name in names]
    return ", ".join(lines) or None
