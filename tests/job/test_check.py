"""`batchchat check`: what a run would do, seen before a weight is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import GenerationConfig

from tests.support import zoo
from tests.support.jobs import Command, write_jsonl

USER = {"messages": [{"role": "user", "content": "Hello, how are you? </s> {{ 1 + 1 }}"}]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a tokenizer, a template and a config, and weights that no one may read."""
    folder = tmp_path / "model"
    zoo.byte_bpe().save_pretrained(folder)
    llama = zoo.llama()
    llama.config.save_pretrained(folder)
    GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=[1]).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    return folder


def recipe(tmp_path: Path, model: Path, rows: list[Any], **sections: Any) -> Path:
    data = {
        "name": "test",
        "model": {"name": str(model)},
        "source": {"path": str(write_jsonl(tmp_path / "in.jsonl", rows))},
        "sink": {"directory": str(tmp_path / "runs/{name}")},
        **sections,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_the_first_prompt_is_shown_as_text_and_tokens(tmp_path: Path, model: Path, batchchat: Command) -> None:
    path = recipe(tmp_path, model, [USER] * 40, generation={"max_new_tokens": 16})
    ended = batchchat("check", path)
    assert ended.code == 0, ended.err
    assert "40 rows read of 40" in ended.out or "40 rows read" in ended.out
    assert "<|im_start|>user" in ended.out
    assert "⟦<|im_start|>⟧" in ended.out
    assert "⟦</s>⟧" not in ended.out, "text of a message is no special token"
    assert "Batches of these: 2, the largest with 32 rows" in ended.out
    assert not (tmp_path / "runs").exists(), "check writes nothing"


def test_sampling_defaults_that_leak_are_named(tmp_path: Path, model: Path, batchchat: Command) -> None:
    path = recipe(tmp_path, model, [USER], generation={"max_new_tokens": 16})
    ended = batchchat("check", path)
    assert "top_p=0.9 comes from the model's generation config" in ended.out.replace("\n", " ")
    clean = batchchat("check", path, "generation.model_defaults=false")
    assert "generation config" not in clean.out


def test_rows_that_would_fail_are_named_and_decide_the_exit_code(
    tmp_path: Path, model: Path, batchchat: Command
) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 500}]}
    path = recipe(tmp_path, model, [USER, "{broken", long], generation={"max_new_tokens": 16})
    ended = batchchat("check", path, "--json")
    assert ended.code == 3
    result = json.loads(ended.out)
    assert result["rows"] == 3
    places = [place.rpartition(":")[2] for place, _ in result["errors"]]
    assert places == ["2", "3"]
    assert "context of 256 tokens" in result["errors"][1][1]
    assert result["first_tokens"][0][1:] == ["<|im_start|>", True]


def test_only_so_many_rows_are_read(tmp_path: Path, model: Path, batchchat: Command) -> None:
    path = recipe(tmp_path, model, [USER] * 10 + ["{broken"])
    assert batchchat("check", path, "--rows", "10", "generation.max_new_tokens=9").code == 0
    assert batchchat("check", path, "--rows", "11", "generation.max_new_tokens=9").code == 3


def test_a_recipe_mistake_ends_it_at_once(tmp_path: Path, model: Path, batchchat: Command) -> None:
    ended = batchchat("check", recipe(tmp_path, model, [USER], generation={"temprature": 1}))
    assert ended.code == 2
    assert "temperature" in ended.err
