"""Answers in a form: masks are made on the host and cut logits on the device."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from batchchat.benchmarks.contenders import continuous_engine
from batchchat.benchmarks.worker import load
from batchchat.chats import Request, Settings, Structure
from batchchat.structure import agreement
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding, tried
from scripts.gpu_check.parts.answers import Answers, answered, differing

_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kinds": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 2},
    },
    "required": ["name", "kinds"],
    "additionalProperties": False,
}


def run(bench: Bench) -> Iterator[Finding]:
    model, codec = load("builtin:tiny-chat", "float32")
    form = Structure("json_schema", json.dumps(_SCHEMA), "none")
    prompt = codec.encode_text("Name some animals.")
    kinds = (form, form, None)
    asked = [_request(n, prompt, codec.eos_token_ids, kinds[n % 3]) for n in range(bench.pick(96, 6))]
    found: list[Answers] = []
    for rows in (bench.pick(32, 4), bench.pick(8, 2)):
        engine = continuous_engine(model, codec, rows, reproducible="strict")
        found.append(answered(engine, asked))
        engine.close()
    states = Counter(
        agreement(form, done.text, cut=done.finish_reason == "length").state
        for done in found[0].values()
        if done.request.settings.structured is not None
    )
    yield tried("answers in a form", not states["invalid"] and states["valid"] > 0, dict(states))
    others = differing(*found)
    yield tried("the same among fewer rows", not others, {"differ": others})


def _request(number: int, prompt: tuple[int, ...], ends: tuple[int, ...], form: Structure | None) -> Request:
    settings = Settings(max_new_tokens=64, temperature=1.0, stop_token_ids=ends, structured=form)
    return Request(f"chat-{number}", number, 0, 0, prompt, settings, seed=number)
