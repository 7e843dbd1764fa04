"""Imports point downwards only, and the rooms that must stay light import nothing heavy."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support.jobs import ROOT

PACKAGE = ROOT / "batchchat"

BASE = {"credentials", "errors", "chats", "recipe", "plugins", "version"}
TOOLS = {"schedule", "prompts", "models", "sources"}
MAY_IMPORT: dict[str, set[str]] = {
    "credentials": set(),
    "errors": {"credentials"},
    "hub": set(),
    "cache": set(),
    "process": set(),
    "version": set(),
    "plugins": {"errors"},
    "chats": {"errors", "plugins"},
    "scoring": {"errors", "plugins", "chats"},
    "recipe": {"credentials", "errors", "plugins", "chats", "scoring"},
    "schedule": {"chats"},
    "sources": {*BASE, "hub"},
    "prompts": {*BASE},
    "structure": {"errors", "plugins", "chats", "scoring"},
    "sampling": {"errors", "chats", "structure"},
    "models": {*BASE, "prompts", "hub", "cache"},
    "evaluation": {*BASE, "scoring", "sources", "store", "reporting", "models"},
    "engines": {*BASE, "cache", "process", "schedule", "prompts", "models", "sampling"},
    "launch": {*BASE, "process", "schedule", "prompts", "models", "engines", "reporting"},
    "benchmarks": {*BASE, "process", "schedule", "prompts", "models", "engines", "launch", "reporting"},
    "store": {*BASE},
    "reporting": {*BASE, "cache", "process", "store", "scoring", "engines"},
    "results": {*BASE, "scoring", "sources", "store", "reporting", "evaluation"},
    "selection": {*BASE, "scoring", "sources", "store", "reporting", "evaluation", "results"},
    "publish": {*BASE, "scoring", "engines", "store", "reporting", "results", "selection"},
    "viewer": {*BASE, "scoring", "store", "reporting", "evaluation", "results"},
    "job": {
        *BASE,
        *TOOLS,
        "scoring",
        "structure",
        "engines",
        "launch",
        "evaluation",
        "store",
        "reporting",
        "results",
        "selection",
    },
    "interactive": {*BASE, *TOOLS, "engines", "reporting", "job"},
    "cli": {
        *BASE,
        "process",
        *TOOLS,
        "reporting",
        "launch",
        "job",
        "interactive",
        "benchmarks",
        "evaluation",
        "scoring",
        "results",
        "publish",
        "viewer",
    },
    "batchchat": {"recipe", "job", "reporting", "version"},
    "__main__": {"cli"},
}
"""Room (or top-level module) to the rooms it may import, besides itself. "batchchat" is the package's own top."""

LIGHT = {
    "errors", "chats", "recipe", "schedule", "store", "sources", "job", "reporting", "interactive", "cli",
    "scoring", "structure", "evaluation", "plugins", "launch", "results", "viewer", "selection", "publish",
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
            target = parts[1] if len(parts) > 1 else "batchchat"
            if target != room and target not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_room_stands_above_itself() -> None:
    """Each room's allowed imports lie below it: there is an order of rooms from the bottom up."""
    order = list(TopologicalSorter(MAY_IMPORT).static_order())  # raises where there is a circle
    assert order[0] in {"credentials", "version"}


def shown_rooms() -> dict[str, set[str]]:
    """Each room and what it may import, as the table in docs/ARCHITECTURE.md says it."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    shown: dict[str, set[str]] = {}
    for names, what in re.findall(r"^\| (`.+?) \|.+\| (.+) \|$", table, re.MULTILINE):
        above: dict[str, set[str]] = {"nothing": set(), "all of the above": set(shown), "all": set(shown)}
        imported = above.get(what, set(what.split(", ")))
        assert imported <= set(shown), f"{names} may import {imported - set(shown)}, which the table has below it"
        shown |= dict.fromkeys(re.findall(r"`(\w+)`", names), imported)
    return shown


def reached(graph: Mapping[str, set[str]], room: str) -> set[str]:
    """What a room may import, and what that brings along; the version is everybody's."""
    found, left = {"version"}, [room]
    while left:
        new = graph[left.pop()] - found
        found |= new
        left += new
    return found - {room}


def test_the_table_of_rooms_in_the_documentation_is_this_one() -> None:
    shown = shown_rooms()
    assert set(shown) == set(MAY_IMPORT) - {"batchchat", "__main__"}
    for room in shown:
        assert reached(shown, room) == reached(MAY_IMPORT, room), f"docs/ARCHITECTURE.md is wrong about {room}"


def test_modules_import_each_other_without_circles() -> None:
    graph = {name: imported_modules(name) for name in MODULES}
    TopologicalSorter(graph).prepare()


def test_the_engine_does_not_know_who_makes_it_fast() -> None:
    for name in MODULES:
        if name.startswith("batchchat.engines.continuous"):
            others = {other for other in imported_modules(name) if other.startswith(FASTER)}
            assert not others, f"{name} imports {others}; `acceleration` finds them by the device"


FASTER = ("batchchat.engines.cpu", "batchchat.engines.cuda")


def test_no_test_imports_a_test() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        wrong = [name for name in imports(path) if any(part.startswith("test_") for part in name.split(".")[:-1])]
        assert not wrong, f"{path.name} imports {wrong}; what tests share is in tests/support"


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in modules()}


def imported_modules(name: str) -> set[str]:
    """The modules of the package that a module imports when it runs, wherever the import stands."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else node.module for one in full}
    return (found & MODULES.keys()) - {name}


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
