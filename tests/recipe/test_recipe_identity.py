"""Which changes make another job of a recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from batchchat.recipe import recipe_difference, recipe_from_mapping

BASE: dict[str, Any] = {"source": {"path": "a.jsonl"}, "generation": {"temperature": 0.7}}

MAY_CHANGE = [
    "name=other",
    "model.device_map=cpu",
    "model.max_memory={cpu: 1GiB}",
    "model.local_files_only=true",
    "model.cache_dir=x",
    "source.streaming=false",
    "engine.max_batch_rows=1",
    "engine.max_batch_tokens=1",
    "engine.look_ahead=1",
    "engine.scripted.batch_seconds=1",
    "sink.directory=x",
    "sink.formats=[parquet]",
    "sink.timings=true",
    "max_error_rate=0.5",
    "scoring=[exact]",
    "summary.by=category",
    "judges.quality.model.name=x",
    "gates=[errors <= 1%]",
]

MUST_NOT = [
    "model.name=x",
    "model.dtype=float32",
    "model.quantization=4bit",
    "source.path=b.jsonl",
    "source.limit=5",
    "source.seed=1",
    "source.columns.id=key",
    "chat.turns=last",
    "chat.template_kwargs={a: 1}",
    "generation.seed=1",
    "generation.temperature=0.8",
    "generation.num_beams=2",
    "generation.model_defaults=false",
    "engine.kind=scripted",
    "engine.scripted.answer=counting",
]


@pytest.mark.parametrize("override", MAY_CHANGE)
def test_a_resumed_run_may_change_it(override: str) -> None:
    before, after = recipe_from_mapping(BASE), recipe_from_mapping(BASE, [override])
    assert before != after
    assert before.digest() == after.digest()
    assert recipe_difference(before.identity(), after.identity()) == []


@pytest.mark.parametrize("override", MUST_NOT)
def test_a_resumed_run_must_not_change_it(override: str) -> None:
    before, after = recipe_from_mapping(BASE), recipe_from_mapping(BASE, [override])
    assert before.digest() != after.digest()
    (line,) = recipe_difference(before.identity(), after.identity())
    assert override.partition("=")[0] in line


def test_the_difference_reads_well_and_survives_json() -> None:
    before = recipe_from_mapping(BASE, ["generation.logit_bias={5: 1.0}", "generation.stop=[é]"])
    after = recipe_from_mapping(
        BASE, ["generation.temperature=1", "generation.stop=[]", "generation.logit_bias={6: 2}"]
    )
    stored = json.loads(json.dumps(before.identity()))
    assert recipe_difference(stored, before.identity()) == []
    assert recipe_difference(stored, after.identity()) == [
        "generation.temperature: 0.7 -> 1.0",
        'generation.stop: ["é"] -> []',
        "generation.logit_bias.5: 1.0 -> not set",
        "generation.logit_bias.6: not set -> 2.0",
    ]


def test_the_digest_is_the_same_in_another_process() -> None:
    code = (
        "from batchchat.recipe import recipe_from_mapping as r;"
        f"print(r({BASE!r}, ['chat.template_kwargs={{b: 1, a: [é]}}']).digest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == recipe_from_mapping(BASE, ["chat.template_kwargs={a: [é], b: 1}"]).digest()


def test_what_is_equal_has_one_digest_however_it_was_written() -> None:
    one = recipe_from_mapping({"source": {"path": ["a.jsonl"]}, "generation": {"temperature": 1}})
    two = recipe_from_mapping({"source": {"path": "a.jsonl"}, "generation": {"temperature": 1.0, "seed": 0}})
    assert one == two
    assert one.digest() == two.digest()
