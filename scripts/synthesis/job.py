"""What the shows of `make synthesis` share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.parts import ROOT, Unlike


def batchchat(*arguments: Any, fails: bool = False, **variables: str) -> int:
    """Wait for `batchchat ARGUMENTS`; its exit code. Raises Unlike where it fails and need not."""
    command = [sys.executable, "-m", "batchchat", *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, cwd=ROOT)
    if done.returncode and not fails:
        raise Unlike(f"batchchat {arguments[0]} ended with {done.returncode}: {done.stderr[-1000:]}")
    return done.returncode


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
