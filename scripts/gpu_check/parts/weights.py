"""Models in fewer bits, and models that lie only in part on the GPU, loaded as a recipe loads them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from batchchat.benchmarks.workloads import equal
from batchchat.chats import Request
from batchchat.engines import EngineContext
from batchchat.engines.continuous import try_build
from batchchat.engines.pipeline import engine as pipeline
from batchchat.models import load_model
from batchchat.recipe import Recipe
from scripts.gpu_check.bench import Bench, Noted
from scripts.gpu_check.findings import Finding, tried
from scripts.gpu_check.parts.answers import answered, worst_gap

_LIKE = {"8bit": 0.97, "4bit": 0.8}
"""The least correlation of logits with those of the whole weights."""


def quantized(bench: Bench) -> Iterator[Finding]:
    if find_spec("bitsandbytes") is None:
        yield Finding("bitsandbytes", {}, note="it is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        codec = _saved(bench, "135m", folder)
        whole: dict[str, Any] = {}
        for quantization in ("none", "8bit", "4bit"):
            model, found, figures = _run(bench, codec, folder, {"quantization": quantization})
            logits = _logits(model, found["asked"])
            if quantization == "none":
                whole = {"logits": logits, "bytes": figures["bytes"]}
                yield tried("none", True, figures)
                continue
            alike = float(torch.corrcoef(torch.stack((logits, whole["logits"])))[0, 1])
            right = alike >= _LIKE[quantization] and figures["bytes"] < whole["bytes"]
            yield tried(quantization, right, {**figures, "like the whole": alike})


def offloaded(bench: Bench) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        codec = _saved(bench, "135m", folder, "float32")
        model, _, figures = _run(bench, codec, folder, {"dtype": "float32"})
        yield tried("all of it", True, figures)
        most = {0: figures["bytes"] * 2 // 5, "cpu": "64GB"} if bench.on_gpu else {"cpu": "8GB"}
        _, theirs, told = _run(bench, codec, folder, {"dtype": "float32", "max_memory": most})
        gap = worst_gap(model, list(theirs["answers"].values()))
        right = gap <= 1e-2 and (not bench.on_gpu or len(told["devices"].split(",")) > 1)
        yield tried("a part of it", right, {**told, "largest gap": gap})


def _saved(bench: Bench, shape: str, folder: str, dtype: str | None = None) -> Any:
    """A model of a shape in a folder; its codec."""
    model, codec = bench.shape(shape, dtype)
    model.save_pretrained(folder)
    codec.tokenizer.save_pretrained(folder)
    return codec


def _run(bench: Bench, codec: Any, folder: str, section: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    recipe = Recipe.model_validate(
        {
            "model": {"name": str(Path(folder)), "dtype": bench.dtype, **section},
            "source": {"path": "-"},
            "engine": {"max_batch_rows": 8, "max_batch_tokens": 4096},
        }
    )
    model = load_model(recipe.model)
    asked: list[Request] = equal(4, 40, bench.pick(16, 4))
    context = EngineContext(recipe, codec, Noted())
    continuous, _ = try_build(model, context)
    engine = continuous or pipeline.build_on(model, context)
    answers, facts = answered(engine, asked), engine.describe()
    engine.close()
    figures = {
        "engine": facts.engine,
        "answers": len(answers),
        "bytes": model.get_memory_footprint(),
        "devices": ", ".join(facts.devices),
    }
    return model, {"asked": asked, "answers": answers}, figures


@torch.inference_mode()
def _logits(model: Any, asked: list[Request]) -> torch.Tensor:
    """Those of the last place of a prompt `[vocabulary]`."""
    ids = torch.tensor([asked[0].prompt_ids], device=model.get_input_embeddings().weight.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu()
    return logits
