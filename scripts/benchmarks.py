"""Measures everything that docs/BENCHMARKS.md says, and writes it.

    python -m scripts.benchmarks [--peer NAME=PATH ...] [--only PART ...] [--gpu TABLE]

Each part is one call of `batchchat bench`, whose results are kept in build/benchmarks; parts that were measured before
are measured again only where they are named. The document holds what is there, and at its end the table of `make gpu`
that was put there last.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from batchchat.benchmarks.compare import table
from batchchat.benchmarks.peers import PEERS, peer_paths
from batchchat.benchmarks.products import products_table

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "benchmarks"
DOCUMENT = ROOT / "docs" / "BENCHMARKS.md"
OTHERS = "\n## On a processor with AVX-512 and no units for bfloat16\n"
"""What begins the parts that are measured otherwise or on other machines, and stay as they are."""
GPU = "\n## On a GPU\n"
"""What the table of `make gpu` begins with."""

PARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "engines": (
        "Engines side by side",
        "48 chats of mixed lengths (`mixed48`) on a Llama of 135 million parameters with random weights. `plain` is "
        "`generate` in padded batches of 8 in arrival order; `transformers` is its own continuous batching. All others "
        "have up to 48 requests at once.",
        ("--engines", "plain,pipeline,transformers,continuous,strict", "--rounds", "2"),
    ),
    "padded": (
        "Padded batches of the same size",
        "The pipeline engine beside the plain pipeline, both with batches of 8. `pipeline` plans by prompt lengths "
        "and each row's own limit; `pipeline-unknown` does not know how long answers become and plans by prompts.",
        ("--engines", "plain,pipeline-unknown,pipeline", "--rows", "8"),
    ),
    "larger": (
        "A larger model",
        "The same chats on the shape of Qwen2 with half a billion parameters.",
        ("--model", "0.5b", "--engines", "transformers,continuous,strict"),
    ),
    "shared": (
        "A shared system prompt",
        "64 chats under one system prompt of 1,000 tokens, with 16 tokens for each answer.",
        ("--engines", "continuous", "--workload", "shared-prefix"),
    ),
    "separate": (
        "The same without anything to share",
        "Prompts of the same lengths that differ from their first token on.",
        ("--engines", "continuous", "--workload", "separate-prefixes"),
    ),
    "turns": (
        "Second turns",
        "16 chats of two turns of 300 tokens.",
        ("--engines", "continuous", "--workload", "two-turns"),
    ),
    "drafts": (
        "Speculative decoding",
        "24 answers of 128 tokens, four at once, with a draft made of the model's first three layers, which is right "
        "about four times of five.",
        ("--model", "135m-guessable", "--engines", "continuous,drafted", "--workload", "four", "--rows", "4",
         "--rounds", "3"),
    ),
    "products": (
        "Ways to compute a product",
        "The candidates for each product of the same model, in milliseconds with weights that come from memory; the "
        "one that is taken is the fastest over all numbers of rows. `kernel` reads weights of 16 bits as they are and "
        "sums up in float32. A way that takes four times as long as the best is not tried with more rows (–).",
        ("--products",),
    ),
    "products-float32": (
        "The same in float32",
        "With weights of 32 bits.",
        ("--products", "--dtype", "float32"),
    ),
    "flips-float32": ("", "", ("--flips", "--dtype", "float32")),
    "flips-bfloat16": ("", "", ("--flips", "--dtype", "bfloat16")),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="as of batchchat bench")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=(), help="measure these parts, even again")
    parser.add_argument("--gpu", type=Path, metavar="TABLE", help="measure nothing; put this table at the end")
    options = parser.parse_args()
    text = DOCUMENT.read_text(encoding="utf-8")
    if options.gpu is not None:
        before = text.partition(GPU)[0]
        DOCUMENT.write_text(f"{before}\n{options.gpu.read_text(encoding='utf-8')}", encoding="utf-8")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for name, (_, _, arguments) in PARTS.items():
        file = KEPT / f"{name}.json"
        if name in options.only or (not options.only and not file.exists()):
            print(f"measuring: {name}", flush=True)
            file.write_text(json.dumps(measured(name, arguments, options.peer)), encoding="utf-8")
    DOCUMENT.write_text(document() + "".join(text.partition(OTHERS)[1:]), encoding="utf-8")
    print(f"written: {DOCUMENT}")


def measured(name: str, arguments: tuple[str, ...], peers: list[str]) -> dict[str, Any]:
    if name == "engines" and peers:
        programs = peer_paths(peers)
        engines = (arguments[1], *(engine for engine, peer in PEERS.items() if peer.program in programs))
        given = (part for text in peers for part in ("--peer", text))
        arguments = (arguments[0], ",".join(engines), *arguments[2:], *given)
    command = [sys.executable, "-m", "batchchat", "bench", *arguments, "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if not done.stdout:  # where one engine failed there are the others
        raise SystemExit(done.returncode)
    shown = " ".join(("batchchat bench", *arguments))
    for text in peers:
        shown = shown.replace(text, f"{text.partition('=')[0]}=PATH")
    return {
        "command": shown,
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "found": json.loads(done.stdout),
    }


def machine() -> str:
    import torch

    if torch.cuda.is_available():
        processor = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if platform.system() == "Linux" else []
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        processor = f"{len(names)} cores of {names[0]}" if names else platform.processor()
    return f"{processor}; torch {version('torch')}, transformers {version('transformers')}"


def document() -> str:
    kept = {name: json.loads((KEPT / f"{name}.json").read_text()) for name in PARTS if (KEPT / f"{name}.json").exists()}
    lines = [
        "# Benchmarks",
        "",
        'Written by `make bench`; `make bench PEERS="vllm=PYTHON openvino=PYTHON llama.cpp=PATH"` measures these',
        "beside batchchat's engines, llama.cpp by a Python that has xllamacpp or by a `llama-server` that was built",
        "for this processor. The engines of a table were measured in turns, each in a process of its own, so only",
        "ratios within a table mean something: machines differ, and so does what else they do. `ratio` is to the",
        'first row. "Of the limit" is the least time in which the machine could do the multiplications in the best of',
        "all ways, or read the weights as often as the longest answer has tokens (which nobody knows where there are",
        "drafts), as a share of the time taken.",
    ]
    for name, (title, text, _) in PARTS.items():
        if title and name in kept:
            part = kept[name]
            of_products = "--products" in PARTS[name][2]
            shown = products_table if of_products else table
            lines += ["", f"## {title}", "", text, "", shown(part["found"]), ""]
            lines += [
                *([] if of_products else facts(part["found"])),
                f"`{part['command']}` on {part['machine']}, {part['day']}.",
            ]
    flips = [kept[name] for name in ("flips-float32", "flips-bfloat16") if name in kept]
    if flips:
        lines += ["", "## How often another batch changes an answer", ""]
        lines += [f"- {part['found']['sentence']} (`{part['command']}`)" for part in flips]
    return "\n".join(lines) + "\n"


def facts(results: list[dict[str, Any]]) -> list[str]:
    """What the engines say of the reuse and the drafts that they were measured for."""
    lines = []
    for result in results:
        told = result.get("facts", {})
        if told.get("prompt_tokens_reused"):
            reused = told["prompt_tokens_reused"]
            lines.append(f"{result['engine']}: {reused:,} of the prompts' tokens were taken over from earlier ones.")
        if told.get("drafts"):
            drafts = told["drafts"]
            lines.append(
                f"{result['engine']}: {drafts['acceptance']:.0%} of {drafts['proposed']:,} drafted tokens were right, "
                f"{drafts['tokens_per_step']:.2f} tokens per row and step."
            )
    return [*lines, ""] if lines else []


if __name__ == "__main__":
    main()
