"""Shows what answers of other engines come to: servers that are killed, that refuse or are slow, vLLM, and batch files.

    python -m scripts.other_engines [--parts PART …] [--vllm-python PYTHON] [--requests N] [--output FOLDER]

Prints what was found; ends with 1 where something is not as it should be. Without a Python that has vLLM, what needs it
is left out, and that is said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts import parts
from scripts.other_engines import batch_file, conversion, limited, served, throughput, vllm
from scripts.other_engines.job import KEY, Place

PARTS: Mapping[str, parts.Show] = {
    "served": lambda folder, options: served.show(Place(folder)),
    "limited": lambda folder, options: limited.show(Place(folder)),
    "vllm": lambda folder, options: _with_vllm(Place(folder), options),
    "batch-file": lambda folder, options: batch_file.show(Place(folder), options.vllm_python),
    "conversion": lambda folder, options: conversion.show(Place(folder)),
    "throughput": lambda folder, options: throughput.show(Place(folder), options.requests),
    "key": lambda folder, options: _key(options.output),
}
"""In this order: the key is looked for in what all others have written and printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parts.parser_of("other_engines", PARTS, "Other engines, one answer.")
    parser.add_argument("--vllm-python", type=lambda name: Path(name).absolute(), help="of an environment with vLLM")
    parser.add_argument("--requests", type=int, default=100_000, help="of the part throughput")
    return parts.show(PARTS, parser.parse_args(arguments))


def _with_vllm(place: Place, options: argparse.Namespace) -> Iterator[str]:
    if options.vllm_python is None:
        return iter(["left out, as no --vllm-python is named"])
    return vllm.show(place, options.vllm_python)


def _key(folder: Path) -> Iterator[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    parts.require(bool(files), "nothing was written in which a key could stand")
    found = [str(file) for file in files if KEY.encode() in file.read_bytes()]
    parts.require(not found, f"the key stands in {', '.join(found)}")
    size = sum(file.stat().st_size for file in files)
    yield f"not found in {len(files)} files, {size / 2**20:.0f} MiB: all that was written, and all that was printed"


if __name__ == "__main__":
    sys.exit(main())
