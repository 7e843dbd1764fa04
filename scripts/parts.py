"""Programs of several parts, each of which shows line by line what it found, and what else such programs share."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Show = Callable[[Path, argparse.Namespace], Iterator[str]]
"""What a part finds, in a folder of its own."""


class Unlike(Exception):
    """Something failed, or came to something else than it should."""


def require(holds: bool, otherwise: str) -> None:
    """Raises Unlike."""
    if not holds:
        raise Unlike(otherwise)


def parser_of(program: str, parts: Iterable[str], description: str) -> argparse.ArgumentParser:
    """For the choice of parts and the folder of what they leave."""
    parser = argparse.ArgumentParser(prog=f"python -m scripts.{program}", description=description)
    parser.add_argument("--parts", nargs="+", choices=[*parts], help="these only")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / program.replace("_", "-"))
    return parser


def show(parts: Mapping[str, Show], options: argparse.Namespace) -> int:
    """Print what the wanted parts find, in their order, and a table of all; 1 where one is not as it should be."""
    options.output = options.output.resolve()
    found = []
    for name in [name for name in parts if name in (options.parts or parts)]:
        folder = options.output / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began, last = time.monotonic(), ""
        print(f"## {name}", flush=True)
        unlike = False
        try:
            for last in parts[name](folder, options):
                print(f"- {last}", flush=True)
        except Unlike as error:
            unlike, last = True, f"**{error}**"
            print(f"- {last}", flush=True)
        found.append((name, time.monotonic() - began, unlike, last))
    print("", "| part | seconds | as it should be | |", "|---|---|---|---|", sep="\n")
    for name, seconds, unlike, last in found:
        print(f"| {name} | {seconds:.0f} | {'**no**' if unlike else 'yes'} | {last} |", flush=True)
    return 1 if any(unlike for _, _, unlike, _ in found) else 0
