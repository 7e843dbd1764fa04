"""Schemas of the JSON Schema test suite, as the source distribution of jsonschema carries it, on the built-in model:
how many can be kept, and whether what is written is valid.

    python -m scripts.structured.suite --schemas 300

The package is fetched by pip into build/structured and read from there. Two questions are asked of every schema that is
kept: is what the model writes valid, and does its form let through an instance that the suite calls invalid? Instances
that are valid and yet not let through are counted by the reason. Three are on purpose: properties come in the schema's
order, a whole number is written in digits alone (not 1.0 or 1e3), and formats are kept, which validators take for
remarks. Ends with 1 where an instance is let through that is invalid, or kept out for another reason.
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
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from batchchat import answer
from batchchat.chats import Structure
from batchchat.scoring.json_patterns import schema_check
from batchchat.structure import refusal
from batchchat.structure.backends import byte_matchers

_PACKAGE = "jsonschema==4.26.0"
_FOLDER = Path(__file__).resolve().parents[2] / "build" / "structured"
_DRAFTS = ("draft2020-12", "draft7")
_SECONDS = 5.0
_MOST_PROPERTIES = 5
_OTHER = "another reason"

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
    matcher = byte_matchers(structure.backend).matcher(structure)
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
            why = f": {kept_out_for(structure, test['data'])}" if valid and not through else ""
            found[f"{'valid' if valid else 'invalid'}, {'let through' if through else 'kept out'}{why}"] += 1
            if through and not valid:
                print(f"LET THROUGH: {json.dumps(group['schema'])[:300]} {json.dumps(test['data'])[:100]}")
    return found


def kept_out_for(structure: Structure, instance: Any) -> str:
    """Why a valid instance is not let through."""
    if any(let_through(structure, one) for one in _reordered(instance)):
        return "another order of properties"
    if let_through(structure, _whole_numbers(instance)):
        return "a whole number that is not written in digits alone"
    plain = {name: value for name, value in json.loads(structure.text).items() if name != "format"}
    if let_through(replace(structure, text=json.dumps(plain)), instance):
        return "a format"
    print(f"KEPT OUT: {structure.text[:300]} {json.dumps(instance)[:100]}")
    return _OTHER


def _reordered(instance: Any) -> Iterator[Any]:
    if isinstance(instance, dict) and len(instance) <= _MOST_PROPERTIES:
        yield from (dict(pairs) for pairs in permutations(instance.items()))


def _whole_numbers(instance: Any) -> Any:
    """The same value, its whole numbers as digits."""
    if isinstance(instance, list):
        return [_whole_numbers(one) for one in instance]
    return int(instance) if isinstance(instance, float) and instance.is_integer() else instance


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


def main() -> int:
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
    judged = instances(kept)
    print("instances:")
    for state, count in sorted(judged.items()):
        print(f"  {count:4} {state}")
    found, milliseconds = written(kept, _FOLDER, options.tokens)
    print(f"written by the built-in model: {dict(found)}; {milliseconds:.2f} ms a token, loading included")
    wrong = judged["invalid, let through"] + judged[f"valid, kept out: {_OTHER}"] + found["invalid"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
