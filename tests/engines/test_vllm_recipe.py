"""Recipes for vLLM: what is refused before it is imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from batchchat.recipe import RecipeError, load_recipe
from tests.support.jobs import Command, scripted_recipe, write_jsonl


def recipe(folder: Path, **sections: Any) -> Path:
    engine = {"kind": "vllm", **sections.pop("engine", {})}
    rows = write_jsonl(folder / "in.jsonl", [{"prompt": "hello"}])
    sections = {"model": {"name": "builtin:tiny-chat"}, **sections}
    sections["model"] = {"name": "builtin:tiny-chat", **sections["model"]}
    return scripted_recipe(folder / "recipe.yaml", rows, engine=engine, **sections)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"model": {"quantization": "4bit"}}, "model.quantization: write engine.vllm.quantization"),
        ({"model": {"draft": {}}}, "speculative_config"),
        ({"model": {"device_map": "cuda:1"}}, "CUDA_VISIBLE_DEVICES"),
        ({"model": {"gguf_file": "m.gguf"}}, "model.gguf_file"),
        ({"model": {"parallel": "tensor"}}, "model.parallel is tensor"),
        ({"generation": {"bad_words": ["x"]}}, "bans tokens and not texts"),
        (
            {"generation": {"structured": {"choice": ["a", "b"]}, "logprobs": 1}},
            "generation.logprobs with generation.structured",
        ),
        (
            {
                "generation": {"structured": {"choice": ["a", "b"]}},
                "engine": {"vllm": {"args": {"speculative_config": {"method": "ngram"}}}},
            },
            "generation.structured with engine.vllm.args: {speculative_config",
        ),
        ({"generation": {"num_beams": 4}}, "generation.num_beams, which is a flag of transformers"),
        ({"engine": {"vllm": {"args": {"max_num_seqs": 4}}}}, "write engine.max_batch_rows"),
        ({"engine": {"vllm": {"tensor_paralel": 2}}}, "did you mean engine.vllm.tensor_parallel?"),
    ],
)
def test_what_vllm_does_not_do_is_refused_at_start(sections: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, **sections))
    assert says in str(caught.value)


def test_strict_is_for_vllm_to_promise(tmp_path: Path) -> None:
    assert load_recipe(recipe(tmp_path, engine={"reproducible": "strict"})).engine.reproducible == "strict"


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_run_says_what_to_install(tmp_path: Path, batchchat: Command) -> None:
    ended = batchchat("run", recipe(tmp_path), "-q")
    assert ended.code == 5
    assert "pip install 'batchchat[vllm]'" in ended.err
