"""What a run and a chat do not import, and that it is still there for who asks: modules, not seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batchchat.models import lean
from batchchat.recipe import Recipe, recipe_from_mapping
from tests.support.jobs import ROOT

LEFT_OUT = {
    "datasets", "pandas", "scipy.optimize", "torch._dynamo", "torch._inductor", "torch.nn.attention.flex_attention",
    "triton",
}  # fmt: skip
"""Of libraries that a text run has no use for."""
FOUND_OUT = {"numba", "scipy", "sympy"}
"""Of those that are of use once: what they find is kept."""

PROGRAM = """
import json, sys
from batchchat.cli import main
try: main()
except SystemExit as exit: code = exit.code
from batchchat.models.lean import _Compiler
really = [name for name, module in sys.modules.items() if not isinstance(module, _Compiler)]
found = {"code": code, "modules": really, "stands in": "torch._dynamo" in sys.modules}

import torch
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.integrations.eager_paged import eager_paged_attention_forward
twice = torch.compile(lambda x: x * 2, backend="eager")
found["compiled"] = twice(torch.ones(2)).tolist()
found["compiler"] = torch._dynamo.__file__

import pandas, pyarrow
found["pandas"] = pyarrow.table({"a": [1, 2]}).to_pandas()["a"].tolist()
from scipy.optimize import linear_sum_assignment
print(json.dumps(found))
"""


def start(*arguments: str, cwd: Path, typed: str = "", program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, input=typed, capture_output=True, text=True)


@pytest.mark.skipif(not lean._are_tried(), reason="these versions of torch and transformers were not tried")
def test_a_run_imports_nothing_that_it_has_no_use_for(tmp_path: Path) -> None:
    words = "run", "builtin:quickstart", "source.limit=2", "--quiet", "--json"
    first = start(*words, cwd=tmp_path, program="from batchchat.cli import main\nmain()")
    assert first.returncode == 0, first.stderr
    done = start(*words, "--restart", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] is None or found["code"] == 0
    assert {"torch", "transformers", "pyarrow"} <= set(found["modules"])
    assert not (LEFT_OUT | FOUND_OUT) & set(found["modules"])
    assert found["stands in"]
    assert found["compiled"] == [2.0, 2.0]
    assert found["compiler"].endswith("__init__.py")
    assert found["pandas"] == [1, 2]


@pytest.mark.skipif(
    not lean._are_tried(), reason="these versions of torch, transformers and bitsandbytes were not tried"
)
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantized_run_compiles_nothing(tmp_path: Path, bits: str) -> None:
    words = "run", "builtin:quickstart", "source.limit=2", f"model.quantization={bits}", "--quiet", "--json"
    done = start(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] is None or found["code"] == 0
    assert "bitsandbytes" in found["modules"]
    assert not {"torch._dynamo", "torch._inductor"} & set(found["modules"])
    assert found["compiled"] == [2.0, 2.0]
    assert "pip install" not in done.stderr


def test_what_is_compiled_later_is_compiled_once_and_as_it_was_asked() -> None:
    asked = []

    def compiler(function: Callable[[int], int], **named: object) -> Callable[[int], int]:
        asked.append(named)
        return lambda number: 10 * function(number)

    later = lean._at_first_call(compiler, lambda number: number + 1, dynamic=False)
    assert asked == []
    assert [later(1), later(2)] == [20, 30]
    assert asked == [{"dynamic": False}]


def recipe(**model: object) -> Recipe:
    return recipe_from_mapping({"name": "a", "model": model, "source": {"path": "-"}})


@pytest.mark.parametrize(
    "model",
    [
        {"adapter": "adapters/mine"},
        {"parallel": "tensor"},
        {"trust_remote_code": True},
        {"attn_implementation": "flex_attention"},
        {"name": "owner/of-the-hub"},
    ],
)
def test_a_model_that_may_need_more_gets_everything(model: dict[str, object]) -> None:
    assert lean._is_plain(recipe().model)
    assert not lean._is_plain(recipe(**model).model)


@pytest.mark.parametrize(
    "words",
    [
        '{"auto_map": {}}',
        '{"quantization_config": {"quant_method": "gptq"}}',
        '{"attn": "flex_attention"}',
    ],
)
def test_a_checkpoint_that_says_so_gets_everything(tmp_path: Path, words: str) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert lean._is_plain(recipe(name=str(tmp_path)).model)
    (tmp_path / "config.json").write_text(words, encoding="utf-8")
    assert not lean._is_plain(recipe(name=str(tmp_path)).model)


def test_all_models_of_a_recipe_are_looked_at() -> None:
    whole = recipe_from_mapping(
        {
            "name": "a",
            "source": {"path": "-"},
            "simulate": {"method": "magpie", "model": {"quantization": "4bit"}},
            "judges": {"quality": {"model": {"quantization": "8bit"}}},
        }
    )
    assert [section.quantization for section in lean._sections(whole)] == ["none", "8bit", "4bit"]


def test_a_model_is_made_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts in memory meanwhile is without memory as soon as it meets what is."""
    import torch
    from torch import nn

    monkeypatch.setitem(sys.modules, "torch._dynamo", lean._Compiler())
    with lean.unfilled(), torch.device("meta"):
        layer = nn.Embedding(4, 3)
        places = torch.arange(4)
        rates = 1.0 / (10.0 ** (torch.arange(0, 6, 2, dtype=torch.float) / 6))
        assert (places + layer.weight[:, 0]).is_meta
        assert (layer.weight * rates).is_meta
    assert layer.weight.is_meta
    assert rates.tolist() == pytest.approx([1.0, 10 ** (-1 / 3), 10 ** (-2 / 3)])


def test_what_is_imported_already_stays_as_it_is() -> None:
    import transformers  # noqa: F401

    before = dict(sys.modules)
    lean.import_lean(recipe())
    assert sys.modules == before
