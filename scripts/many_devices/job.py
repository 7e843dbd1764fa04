"""A recipe that is run as a user would run it, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.parts import ROOT, Unlike

PYTHON = (sys.executable, "-m")


@dataclass(frozen=True)
class Job:
    """One recipe with its overrides; each run of it has a folder of its own beneath `folder`."""

    recipe: str
    overrides: Sequence[str]
    folder: Path

    def arguments(self, name: str, *more: str) -> list[str]:
        """What follows `python -m` for a run that is called `name`."""
        place = f"sink.directory={self.folder / name}"
        return ["batchchat", "run", self.recipe, "--quiet", "engine.reproducible=strict", *self.overrides, place, *more]

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """Begin or resume a run."""
        command = [*PYTHON, *self.arguments(name, *more)]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment())

    def call(self, name: str, command: Sequence[str]) -> float:
        """Wait for a command; returns the seconds that it took. Raises Unlike where it fails."""
        began = time.monotonic()
        with (self.folder / f"{name}.log").open("ab") as log:
            code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env=environment()).returncode
        if code:
            raise Unlike(f"{name} ended with exit code {code}: read {self.folder / name}.log")
        return time.monotonic() - began

    def outputs(self, name: str) -> bytes:
        return (self.folder / name / "outputs.jsonl").read_bytes()

    def report(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((self.folder / name / "report.json").read_text(encoding="utf-8"))
        return found

    def failed(self, name: str) -> int:
        """Rows in errors.jsonl."""
        return (self.folder / name / "errors.jsonl").read_bytes().count(b"\n")


def environment() -> dict[str, str]:
    """This process's; modules are found as here, also by nodes of a cluster that it starts."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def digest(outputs: bytes) -> str:
    return hashlib.sha256(outputs).hexdigest()[:16]
