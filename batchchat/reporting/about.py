"""What answered, with what, where and when: so that a figure can be had again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from batchchat.chats import Settings
from batchchat.engines.machine import Machine, machine_facts
from batchchat.recipe import Recipe, thaw_flags
from batchchat.reporting.report import About, Provenance

_IDENTITY = ("sha256", "bytes", "hashed", "commit", "adapter", "template_sha256")
"""Of the manifest's facts on the model, those that tell it from others in few words."""

_SHORT_HASH = 12
_LONGEST = 60


def about_run(recipe: Recipe, manifest: Mapping[str, Any], settings: Settings, dtype: str | None) -> About:
    """`manifest` is that of this process, `settings` are those of a row without its own."""
    return About(
        model=recipe.model.name,
        revision=recipe.model.revision,
        identity={name: value for name, value in manifest["model"].items() if name in _IDENTITY},
        dtype=dtype,
        quantization=recipe.model.quantization,
        settings=_settings(recipe, settings),
        versions=manifest["versions"],
        machine=machine_facts(),
        started=manifest["started"],
        command=tuple(manifest["command"]),
    )


def _settings(recipe: Recipe, resolved: Settings) -> dict[str, Any]:
    default = Recipe.model_validate({"source": {"path": recipe.source.path}}).identity()
    usual, ours = dict(_flat(default)), dict(_flat(recipe.identity()))
    changed = {name: value for name, value in ours.items() if value != usual.get(name)}
    found = {name: value for name, value in changed.items() if not name.startswith(("model.name", "model.revision"))}
    found |= {f"generation.{name}": getattr(recipe.generation, name) for name in ("seed", "samples")}
    found |= {f"engine.{name}": ours[f"engine.{name}"] for name in ("kind", "reproducible")}
    for field in fields(resolved):
        value = getattr(resolved, field.name)
        if field.name == "flags":
            found |= {f"generation.{name}": flag for name, flag in thaw_flags(value).items()}
        elif field.default is MISSING or value != field.default or field.name in ("temperature", "top_p", "top_k"):
            found[f"generation.{field.name}"] = value
    return dict(sorted(json.loads(json.dumps(found, default=str)).items()))


def _flat(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def about_rows(about: About, batchchat: str) -> list[tuple[str, str]]:
    """(what, in words) for people. `batchchat` is the version that ran."""
    identity = about.identity
    told = [("revision", about.revision), ("commit", identity.get("commit")), ("sha256", identity.get("sha256"))]
    model = [about.model, *(f"{name} {str(value)[:_SHORT_HASH]}" for name, value in told if value)]
    settings = [f"{name}={_short(value)}" for name, value in about.settings.items()]
    return [
        ("model", ", ".join(model)),
        ("dtype", about.dtype or "no model was loaded"),
        ("quantization", about.quantization),
        *([("settings", ", ".join(settings))] if settings else []),
        *provenance_rows(about, batchchat),
    ]


def provenance_rows(about: Provenance, batchchat: str) -> list[tuple[str, str]]:
    """The same of what has no model of its own."""
    versions = {"batchchat": batchchat, **about.versions}
    return [
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("machine", _machine(about.machine)),
        ("date", about.started),
        ("command", shlex.join(about.command) or "from Python"),
    ]


def _machine(machine: Machine) -> str:
    cores = [] if machine.cores is None else [f"{machine.cores} cores"]
    devices = [f"{device.name} ({device.bytes / 2**30:.0f} GiB)" for device in machine.accelerators]
    return ", ".join([machine.processor, *cores, f"{machine.memory_gib} GiB", *devices])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
