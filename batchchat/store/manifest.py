"""The manifest: what a run was made from, so that it can be repeated, and so that it is not continued as another."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchchat.chats.json_text import encodable
from batchchat.credentials import without_credentials
from batchchat.errors import UsageError
from batchchat.recipe import Recipe
from batchchat.recipe.identity import recipe_difference
from batchchat.recipe.plugged import plugins_of
from batchchat.store.damage import lost
from batchchat.store.database import RunStore
from batchchat.store.directory import RunDirectory
from batchchat.version import __version__

log = logging.getLogger("batchchat")

_KEY = "manifest"

_PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "bitsandbytes", "datasets", "pyarrow", "llguidance",
    "xgrammar",
)  # fmt: skip


def make_manifest(
    recipe: Recipe, inputs: Sequence[Mapping[str, Any]], model: Mapping[str, Any], command: Sequence[str]
) -> dict[str, Any]:
    """Versions, hashes and the command. `inputs` are the files' fingerprints, `model` the model's identity."""
    return {
        "batchchat": __version__,
        "command": [without_credentials(part) for part in command],
        "started": time_now(),
        "recipe_digest": recipe.digest(),
        "recipe": recipe.identity(),
        "input": list(inputs),
        "model": dict(model),
        "plugins": plugins_of(recipe),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def require_run(directory: RunDirectory, name: str) -> None:
    """Raises UsageError where the directory that users call `name` holds no run, or none whose recipe is known."""
    if not (directory.database.exists() or directory.manifest.exists()):
        raise UsageError(f"{name} is no run directory: it holds no run store; name one, or a JSONL file with answers")
    if not directory.recipe.exists():
        raise UsageError(
            f"{directory.recipe} is missing; run its recipe again: it writes the file, and answers nothing anew"
        )


def open_store(directory: RunDirectory) -> RunStore:
    """The directory's run store. Raises UsageError where it is damaged, or gone and a manifest is left of it."""
    store = directory.database
    if directory.manifest.exists() and not (store.exists() and (store.is_dir() or store.stat().st_size)):
        raise lost(store)
    return RunStore(store)


def settle_manifest(directory: RunDirectory, store: RunStore, manifest: Mapping[str, Any]) -> None:
    """Keep the manifest of a new run, in its store and, for readers, beside it. Raises UsageError, with every
    difference, where the directory holds another run."""
    earlier = store.meta(_KEY)
    if earlier is None:
        earlier = manifest
        store.set_meta(_KEY, manifest)
        store.commit()
    _refuse_another_run(directory, earlier, manifest)
    text, found = _text(earlier), _text_beside(directory)
    if found != text:
        if earlier is not manifest and store.num_rows():
            log.warning(
                "%s %s; it is written anew from the run store",
                directory.manifest,
                "is missing" if found is None else "was changed",
            )
        directory.write(directory.manifest, text)


def is_kept(directory: RunDirectory, store: RunStore) -> bool:
    """Whether the manifest for readers is the one of the store."""
    return _text_beside(directory) == _text(store.meta(_KEY))


def recorded_manifest(store: RunStore) -> dict[str, Any] | None:
    """The manifest of the run that a store holds; None for a store that was never used."""
    found: dict[str, Any] | None = store.meta(_KEY)
    return found


def _text(manifest: Mapping[str, Any] | None) -> str:
    return encodable(json.dumps(manifest, ensure_ascii=False, indent=2)) + "\n"


def _text_beside(directory: RunDirectory) -> str | None:
    """What the file holds; "" where that cannot be read, None where there is none."""
    try:
        return directory.manifest.read_text(encoding="utf-8") if directory.manifest.exists() else None
    except (OSError, UnicodeDecodeError):
        return ""


def _refuse_another_run(directory: RunDirectory, earlier: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    differences = [
        *(f"recipe: {line}" for line in recipe_difference(earlier["recipe"], manifest["recipe"])),
        *_input_differences(earlier["input"], manifest["input"]),
        *(f"model: {line}" for line in recipe_difference(earlier["model"], manifest["model"])),
    ]
    if differences:
        raise UsageError(
            f"{directory.path} holds a run that differs from this one, so it cannot be resumed:\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\nbegin another run with sink.directory=…, or this one anew with --restart (the old directory is kept)"
        )


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
