"""`batchchat plan`: memory, rows and tokens of a job, before a weight is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.engines.facts import EngineFacts
from batchchat.reporting.report import Session
from batchchat.reporting.speeds import remember_speed
from tests.support import zoo
from tests.support.architectures import OF_OTHER_KINDS
from tests.support.jobs import Command, write_jsonl
from tests.support.published import LLAMA_8B, MIXTRAL


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a tokenizer, the config of a large model, and weights that no one may read."""
    folder = tmp_path / "model"
    zoo.byte_bpe().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**LLAMA_8B.to_dict(), "dtype": "bfloat16"}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"not weights")
    return folder


@pytest.fixture
def recipe(tmp_path: Path, model: Path) -> Path:
    rows = [{"turns": ["How many letters?", "And in café?"][: 1 + n % 2]} for n in range(200)]
    data = {
        "name": "test",
        "model": {"name": str(model)},
        "source": {"path": str(write_jsonl(tmp_path / "in.jsonl", rows))},
        "generation": {"max_new_tokens": 100, "samples": 2},
        "sink": {"directory": str(tmp_path / "runs/{name}")},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def planned(batchchat: Command, *args: Any) -> Any:
    ended = batchchat("plan", *args, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_a_plan_tells_memory_rows_and_tokens(recipe: Path, batchchat: Command) -> None:
    plan = planned(batchchat, recipe, "--memory", "24GiB")
    assert plan["shape"]["parameters"] == 8_030_261_248
    assert plan["weights"] == 2 * 8_030_261_248
    assert plan["cache_per_token"] == 131_072
    assert plan["cache_per_row"] == 131_072 * (plan["prompt_tokens"] + 100)
    assert plan["cache_formats"]["8bit"] == 65_536
    assert plan["memory"]["total"] == sum(
        plan["memory"][part] for part in ("weights", "cache", "activations", "logits")
    )
    rows = {option["weights"]: option["rows"] for option in plan["options"]}
    assert 0 < rows["bfloat16"] < rows["8bit"] < rows["4bit"]
    tokens = plan["tokens"]
    assert (tokens["sampled_turns"], tokens["turns"], tokens["generated"]) == (300, 600, 60_000)
    assert tokens["longest_prompt"] > 100, "a later turn's prompt holds the earlier answer"
    assert plan["seconds"] is None
    assert "not known" in plan["missing"]["seconds"]
    assert not (recipe.parent / "runs").exists(), "plan writes nothing"


def test_it_is_printed_as_tables(recipe: Path, batchchat: Command) -> None:
    ended = batchchat("plan", recipe, "--memory", "24GiB")
    assert ended.code == 0
    for words in ("8,030,261,248", "15.0 GiB (bfloat16)", "rows that fit", "at most 60,000"):
        assert words in ended.out


def test_more_devices_hold_more(recipe: Path, batchchat: Command) -> None:
    one = planned(batchchat, recipe, "--memory", "24GiB")
    two = planned(batchchat, recipe, "--memory", "24GiB", "--memory", "24GiB")
    assert len(two["devices"]) == 2
    assert sum(part["share"] for part in two["devices"]) == pytest.approx(1.0, abs=0.001)
    assert two["rows"] > 1.5 * one["rows"]


def test_a_model_that_does_not_fit_ends_with_5(recipe: Path, batchchat: Command) -> None:
    ended = batchchat("plan", recipe, "--memory", "12GiB")
    assert ended.code == 5
    assert "on no device" in ended.out
    assert planned(batchchat, recipe, "model.quantization=4bit", "--memory", "12GiB")["rows"] > 0


def test_experts_are_told_apart(recipe: Path, model: Path, batchchat: Command) -> None:
    (model / "config.json").write_text(json.dumps({**MIXTRAL.to_dict(), "dtype": "bfloat16"}), encoding="utf-8")
    ended = batchchat("plan", recipe, "--memory", "141GiB")
    assert "12,879,925,248 (2 of 8 experts)" in ended.out


def test_a_known_speed_gives_the_time(recipe: Path, model: Path, batchchat: Command) -> None:
    engine = EngineFacts(engine="pipeline", dtype="bfloat16")
    remember_speed(str(model), "none", engine, Session(turns=9, generated_tokens=5000, generated_tokens_per_second=120))
    assert planned(batchchat, recipe, "--memory", "24GiB")["seconds"] == pytest.approx(500.0)


def test_what_cannot_be_planned(recipe: Path, batchchat: Command) -> None:
    ended = batchchat("plan", recipe, "--memory", "large")
    assert ended.code == 2
    assert "such as 80GiB" in ended.err
    ended = batchchat("plan", recipe, "model.name=scripted", "engine.kind=scripted")
    assert ended.code == 2
    assert "no model" in ended.err


def test_a_draft_takes_its_weights_and_its_cache(tmp_path: Path, recipe: Path, batchchat: Command) -> None:
    small = tmp_path / "small"
    zoo.byte_bpe().save_pretrained(small)
    config = {**LLAMA_8B.to_dict(), "num_hidden_layers": 4, "dtype": "bfloat16"}
    (small / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (small / "model.safetensors").write_bytes(b"not weights")
    alone = planned(batchchat, recipe, "--memory", "24GiB")
    beside = planned(batchchat, recipe, "--memory", "24GiB", f"model.draft.name={small}")
    assert alone["draft"] is None
    assert beside["draft"]["cache_per_token"] == 131_072 // 8
    assert 3e9 < beside["draft"]["weights"] < 4.3e9
    assert 0 < beside["rows"] < alone["rows"]
    looked_up = planned(batchchat, recipe, "--memory", "24GiB", "model.draft.name=prompt")
    assert (looked_up["draft"], looked_up["rows"]) == (None, alone["rows"])
    shown = batchchat("plan", recipe, "--memory", "24GiB", f"model.draft.name={small}")
    assert "on the first device" in " ".join(shown.out.split())


def test_the_copy_for_a_processor_takes_memory_from_the_rows(recipe: Path, batchchat: Command) -> None:
    small = ("model.name=builtin:tiny-chat", "model.device_map=cpu", "model.dtype=bfloat16")
    cpu = (*small, "model.max_memory={cpu: 64MiB}")
    packed, plain = (planned(batchchat, recipe, *cpu, f"engine.kind={kind}") for kind in ("continuous", "pipeline"))
    norms = 13 * 192
    assert packed["packed"] == packed["weights"] - 2 * norms  # the embedding is the output layer too
    assert plain["packed"] == 0
    assert 0 < packed["rows"] < plain["rows"]
    assert "packed weights" in batchchat("plan", recipe, *cpu).out
    assert planned(batchchat, recipe, *small, "model.max_memory={cpu: 12MiB}")["packed"] == 0
    assert planned(batchchat, recipe, *cpu, "model.quantization=4bit")["packed"] == 0


@pytest.mark.parametrize(("name", "cache", "state"), [("mamba", 0, 1536), ("gemma4", 96, 0), ("rwkv", 0, 0)])
def test_a_model_of_another_kind_is_planned(
    recipe: Path, model: Path, batchchat: Command, name: str, cache: int, state: int
) -> None:
    """Without heads, with heads of each layer, and with a cache that no one can tell."""
    config = next(a for a in OF_OTHER_KINDS if a.name.startswith(name)).config()
    (model / "config.json").write_text(json.dumps({**config.to_dict(), "dtype": "float32"}), encoding="utf-8")
    plan = planned(batchchat, recipe, "--memory", "24GiB")
    assert (plan["cache_per_token"], plan["shape"]["state"]) == (4 * cache, state)
    assert plan["rows"] > 0
    assert ("cache" in plan["missing"]) == (name == "rwkv")
    printed = batchchat("plan", recipe, "--memory", "24GiB")
    assert printed.code == 0
    assert ("cannot be told" in printed.out) == (name == "rwkv")
