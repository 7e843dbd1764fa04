"""Memory told from a config: checked against published models, against loaded ones, and against a process's peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
)

from batchchat.errors import UsageError
from batchchat.models import load_model
from batchchat.models.facts import model_facts
from batchchat.models.memory import Batch, batch_memory, cache_bytes, rows_that_fit, weight_bytes
from batchchat.models.placement import Device, parse_bytes, place_weights
from batchchat.models.shape import ModelShape, empty_like, empty_model, shape_of
from batchchat.recipe.schema import ModelSection
from tests.support import zoo
from tests.support.architectures import OF_OTHER_KINDS
from tests.support.jobs import ROOT
from tests.support.published import LLAMA_8B, MIXTRAL, QWEN_72B


@pytest.mark.parametrize(
    ("config", "parameters", "active", "cache_per_token"),
    [
        (LLAMA_8B, 8_030_261_248, 8_030_261_248, 131_072),
        (QWEN_72B, 72_706_203_648, 72_706_203_648, 327_680),
        (MIXTRAL, 46_702_792_704, 12_879_925_248, 131_072),
    ],
    ids=["Llama-3.1-8B", "Qwen2.5-72B", "Mixtral-8x7B"],
)
def test_published_models(config: PreTrainedConfig, parameters: int, active: int, cache_per_token: int) -> None:
    shape = shape_of(empty_model(config))
    assert shape.parameters == parameters
    assert shape.active_parameters == active
    assert weight_bytes(shape, 2) == 2 * parameters
    assert cache_bytes(shape, 1, 2) == cache_per_token
    assert cache_bytes(shape, 8192, 2) == 8192 * cache_per_token


def test_fused_experts_are_not_quantized_and_dense_models_are() -> None:
    dense, experts = shape_of(empty_model(LLAMA_8B)), shape_of(empty_model(MIXTRAL))
    assert weight_bytes(dense, 2, "4bit") < 0.4 * weight_bytes(dense, 2)
    assert weight_bytes(dense, 2, "4bit", double=True) < weight_bytes(dense, 2, "4bit")
    assert weight_bytes(experts, 2, "4bit") > 0.95 * weight_bytes(experts, 2)


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.filterwarnings("default")  # bitsandbytes speaks of the casts that it makes on a CPU
def test_weights_take_what_was_planned(tmp_path: Path, quantization: str) -> None:
    zoo.llama(seed=3).save_pretrained(tmp_path)
    section = ModelSection.model_validate({"name": str(tmp_path), "quantization": quantization, "dtype": "bfloat16"})
    model = load_model(section)
    planned = weight_bytes(shape_of(empty_like(model)), 2, quantization)
    scales = {"none": 0, "8bit": 4 * shape_of(empty_like(model)).linear_rows, "4bit": planned // 8}[quantization]
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    assert model.get_memory_footprint() - buffers == pytest.approx(planned, abs=scales)


def test_the_cache_keeps_what_was_planned() -> None:
    config = Gemma3TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    cache = DynamicCache(config=config)
    with torch.no_grad():
        model(torch.ones(2, 40, dtype=torch.long), past_key_values=cache)
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    planned = 2 * shape_of(empty_like(model)).cache_numbers(40)
    assert kept == pytest.approx(planned, rel=0.04), "a sliding layer keeps one token less than its window"
    assert planned < 2 * 40 * shape_of(empty_like(model)).cache_numbers(1)


def test_layers_of_every_kind_keep_what_was_planned() -> None:
    """Heads that differ, keys that layers share, windows, and states that do not grow."""
    for architecture in OF_OTHER_KINDS:
        model = architecture.model()
        shape = shape_of(empty_like(model))
        with torch.no_grad():
            out = model(torch.ones(1, 60, dtype=torch.long), use_cache=True)
        cache = out.cache_params if "cache_params" in out else out.get("past_key_values")
        if cache is None:
            assert architecture.name == "rwkv"
            assert "cache" in shape.missing
            continue
        growing = sum(
            one.keys.numel() + one.values.numel()
            for one in cache.layers
            if hasattr(one, "keys") and one.keys is not None
        )
        states = [
            getattr(one, kind, None) or {} for one in cache.layers for kind in ("conv_states", "recurrent_states")
        ]
        assert shape.state == sum(one.numel() for each in states for one in each.values() if one is not None)
        assert growing == pytest.approx(shape.cache_growth(60), rel=0.04), architecture.name


def test_facts_that_cannot_be_had_are_absent_with_the_reason() -> None:
    kinds = {architecture.name: architecture for architecture in OF_OTHER_KINDS}
    rwkv = model_facts(kinds["rwkv"].model())
    assert rwkv.cache_bytes_per_token is None
    assert "without computing" in rwkv.missing["cache_bytes_per_token"]
    assert rwkv.flops_per_token is not None
    mamba = model_facts(kinds["mamba"].model())
    assert (mamba.cache_bytes_per_token, mamba.flops_per_context_token, mamba.missing) == (0, 0.0, {})
    assert mamba.state_bytes_per_row == 4 * 2 * 64 * (4 + 8)


def test_a_model_that_cannot_be_built_anew_is_described_all_the_same() -> None:
    class Stubborn(LlamaForCausalLM):
        def __init__(self, config: LlamaConfig):
            if hasattr(config, "built"):
                raise RuntimeError("once only")
            super().__init__(config)
            self.config.built = True

    facts = model_facts(Stubborn(zoo.llama().config.__class__(**zoo.llama().config.to_dict())))
    assert facts.parameters == zoo.llama().num_parameters()
    assert facts.flops_per_token is None
    assert "once only" in facts.missing["flops_per_token"]


def test_rows_fit_up_to_the_room_and_no_further() -> None:
    shape = shape_of(empty_model(LLAMA_8B))
    weights = weight_bytes(shape, 2)
    room = 72 * 2**30
    rows = rows_that_fit(shape, 1000, 500, room - weights, 2)
    assert rows > 100
    assert batch_memory(shape, Batch(rows, 1000, 500), weights, 2).total <= room
    assert batch_memory(shape, Batch(rows + 1, 1000, 500), weights, 2).total > room
    assert rows_that_fit(shape, 1000, 500, -1, 2) == 0


def test_weights_are_placed_over_devices() -> None:
    model = empty_model(QWEN_72B)
    shape = shape_of(model)
    weights = weight_bytes(shape, 2)
    devices = [Device(f"device {n}", 72 * 2**30) for n in range(4)]
    places, left_over = place_weights(model, devices, weights)
    assert left_over == 0
    assert sum(size for size, _ in places) == pytest.approx(weights, rel=0.001)
    assert sum(share for _, share in places) == pytest.approx(1.0)
    assert all(size <= 72 * 2**30 for size, _ in places)
    _, left_over = place_weights(model, devices[:1], weights)
    assert left_over == weights - 72 * 2**30
    assert place_weights(model, devices[:2], weight_bytes(shape, 2, "4bit"))[1] == 0


def test_amounts_of_memory() -> None:
    assert parse_bytes("80GiB") == 80 * 2**30
    assert parse_bytes("1.5 gb") == 1_500_000_000
    assert parse_bytes(4096) == 4096
    with pytest.raises(UsageError, match="such as 80GiB"):
        parse_bytes("much")
    for text in ("24", "1.5 "):
        with pytest.raises(UsageError, match=f"without a unit; write it with one, such as {text.strip()}GiB"):
            parse_bytes(text)


_MEASURED = """
import json, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from tests.support import zoo
from tests.support.architectures import OF_OTHER_KINDS
from transformers import AutoModelForCausalLM
from tests.support.engines import padded
from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def run(model, rows, prompt, answer):
    engine = padded(model, zoo.Clock(), codec, max_rows=rows, max_tokens=10**9)
    ids = [tuple((7 * row + place) % 400 + 5 for place in range(prompt)) for row in range(rows)]
    requests = [zoo.request(row, ids[row], max_new_tokens=answer) for row in range(rows)]
    done = list(engine.run(Feed(iter(requests), look_ahead=rows)))
    assert all(completion.error is None for completion in done)

codec = TokenizerCodec(zoo.byte_bpe())
run(zoo.llama(), 2, 20, 3)  # what a first call brings along is no part of the batch
before = resident("VmRSS")
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype="auto").eval()
run(model, 1, 5, 2)  # weights are mapped and come into memory when they are used
Path("/proc/self/clear_refs").write_text("5")
run(model, *map(int, sys.argv[3:6]))
print(json.dumps(resident("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a process's peak is read as Linux gives it")
@pytest.mark.parametrize(
    ("key_value_heads", "intermediate", "batch"),
    [(8, 1024, Batch(16, 400, 3)), (2, 2048, Batch(12, 500, 3))],
    ids=["many key heads", "few key heads"],
)
def test_a_planned_peak_is_the_measured_one(
    tmp_path: Path, key_value_heads: int, intermediate: int, batch: Batch
) -> None:
    config = LlamaConfig(
        vocab_size=32000, hidden_size=512, intermediate_size=intermediate, num_attention_heads=8, num_hidden_layers=4,
        num_key_value_heads=key_value_heads, initializer_range=0.2, bos_token_id=0, eos_token_id=1,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    shape: ModelShape = shape_of(empty_like(model))
    planned = batch_memory(shape, batch, weight_bytes(shape, 4), 4)
    sizes = [str(size) for size in (batch.rows, batch.prompt, batch.answer)]
    command = [sys.executable, "-c", _MEASURED, str(ROOT), str(tmp_path), *sizes]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back, as the peak counts it
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout.splitlines()[-1])
    print(f"planned {planned.total:,} measured {measured:,} ratio {planned.total / measured:.3f} {planned}")
    assert planned.total == pytest.approx(measured, rel=0.10)
