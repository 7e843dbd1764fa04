"""Recipes that make data, over many rows with the built-in model: killed twice, the outputs are those of a calm run.

    python -m scripts.synthesis.killed [--rows 1000] [RECIPE ...]

Prints a line for each recipe; ends with 1 where outputs differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from batchchat.plugins.builtin import builtin_sample
from scripts.stored import num_turns

SAMPLES = {"magpie": None, "evolve": "alpaca", "questions": "documents", "simulate": "goals"}
"""Recipes with the sample that each is written for; None where rows come from nothing."""
KILLS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=list(SAMPLES), metavar="RECIPE")
    parser.add_argument("--rows", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return max(_try(name, arguments.rows, Path(folder)) for name in arguments.recipes)


def _try(name: str, rows: int, folder: Path) -> int:
    """0 where the killed run's outputs are the calm one's."""
    source = _source(name, rows, folder)
    start = time.monotonic()
    calm, killed = folder / name / "calm", folder / name / "killed"
    turns = _whole(name, source, calm)
    seconds = time.monotonic() - start
    for number in range(KILLS):
        process = _start(name, source, killed)
        while num_turns(killed) < turns * (number + 1) / (KILLS + 1):
            if process.poll() is not None:
                raise SystemExit(f"{name} ended with {process.returncode} before it could be killed")
            time.sleep(0.05)
        process.kill()
        process.wait()
    _whole(name, source, killed)
    hashes = [
        {file: hashlib.sha256((place / file).read_bytes()).hexdigest() for file in ("outputs.jsonl", "errors.jsonl")}
        for place in (calm, killed)
    ]
    same = hashes[0] == hashes[1]
    report = json.loads((calm / "report.json").read_text(encoding="utf-8"))
    counts = (
        f"{rows:,} rows, {report['rows']['failed']:,} failed, {turns:,} turns, {report['tokens']['generated']:,} tokens"
    )
    print(
        f"{name}: {counts}, {seconds:.0f} s calm; killed {KILLS} times: {'equal' if same else 'NOT EQUAL'}", flush=True
    )
    return 0 if same else 1


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
    if code:
        raise SystemExit(f"{name} ended with {code}: see {place / 'run.log'}")
    return num_turns(place)


if __name__ == "__main__":
    sys.exit(main())
