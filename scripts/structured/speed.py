"""What a form costs: tokens per second of the continuous engine with and without a schema of 30 fields, in turns.

    python -m scripts.structured.speed --rounds 5

The model has the shape 135m and random weights, and a vocabulary that is cut like a real one: what it writes is noise
in the form of the schema, which is long enough that every answer runs to its limit, so both sides write as much.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from batchchat.benchmarks.contenders import continuous_engine
from batchchat.benchmarks.shapes import SHAPES, shape_model
from batchchat.benchmarks.workloads import equal
from batchchat.chats import Request, Structure
from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed

_END = "<end>"
_SIGNS = (
    '":', '", "', '{"', '"}', '",', '": "', '": ', "},", "\n\n", "\n  ", "  ", "...", '"]', "[]", "true", "null",
)  # fmt: skip
_SYLLABLES = (
    "a", "e", "i", "o", "u", "st", "tr", "en", "on", "er", "al", "in", "re", "th", "ou", "ch", "ing", "ly", "ment",
    "un", "pre", "co", "ed", "s", "t", "l", "m", "n", "p", "r", "k", "d",
)  # fmt: skip


def schema() -> dict[str, Any]:
    """Thirty fields: texts, numbers and names from a list."""
    fields: dict[str, Any] = {}
    for number in range(10):
        fields[f"name_{number}"] = {"type": "string", "minLength": 20, "maxLength": 200}
        fields[f"count_{number}"] = {"type": "integer", "minimum": 0, "maximum": 100_000}
        fields[f"kind_{number}"] = {"enum": ["one", "two", "three", "some other"]}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def tokenizer(size: int) -> Any:
    """One with a vocabulary like that of English text: bytes, numbers, signs in a row, and words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(0)
    letters = {byte: letter for letter, byte in _letters().items()}
    words = [bytes([byte]) for byte in range(256)]
    words += [text.encode() for text in (*_SIGNS, *map(str, range(10, 1000)))]
    known = set(words)
    while len(words) < size - 2:
        word = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 5)))
        word = (" " if rng.random() < 0.6 else "") + (word.capitalize() if rng.random() < 0.1 else word)
        if word.encode() not in known:
            words.append(word.encode())
            known.add(words[-1])
    vocabulary = {"".join(letters[byte] for byte in word): number for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=_END, pad_token="<pad>")


def _letters() -> dict[str, int]:
    """The letters that stand for bytes in such vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


def measure(rows: int, tokens: int, rounds: int, dtype: str, temperature: float) -> dict[str, Any]:
    """Tokens per second of each round, without and with the form; and tokens per second of processor time, of which
    other programs take less."""
    codec = TokenizerCodec(tokenizer(SHAPES["135m"]["vocab_size"]))
    engine = continuous_engine(shape_model("135m", dtype), codec, rows)
    end = codec.tokenizer.eos_token_id
    free = [_with(one, temperature=temperature, stop_token_ids=()) for one in equal(rows, answer=tokens)]
    form = Structure("json_schema", json.dumps(schema()))
    formed = [_with(one, stop_token_ids=(end,), structured=form) for one in free]
    for requests in (free, formed):
        _drain(engine, requests)  # which does not count
    found: dict[str, list[tuple[float, float]]] = {"free": [], "formed": []}
    for number in range(rounds):
        pair = [("free", free), ("formed", formed)]
        for name, requests in pair if number % 2 == 0 else reversed(pair):
            found[name].append(_drain(engine, requests))
            by_clock, by_processor = found[name][-1]
            told = f"{by_clock:.1f} tokens/s, {by_processor:.1f} per second of processor time"
            print(f"round {number + 1}, {name}: {told}", flush=True)
    engine.close()
    pairs = list(zip(found["free"], found["formed"], strict=True))
    costs = {name: [1 - formed[n] / free[n] for free, formed in pairs] for n, name in enumerate(("time", "work"))}
    return {"load": os.getloadavg(), **found, "costs": costs}


def _with(request: Request, **settings: Any) -> Request:
    return replace(request, settings=replace(request.settings, **settings))


def _drain(engine: Any, requests: Sequence[Request]) -> tuple[float, float]:
    began, worked = time.perf_counter(), time.process_time()
    done = list(engine.run(Feed(iter(requests), look_ahead=len(requests))))
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    wrong = [one.error for one in done if one.error is not None]
    assert not wrong, wrong[0]
    assert all(one.finish_reason == "length" for one in done), "an answer ended early, so the sides differ"
    tokens = sum(len(one.token_ids) for one in done)
    return tokens / seconds, tokens / work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96, help="of each answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--temperature", type=float, default=0.0)
    found = measure(**vars(parser.parse_args()))
    for name, costs in found["costs"].items():
        rounds = ", ".join(f"{cost:.1%}" for cost in costs)
        print(f"a form costs {median(costs):.1%} of tokens per second of {name} (rounds: {rounds})")
    print("load of the machine, 1, 5 and 15 minutes: " + ", ".join(f"{one:.1f}" for one in found["load"]))


if __name__ == "__main__":
    main()
