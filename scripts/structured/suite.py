"""Schemas of the JSON Schema test suite, as the source distribution of jsonschema carries it, on the built-in model:
how many can be kept, and whether what is written is valid.

    python -m scripts.synthesis --parts llguidance xgrammar [--schemas 300]

The package is fetched by pip into build/structured and read from there. Two questions are asked of every schema that is
kept: is what the model writes valid, and does its form let through an instance that the suite calls invalid? Instances
that are valid and yet not let through are counted by the reason. Three are on purpose: properties come in the schema's
order, a whole number is written in digits alone (not 1.0 or 1e3), and formats are kept, which validators take for
remarks. xgrammar keeps out more, which is counted as its own. Last, a model that would rather write white space than
anything else is asked for an object, with each rule for white space. It is wrong where an instance is let through that
is invalid, or kept out for another reason, or where capped white space is a trap.
"""

from __future__ import annotations

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
from batchchat.benchmarks.shapes import SHAPES
from batchchat.chats import GrammarBackend, Structure
from batchchat.models.text import load_tokenizer
from batchchat.prompts import TokenizerCodec
from batchchat.recipe.model import ModelSection
from batchchat.scoring.json_patterns import schema_check
from batchchat.structure import refusal
from batchchat.structure.backends import BACKENDS, byte_matchers
from scripts.parts import Unlike, require
from scripts.structured.speed import tokenizer
from scripts.synthesis.job import lines

_PACKAGE = "jsonschema==4.26.0"
_FOLDER = Path(__file__).resolve().parents[2] / "build" / "structured"
_DRAFTS = ("draft2020-12", "draft7")
_SECONDS = 5.0
_MOST_PROPERTIES = 5
_OTHER = "another reason"
_ONE_FIELD = {"type": "object", "properties": {"odd": {"type": "boolean"}}, "required": ["odd"],
              "additionalProperties": False}  # fmt: skip

Group = Mapping[str, Any]
"""A schema with its instances."""


def fetched() -> Path:
    """The package's source distribution."""
    if not (found := sorted(_FOLDER.glob("jsonschema-*.tar.gz"))):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", _PACKAGE]
        done = subprocess.run([*pip, "--dest", str(_FOLDER)], capture_output=True)
        if not (found := sorted(_FOLDER.glob("jsonschema-*.tar.gz"))):
            raise Unlike(
                f"the schemas are in the source distribution of {_PACKAGE}, which pip could not fetch (it ended with "
                f"{done.returncode}): put jsonschema-4.26.0.tar.gz into {_FOLDER}"
            )
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
                print(f"LET THROUGH: {json.dumps(group['schema'])[:300]} {json.dumps(test['data'])[:100]}", flush=True)
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
    if structure.backend == "xgrammar":
        return "a value that xgrammar does not write"
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


def trapped(backend: GrammarBackend, folder: Path, tokens: int, rows: int = 8) -> Mapping[str, int]:
    """By each rule for white space, how many answers it has cut off of a model that favours it."""
    texts = TokenizerCodec(load_tokenizer(ModelSection())).token_texts()
    spaces = [number for number, piece in enumerate(texts.pieces) if piece and not piece.strip(b" \n\t\r")]
    found = {}
    for rule in ("none", "capped", "free"):
        result = answer(
            [{"messages": [{"role": "user", "content": f"Is {number} odd?"}]} for number in range(rows)],
            name=f"spaces-{rule}-{backend}",
            restart=True,
            generation={
                "max_new_tokens": tokens,
                "logit_bias": dict.fromkeys(spaces, 100.0),
                "structured": {"json_schema": _ONE_FIELD, "white_space": rule},
            },
            engine={"kind": "continuous", "grammar_backend": backend},
            sink={"directory": str(folder / "{name}")},
        )
        turns = [row["batchchat"]["turns"][0] for row in lines(result.directory / "outputs.jsonl")]
        found[rule] = sum(turn["structure"] == "cut off" for turn in turns)
    return found


def costs(kept: list[tuple[Group, Structure]], answers: Mapping[str, str]) -> tuple[float, float]:
    """Milliseconds of processor time that a form takes to be read, and a token of an answer to be allowed and taken, in
    a vocabulary like that of English text. `answers` by their schemas."""
    size = SHAPES["135m"]["vocab_size"]
    texts = TokenizerCodec(tokenizer(size)).token_texts()
    matchers = BACKENDS[kept[0][1].backend].matchers(texts, size)
    reading, allowing, tokens = 0.0, 0.0, 0
    for group, structure in kept:
        began = time.process_time()
        matcher = matchers.matcher(structure)
        matchers.allowed([matcher])
        reading += time.process_time() - began
        ids = texts.tokens(answers.get(json.dumps(group["schema"]), "").encode())
        began = time.process_time()
        for token in ids:
            matchers.allowed([matcher])
            matcher.take([token])
        allowing += time.process_time() - began
        tokens += len(ids)
    return 1000 * reading / len(kept), 1000 * allowing / max(1, tokens)


def written(
    kept: list[tuple[Group, Structure]], folder: Path, tokens: int
) -> tuple[Counter[str], Mapping[str, str], float]:
    """What the built-in model writes, its answers by their schemas, and its milliseconds a token."""
    backend = kept[0][1].backend
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
        name=f"suite-{backend}",
        restart=True,
        generation={"max_new_tokens": tokens, "temperature": 1.0},
        engine={"kind": "continuous", "grammar_backend": backend},
        sink={"directory": str(folder / "{name}")},
        max_error_rate=1.0,
    )
    seconds = time.perf_counter() - began
    outputs = lines(result.directory / "outputs.jsonl")
    turns = [row["batchchat"]["turns"][0] for row in outputs]
    for row, turn in zip(outputs, turns, strict=True):
        if turn["structure"] == "invalid":
            print(f"WRONG: {row['generation']} {turn['raw'][:300]!r} {turn['note']}")
    found = Counter(turn["structure"] for turn in turns)
    found["failed"] = len(rows) - len(turns)
    answers = {
        json.dumps(row["generation"]["structured"]["json_schema"]): turn["raw"]
        for row, turn in zip(outputs, turns, strict=True)
    }
    return found, answers, 1000 * seconds / max(1, sum(turn["completion_tokens"] for turn in turns))


def show(backend: GrammarBackend, folder: Path, schemas: int, tokens: int) -> Iterator[str]:
    chosen = list(groups(fetched()))[:schemas]
    kept, reasons = [], Counter[str]()
    for group in chosen:
        structure = Structure("json_schema", json.dumps(group["schema"], ensure_ascii=False), backend=backend)
        reason = refusal(structure)
        if reason is None:
            kept.append((group, structure))
        else:
            reasons[reason.partition(" at #")[0][:110]] += 1
    yield f"{len(chosen)} schemas: {len(kept)} kept, {sum(reasons.values())} refused with a reason"
    for reason, count in reasons.most_common(8):
        yield f"refused {count} times: {reason}"
    judged = instances(kept)
    for state, count in sorted(judged.items()):
        yield f"instances, {state}: {count}"
    found, answers, milliseconds = written(kept, folder, tokens)
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.items()))
    yield f"written by the built-in model: {states}; {milliseconds:.2f} ms a token, loading included"
    reading, allowing = costs(kept, answers)
    yield f"of 49,152 tokens, in processor time: {reading:.1f} ms to read a form, {1000 * allowing:.0f} µs a token"
    trap = trapped(backend, folder, tokens)
    rules = ", ".join(f"{rule} {count}" for rule, count in trap.items())
    yield f"answers cut off of 8 by a model that favours white space, by its rule: {rules}"
    wrong = judged["invalid, let through"] + judged[f"valid, kept out: {_OTHER}"] + found["invalid"]
    require(not wrong, f"{wrong} are wrong: see above")
    require(not trap["capped"], "capped white space is a trap")
