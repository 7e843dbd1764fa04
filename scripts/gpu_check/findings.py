"""What parts find, one JSON line each: it survives whatever happens next."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["", "right", "wrong", "reached", "missed"]
"""`right` and `wrong` are about results, `reached` and `missed` about a target of speed; most figures are neither."""


@dataclass(frozen=True)
class Finding:
    """One case of a part."""

    case: str
    figures: dict[str, Any]
    """By what they are, with their unit."""
    verdict: Verdict = ""
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a part ended."""

    part: str
    ended: Literal["done", "failed", "out of time", "killed", "left out"]
    seconds: float
    why: str = ""


def tried(case: str, right: bool, figures: dict[str, Any], note: str = "") -> Finding:
    """A finding that is right or wrong."""
    return Finding(case, figures, "right" if right else "wrong", note)


def aimed(case: str, reached: bool | None, target: str, figures: dict[str, Any]) -> Finding:
    """A finding with a target of speed; `reached` is None where it does not apply."""
    if reached is None:
        return Finding(case, figures)
    return Finding(case, figures, "reached" if reached else "missed", f"target: {target}")


@dataclass(frozen=True)
class Found:
    """All that is known of a part so far."""

    findings: list[Finding]
    error: str = ""
    outcome: Outcome | None = None


def record(file: Path, part: str, what: Finding | Outcome | str) -> None:
    """Append a finding, an outcome or the words of an error, at once and as a whole."""
    kind = {Finding: "finding", Outcome: "outcome", str: "error"}[type(what)]
    line = json.dumps({"part": part, kind: what if isinstance(what, str) else asdict(what)}, ensure_ascii=False)
    place = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(place, (line + "\n").encode("utf-8"))
    finally:
        os.close(place)


def read(file: Path) -> dict[str, Found]:
    """By part, in the order of the first lines. A line that was cut short is left out."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in _lines(file):
        lines.setdefault(line["part"], []).append(line)
    return {part: _found(of_part) for part, of_part in lines.items()}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            yield json.loads(text)
        except ValueError:
            continue


def _found(lines: list[dict[str, Any]]) -> Found:
    outcomes = [Outcome(**line["outcome"]) for line in lines if "outcome" in line]
    return Found(
        findings=[Finding(**line["finding"]) for line in lines if "finding" in line],
        error=next((line["error"] for line in reversed(lines) if "error" in line), ""),
        outcome=outcomes[-1] if outcomes else None,
    )
