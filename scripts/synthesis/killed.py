"""Recipes that make data, over many rows with the built-in model: killed twice, the outputs are those of a calm run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from batchchat.plugins.builtin import builtin_sample
from scripts.parts import require
from scripts.stored import num_turns

SAMPLES = {"magpie": None, "evolve": "alpaca", "questions": "documents", "simulate": "goals"}
"""Recipes with the sample that each is written for; None where rows come from nothing."""
KILLS = 2


def show(folder: Path, rows: int) -> Iterator[str]:
    for name in SAMPLES:
        yield _tried(name, rows, folder)


def _tried(name: str, rows: int, folder: Path) -> str:
    """What one recipe came to. Raises Unlike where the killed run's outputs are not the calm one's."""
    source = _source(name, rows, folder)
    start = time.monotonic()
    calm, killed = folder / name / "calm", folder / name / "killed"
    turns = _whole(name, source, calm)
    seconds = time.monotonic() - start
    for number in range(KILLS):
        process = _start(name, source, killed)
        while num_turns(killed) < turns * (number + 1) / (KILLS + 1):
            require(process.poll() is None, f"{name} ended with {process.returncode} before it could be killed")
            time.sleep(0.05)
        process.kill()
        process.wait()
    _whole(name, source, killed)
    for file in ("outputs.jsonl", "errors.jsonl"):
        same = (calm / file).read_bytes() == (killed / file).read_bytes()
        require(same, f"{name}, killed {KILLS} times, has another {file} than the calm run")
    report = json.loads((calm / "report.json").read_text(encoding="utf-8"))
    counts = (
        f"{rows:,} rows, {report['rows']['failed']:,} failed, {turns:,} turns, {report['tokens']['generated']:,} tokens"
    )
    return f"{name}: {counts}, {seconds:.0f} s calm; killed {KILLS} times: equal"


def _source(name: str, rows: int, folder: Path) -> str:
    sample = SAMPLES[name]
    if sample is None:
        return f"blank:{rows}"
    lines = [json.loads(line) for line in builtin_sample(sample).read_text(encoding="utf-8").splitlines()]
    path = folder / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(json.dumps({**lines[number % len(lines)], "id": number}) + "\n")
    return str(path)


def _start(name: str, source: str, place: Path) -> subprocess.Popen[bytes]:
    settings = (f"source.path={source}", f"sink.directory={place}", "engine.reproducible=strict", "max_error_rate=1.0")
    command = [sys.executable, "-m", "batchchat", "run", f"builtin:{name}", "engine.kind=continuous", *settings]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _whole(name: str, source: str, place: Path) -> int:
    """Run to the end; returns the number of turns."""
    code = _start(name, source, place).wait()
    require(code == 0, f"{name} ended with {code}: read {place / 'run.log'}")
    return num_turns(place)
