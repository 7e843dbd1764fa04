"""Schemas of the JSON Schema test suite, as the source distribution of jsonschema carries it, on the built-in model:
how many can be kept, and whether what is written is valid.

    python -m scripts.structured.suite --schemas 300

The package is fetched by pip into build/structured and read from there. Two questions are asked of every schema that is
kept: is what the model writes valid, and does its form let through an instance that the suite calls invalid? Instances
that are valid and yet not let through are counted apart: properties come in the schema's order, and formats are kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batchchat import answer
from batchchat.chats import Structure
from batchchat.scoring.json_patterns import schema_check
from batchchat.structure import refusal
from batchchat.structure.by_llguidance import byte_matchers

_PACKAGE = "jsonschema==4.26.0"
_FOLDER = Path(__file__).resolve().parents[2] / "build" / "structured"
_DRAFTS = ("draft2020-12", "draft7")
_SECONDS = 5.0

Group = Mapping[str, Any]
"""A schema with its instances."""


def fetched() -> Path:
    """The package's source distribution."""
    if not (found := sorted(_FOLDER.glob("jsonschema-*.tar.gz"))):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", _PACKAGE]
        subprocess.run([*pip, "--dest", str(_FOLDER)], check=True)
        found = sorted(_FOLDER.glob("jsonschema-*.tar.gz"))
    return found[0]


def groups(package: Path) -> Iterator[Group]:
    """The suite's schemas that are objects, each once, those of the newer draft first."""
    seen = set()
    with tarfile.open(package) as archive:
        names = archive.getnames()
        for draft in _DRAFTS:
            for name in sorted(name for name in names if f"/json/tests/{draft}/" in name and name.endswith(".json")):
                file = archive.extractfile(name)
                assert file is not None
                for group in json.load(file):
                    key = json.dumps(group["schema"])
                    if isinstance(group["schema"], dict) and key not in seen:
                        seen.add(key)
                        yield group


def let_through(structure: Structure, instance: Any) -> bool:
    """Whether the form allows an instance, written as Python writes JSON."""
    matcher = byte_matchers().matcher(structure)
    return matcher.take(json.dumps(instance, ensure_ascii=False).encode()) and matcher.may_end


def instances(kept: list[tuple[Group, Structure]]) -> Counter[str]:
    """What the forms make of the suite's instances."""
    found: Counter[str] = Counter()
    for group, structure in kept:
        mistakes = schema_check(group["schema"], _SECONDS, ecmascript=True)
        for test in group["tests"]:
            try:
                valid = not any(mistakes(test["data"]))
            except Exception:  # a reference to another document, say
                found["not judged"] += 1
                continue
            through = let_through(structure, test["data"])
            found[f"{'valid' if valid else 'invalid'}, {'let through' if through else 'kept out'}"] += 1
            if through and not valid:
                print(f"LET THROUGH: {json.dumps(group['schema'])[:300]} {json.dumps(test['data'])[:100]}")
    return found


def written(kept: list[tuple[Group, Structure]], folder: Path, tokens: int) -> tuple[Counter[str], float]:
    """What the built-in model writes, and its milliseconds a token."""
    rows = [
        {
            "messages": [{"role": "user", "content": "Write some JSON."}],
            "generation": {"structured": {"json_schema": group["schema"]}},
        }
        for group, _ in kept
    ]
    began = time.perf_counter()
    result = answer(
        rows,
        name="suite",
        restart=True,
        generation={"max_new_tokens": tokens, "temperature": 1.0},
        sink={"directory": str(folder / "{name}")},
        max_error_rate=1.0,
    )
    seconds = time.perf_counter() - began
    lines = (result.directory / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
    outputs = [json.loads(line) for line in lines]
    turns = [row["batchchat"]["turns"][0] for row in outputs]
    for row, turn in zip(outputs, turns, strict=True):
        if turn["structure"] == "invalid":
            print(f"WRONG: {row['generation']} {turn['raw'][:300]!r} {turn['note']}")
    found = Counter(turn["structure"] for turn in turns)
    found["failed"] = len(rows) - len(turns)
    return found, 1000 * seconds / max(1, sum(turn["completion_tokens"] for turn in turns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemas", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer at most")
    options = parser.parse_args()
    _FOLDER.mkdir(parents=True, exist_ok=True)
    chosen = list(groups(fetched()))[: options.schemas]
    kept, reasons = [], Counter[str]()
    for group in chosen:
        structure = Structure("json_schema", json.dumps(group["schema"], ensure_ascii=False))
        reason = refusal(structure)
        if reason is None:
            kept.append((group, structure))
        else:
            reasons[reason[:110]] += 1
    print(f"{len(chosen)} schemas: {len(kept)} kept, {sum(reasons.values())} refused")
    for reason, count in reasons.most_common():
        print(f"  {count:4} {reason}")
    print(f"instances: {dict(instances(kept))}")
    found, milliseconds = written(kept, _FOLDER, options.tokens)
    print(f"written by the built-in model: {dict(found)}; {milliseconds:.2f} ms a token, loading included")


if __name__ == "__main__":
    main()
