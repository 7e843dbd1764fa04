"""Answers one recipe in every way that this machine has, holds the outputs against each other, and kills what computes.

    python -m scripts.many_devices [--only WAY …] [--kills N] [--every SECONDS] [--output FOLDER] [RECIPE [KEY=VALUE …]]

The recipe is MT-Bench with the built-in model where none is named; it is answered with engine.reproducible=strict.
Ways on Ray are there where Ray is installed. Prints a table, and ends with 1 where something is not as it should be.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.many_devices.job import Job, digest
from scripts.many_devices.kills import Kills
from scripts.many_devices.ways import CALM, REPLICAS, WAYS
from scripts.parts import ROOT, Unlike

HURT = {"killed": Kills.local, **({"killed-on-ray": Kills.on_ray} if "ray" in WAYS else {})}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    job = Job(options.recipe, options.overrides, options.output.resolve())
    wanted = [CALM, *(name for name in (*WAYS, *HURT) if name != CALM and name in (options.only or (*WAYS, *HURT)))]
    print("| way | seconds | chats failed | sha256 of the outputs | |", "|---|---|---|---|---|", sep="\n", flush=True)
    wrong = 0
    for name in wanted:
        shutil.rmtree(job.folder / name, ignore_errors=True)
        shutil.rmtree(job.folder / f"{name}-parts", ignore_errors=True)
        try:
            seconds, said = _run(job, name, options)
            if job.outputs(name) != job.outputs(CALM):
                raise Unlike("other outputs than those of one process")
        except Unlike as unlike:
            wrong += 1
            print(f"| {name} | | | | **{unlike}** |", flush=True)
        else:
            print(f"| {name} | {seconds:.1f} | {job.failed(name)} | {digest(job.outputs(name))} | {said} |", flush=True)
    return 1 if wrong else 0


def _run(job: Job, name: str, options: argparse.Namespace) -> tuple[float, str]:
    """Seconds and remarks. Raises Unlike."""
    if name in WAYS:
        return WAYS[name](job, name), ""
    kills = Kills(job, name, options.every, options.seed)
    seconds = HURT[name](kills, options.kills)
    report = job.report(name)
    counted = report["engine"]["replica_restarts"]
    more = REPLICAS if name != "killed" else 0  # those on the node that was lost
    if not kills.replicas <= counted <= kills.replicas + more:
        raise Unlike(f"{kills.replicas} replicas were killed, and the report counts {counted} restarts")
    return seconds, f"{kills.replicas} replicas killed, {counted} restarts, {len(report['sessions'])} sessions"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.many_devices", description="Many devices, one answer.")
    parser.add_argument("recipe", nargs="?", default=str(ROOT / "recipes" / "mt-bench.yaml"))
    parser.add_argument("overrides", nargs="*", default=[], help="key=value, as for batchchat run")
    parser.add_argument("--only", nargs="+", choices=(*WAYS, *HURT), help="these ways besides the first")
    parser.add_argument("--kills", type=int, default=20, help="how many replicas are killed")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between kills on average")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "many-devices")
    return parser


if __name__ == "__main__":
    sys.exit(main())
