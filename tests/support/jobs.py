"""What tests of whole jobs share: the command line's result, files of rows, and the smallest recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Finished]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSON lines; a row that is a string is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_bytes(b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in lines))
    return path


def read_jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def scripted_recipe(path: Path, source: Path | str, /, **sections: Any) -> Path:
    """A recipe for the engine without a model, in `path`'s folder; results go to `runs` beside it."""
    recipe: dict[str, Any] = {
        "name": "test",
        "model": {"name": "scripted"},
        "source": {"path": str(source)},
        "engine": {"kind": "scripted"},
        "sink": {"directory": str(path.parent / "runs" / "{name}")},
    }
    for section, values in sections.items():
        recipe[section] = {**recipe.get(section, {}), **values} if isinstance(values, dict) else values
    path.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    return path


def outputs(recipe: Path, name: str) -> bytes:
    return (recipe.parent / "runs" / name / "outputs.jsonl").read_bytes()


def report_of(recipe: Path, name: str) -> Any:
    return json.loads((recipe.parent / "runs" / name / "report.json").read_text(encoding="utf-8"))
