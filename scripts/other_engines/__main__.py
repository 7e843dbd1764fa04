"""Shows what answers of other engines come to: servers that are killed, that refuse or are slow, vLLM, and batch files.

    python -m scripts.other_engines [--parts PART …] [--vllm-python PYTHON] [--requests N] [--output FOLDER]

Prints what was found; ends with 1 where something is not as it should be. Without a Python that has vLLM, what needs it
is left out, and that is said.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from scripts.other_engines import batch_file, conversion, limited, served, throughput, vllm
from scripts.other_engines.job import KEY, ROOT, Place, Unlike, require

Show = Callable[[Place, argparse.Namespace], Iterator[str]]

PARTS: Mapping[str, Show] = {
    "served": lambda place, options: served.show(place),
    "limited": lambda place, options: limited.show(place),
    "vllm": lambda place, options: _with_vllm(place, options),
    "batch-file": lambda place, options: batch_file.show(place, options.vllm_python),
    "conversion": lambda place, options: conversion.show(place),
    "throughput": lambda place, options: throughput.show(place, options.requests),
    "key": lambda place, options: _key(options.output),
}
"""In this order: the key is looked for in what all others have written and printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.output = options.output.resolve()
    wrong = 0
    for name in [name for name in PARTS if name in (options.parts or PARTS)]:
        folder = options.output / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began = time.monotonic()
        print(f"## {name}", flush=True)
        try:
            for line in PARTS[name](Place(folder), options):
                print(f"- {line}", flush=True)
        except Unlike as unlike:
            wrong += 1
            print(f"- **{unlike}**", flush=True)
        print(f"- {time.monotonic() - began:.0f} s in all", flush=True)
    return 1 if wrong else 0


def _with_vllm(place: Place, options: argparse.Namespace) -> Iterator[str]:
    if options.vllm_python is None:
        return iter(["left out, as no --vllm-python is named"])
    return vllm.show(place, options.vllm_python)


def _key(folder: Path) -> Iterator[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    require(bool(files), "nothing was written in which a key could stand")
    found = [str(file) for file in files if KEY.encode() in file.read_bytes()]
    require(not found, f"the key stands in {', '.join(found)}")
    size = sum(file.stat().st_size for file in files)
    yield f"not found in {len(files)} files, {size / 2**20:.0f} MiB: all that was written, and all that was printed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.other_engines", description="Other engines, one answer.")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], help="these only")
    parser.add_argument("--vllm-python", type=lambda name: Path(name).absolute(), help="of an environment with vLLM")
    parser.add_argument("--requests", type=int, default=100_000, help="of the part throughput")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "other-engines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
