"""A model that the caller has loaded is used as it is, and is afterwards as it was; so is an engine of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from batchchat import Recipe, answer, run
from batchchat.engines.scripted import ScriptedEngine
from batchchat.errors import UsageError
from batchchat.models import resolve_name
from batchchat.prompts import ByteCodec
from batchchat.recipe import recipe_from_mapping
from batchchat.reporting.meters import Meters
from tests.support.jobs import write_jsonl

FOLDER = resolve_name("builtin:tiny-chat")


@pytest.fixture
def loaded() -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    return {"model": model, "tokenizer": AutoTokenizer.from_pretrained(FOLDER)}


def recipe(folder: Path, name: str, **sections: Any) -> Recipe:
    rows = [{"prompt": text} for text in ("What is 2 + 3?", "Say hello.", "Count to four.")]
    base: dict[str, Any] = {
        "name": name,
        "source": {"path": str(write_jsonl(folder / "in.jsonl", rows))},
        "generation": {"max_new_tokens": 12},
        "sink": {"directory": str(folder / "runs/{name}")},
    }
    return recipe_from_mapping({**base, **sections})


def outputs(folder: Path, name: str) -> bytes:
    return (folder / "runs" / name / "outputs.jsonl").read_bytes()


@pytest.mark.parametrize("kind", ["continuous", "pipeline"])
def test_the_answers_are_those_of_the_model_by_name_and_it_is_as_it_was(
    tmp_path: Path, loaded: dict[str, Any], kind: str
) -> None:
    model = loaded["model"].train()
    model.lm_head.eval()
    ids = torch.arange(1, 20)[None]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        logits = model(ids).logits
    engine = {"kind": kind}
    assert run(recipe(tmp_path, "name", engine=engine, model={"dtype": "float32"})).exit_code == 0
    result = run(recipe(tmp_path, "object", engine=engine), **loaded)
    assert outputs(tmp_path, "object") == outputs(tmp_path, "name")
    assert result.report.engine.engine == kind
    assert result.report.about is not None
    assert result.report.about.model == FOLDER
    assert model.training
    assert not model.lm_head.training
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, logits)


def test_it_is_told_from_others_by_its_weights(tmp_path: Path, loaded: dict[str, Any]) -> None:
    named = recipe(tmp_path, "one", model={"name": "step-100"})
    first = run(named, **loaded)
    assert json.loads((tmp_path / "runs/one/manifest.json").read_text())["model"]["name"] == "step-100"
    assert run(named, **loaded).report == first.report, "a finished run is not run again"
    with torch.no_grad():
        next(loaded["model"].parameters()).mul_(1.01)
    with pytest.raises(UsageError, match="model: weights_sha256"):
        run(named, **loaded)
    assert run(named, restart=True, **loaded).exit_code == 0


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"model": {"dtype": "bfloat16"}}, "model.dtype says how a model is loaded"),
        ({"engine": {"kind": "scripted"}}, "engine.kind is scripted, which runs no model"),
        ({"engine": {"replicas": 2}}, "a loaded model is in this process alone"),
    ],
)
def test_what_does_not_go_with_it(
    tmp_path: Path, loaded: dict[str, Any], sections: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(recipe(tmp_path, "none", **sections), **loaded)
    assert not (tmp_path / "runs").exists()


def test_half_of_it_is_refused(tmp_path: Path, loaded: dict[str, Any]) -> None:
    for half in ({"model": loaded["model"]}, {"tokenizer": loaded["tokenizer"]}):
        with pytest.raises(UsageError, match="a loaded model needs its tokenizer"):
            run(recipe(tmp_path, "none"), **half)
    with pytest.raises(UsageError, match="leave one of them out"):
        run(recipe(tmp_path, "none"), engine=lambda context: None, **loaded)  # type: ignore[arg-type,return-value]


def test_chats_from_memory_by_a_loaded_model(tmp_path: Path, loaded: dict[str, Any]) -> None:
    sink = {"directory": str(tmp_path / "runs/{name}")}
    found = answer(["What is 2 + 3?"], name="memory", generation={"max_new_tokens": 8}, sink=sink, **loaded)
    (row,) = found.rows()
    assert "5" in row["messages"][-1]["content"]


def test_an_engine_that_is_there_already_is_run_again(tmp_path: Path) -> None:
    class Mine(ScriptedEngine):
        closed = False

        def close(self) -> None:
            self.closed = True

    engine = Mine(ByteCodec(), Meters(), answer="text", text="mine")
    for name in ("first", "second"):
        result = run(recipe(tmp_path, name, engine={"kind": "scripted"}, model={"name": "scripted"}), engine=engine)
        assert [row["messages"][-1]["content"] for row in result.rows()] == ["mine"] * 3
        assert result.report.missing["session"] == "the engine does not say what it computed"
    assert not engine.closed
