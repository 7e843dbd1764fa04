"""Imports point downwards only, and the rooms that must stay light import nothing heavy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.jobs import ROOT

PACKAGE = ROOT / "batchchat"

BASE = {"errors", "chats", "recipe", "plugins", "batchchat"}
TOOLS = {"schedule", "prompts", "models", "sources"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "plugins": {"errors"},
    "chats": {"errors", "plugins"},
    "scoring": {"errors", "plugins", "chats"},
    "recipe": {"errors", "plugins", "scoring"},
    "schedule": {"chats"},
    "sources": {*BASE},
    "prompts": {*BASE},
    "sampling": {"chats"},
    "models": {*BASE, "prompts"},
    "evaluation": {*BASE, "scoring", "sources", "job", "store", "reporting"},
    "engines": {*BASE, "schedule", "prompts", "models", "sampling"},
    "benchmarks": {*BASE, "schedule", "prompts", "models", "engines", "reporting"},
    "store": {*BASE},
    "reporting": {*BASE, "store"},
    "job": {*BASE, *TOOLS, "engines", "evaluation", "store", "reporting"},
    "interactive": {*BASE, *TOOLS, "engines", "reporting", "job"},
    "cli": {*BASE, *TOOLS, "reporting", "job", "interactive", "benchmarks", "evaluation", "scoring"},
    "batchchat": {"recipe", "job"},
    "__main__": {"cli"},
}
"""Room (or top-level module) to the rooms it may import, besides itself. "batchchat" is the package's own top."""

LIGHT = {
    "errors", "chats", "recipe", "schedule", "store", "sources", "job", "reporting", "interactive", "cli", "scoring",
    "evaluation", "plugins",
}  # fmt: skip
HEAVY = {"torch", "transformers", "datasets", "accelerate", "bitsandbytes", "pyarrow", "pandas"}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "batchchat" if parts == ("__init__",) else parts[0]


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 30
    return found


def test_edges_point_downwards() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "batchchat":
                continue
            target = parts[1] if len(parts) > 1 and parts[1] != "__version__" else "batchchat"
            if target != room and target not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_light_rooms_import_nothing_heavy_at_the_top() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        if room_of(path) in LIGHT
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_chats_and_schedule_and_store_never_import_torch() -> None:
    for path in modules():
        if room_of(path) in {"chats", "schedule", "store", "sources", "recipe", "scoring"}:
            assert not {name.split(".")[0] for name in imports(path)} & {"torch", "transformers"}, path


def test_modules_stay_small() -> None:
    for path in modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{path.relative_to(PACKAGE)} has {lines} lines: two things live in it"
