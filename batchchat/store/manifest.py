"""The manifest: what a run was made from, so that it can be repeated, and so that it is not continued as another."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchchat.errors import UsageError
from batchchat.recipe import Recipe
from batchchat.recipe.identity import recipe_difference
from batchchat.recipe.plugged import plugins_of
from batchchat.store.directory import RunDirectory
from batchchat.version import __version__

_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "bitsandbytes", "datasets", "pyarrow")


def make_manifest(
    recipe: Recipe, inputs: Sequence[Mapping[str, Any]], model: Mapping[str, Any], command: Sequence[str]
) -> dict[str, Any]:
    """Versions, hashes and the command. `inputs` are the files' fingerprints, `model` the model's identity."""
    return {
        "batchchat": __version__,
        "command": list(command),
        "started": time_now(),
        "recipe_digest": recipe.digest(),
        "recipe": recipe.identity(),
        "input": list(inputs),
        "model": dict(model),
        "plugins": plugins_of(recipe),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def refuse_another_run(directory: RunDirectory, manifest: Mapping[str, Any]) -> bool:
    """Whether the directory holds this very run already. Raises UsageError, with every difference, where it holds
    another one."""
    if not directory.manifest.exists():
        return False
    try:
        earlier = json.loads(directory.manifest.read_text(encoding="utf-8"))
        differences = [
            *(f"recipe: {line}" for line in recipe_difference(earlier["recipe"], manifest["recipe"])),
            *_input_differences(earlier["input"], manifest["input"]),
            *(f"model: {line}" for line in recipe_difference(earlier["model"], manifest["model"])),
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{directory.manifest} cannot be read ({error}); start afresh with --restart, which keeps the old directory"
        ) from error
    if differences:
        raise UsageError(
            f"{directory.path} holds a run that differs from this one, so it cannot be resumed:\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\ngive this run another name with name=…, or begin anew with --restart (the old directory is kept)"
        )
    return True


def _input_differences(earlier: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    before = {entry["path"]: entry for entry in earlier}
    after = {entry["path"]: entry for entry in now}
    lines = [f"input: {path} was not there before" for path in after if path not in before]
    lines += [f"input: {path} is gone" for path in before if path not in after]
    for path in before.keys() & after.keys():
        lines += [f"input: {path} has changed: {line}" for line in recipe_difference(before[path], after[path])]
    return lines


def time_now() -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide about answers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["implementation"] = sys.implementation.name
    return found
