"""Products with weights that bitsandbytes quantized are what bitsandbytes computes, and faster kernels compute them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from batchchat.engines.base import EngineConfig, EngineContext
from batchchat.engines.continuous import try_build
from batchchat.engines.continuous.acceleration import QUANTIZED
from batchchat.engines.continuous.admission.batch_invariance import rows_are_independent
from batchchat.engines.continuous.admission.self_check import self_check
from batchchat.engines.continuous.passes import pass_sizes
from batchchat.engines.cpu import preparation, quantizing
from batchchat.engines.cpu.kernels.processor import LEVELS, levels
from batchchat.engines.cpu.preparation import prepare
from batchchat.engines.cpu.quantized import QuantizedProduct, weight_of
from batchchat.engines.rounding import logit_differences
from batchchat.models.quantized import correct_4_bits
from batchchat.prompts import TokenizerCodec
from batchchat.recipe import Recipe
from batchchat.schedule import Feed
from tests.support.engines import continuous
from tests.support.jobs import ROOT
from tests.support.quantized import THRESHOLD, by_definition, in_4_bits, in_8_bits
from tests.support.zoo import Clock, byte_bpe, request

pytestmark = pytest.mark.filterwarnings("ignore:MatMul8bitLt")
IDS = torch.arange(5, 40)[None]
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 3e-3}
"""What rounding may explain, of the largest number that comes out; bitsandbytes' own 1 / 127 ** 2 is off by 2e-5."""


def linear(size: int, outputs: int, bias: bool = True, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(size * outputs)
        return torch.nn.Linear(size, outputs, bias).to(dtype)


def numbers(rows: int, size: int, dtype: torch.dtype, outliers: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    found = torch.randn(rows, size, generator=generator).clamp(-5, 5)
    for n in range(outliers):
        found[n % rows, (7 * n) % size] = (8, -60000, 6, 300)[n % 4]
    return found.to(dtype)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).abs().amax() / wanted.std().clamp_min(1e-6))


@st.composite
def layers(draw: st.DrawFn) -> tuple[Any, torch.Tensor]:
    """A layer, and rows for it."""
    dtype = draw(st.sampled_from((torch.float32, torch.bfloat16, torch.float16)))
    size, outputs = draw(st.integers(2, 200) | st.sampled_from((64, 128, 576))), draw(st.integers(2, 40))
    plain = linear(size, outputs, draw(st.booleans()), dtype)
    rows = numbers(draw(st.integers(1, 12)), size, dtype, draw(st.integers(0, 6)))
    if draw(st.booleans()):
        return in_8_bits(plain, draw(st.sampled_from((THRESHOLD, 2.5)))), rows
    kind, nested = draw(st.sampled_from(("nf4", "fp4"))), draw(st.booleans())
    return in_4_bits(plain, kind, draw(st.sampled_from((32, 64, 256, 4096))), nested, torch.bfloat16), rows


@given(case=layers())
@settings(max_examples=40, deadline=None)
def test_products_are_what_their_definition_says(case: tuple[Any, torch.Tensor]) -> None:
    layer, rows = case
    found = QuantizedProduct([weight_of(layer)])(rows)
    assert found.dtype == rows.dtype
    for row, own in zip(rows, found, strict=True):  # by themselves: large numbers would hide the others
        wanted = by_definition(layer, row[None])[0]
        limit = CLOSE[rows.dtype] + (CLOSE[torch.bfloat16] if "4bit" in type(layer).__name__ else 0)
        assert float((own.double() - wanted).abs().amax()) <= limit * float(wanted.abs().amax()) + 1e-5


def test_a_number_halfway_between_two_is_rounded_as_by_bitsandbytes() -> None:
    """Its factor is made by a reciprocal: a division would round it to the other side."""
    rows = numbers(11, 200, torch.float32)[:1]
    factor = 127 / rows.half().abs().amax().float()
    assert (((rows.half() * factor) % 1).sub(0.5).abs() < 1e-5).any()
    layer = in_8_bits(linear(200, 2, dtype=torch.float32))
    wanted = by_definition(layer, rows)
    assert float((QuantizedProduct([weight_of(layer)])(rows).double() - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_every_set_of_instructions_gives_the_same_numbers(level: Any) -> None:
    """Those of this processor's are tried; AVX-512 has the narrower ones too."""
    best = levels()[0]
    if LEVELS.index(level) < LEVELS.index(best) or (
        level.name == "avx2-vnni" and best.name not in ("amx", "avx512-vnni")
    ):
        pytest.skip(f"this processor has no {level.name}")
    rows = numbers(7, 128, torch.bfloat16, outliers=3)
    for layer in (in_8_bits(linear(128, 20)), in_4_bits(linear(128, 20))):
        found = QuantizedProduct([weight_of(layer)], level)(rows)
        for row, own in zip(rows, found, strict=True):
            wanted = by_definition(layer, row[None])[0]
            assert float((own.double() - wanted).abs().amax()) <= 0.01 * float(wanted.abs().amax())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_has_the_same_bits_alone_and_beside_others(bits: int, dtype: torch.dtype) -> None:
    """Also beside rows with large numbers, with which bitsandbytes itself gives it others."""
    parts = [linear(192, outputs, dtype=dtype) for outputs in (50, 7)]
    made = [in_8_bits(part) if bits == 8 else in_4_bits(part, nested=True, compute=dtype) for part in parts]
    product = QuantizedProduct([weight_of(layer) for layer in made])
    rows = numbers(300, 192, dtype, outliers=40)
    together, threads = product(rows), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for first, last in ((0, 1), (41, 42), (10, 12), (20, 23), (7, 200)):
            assert torch.equal(product(rows[first:last]), together[first:last])
    finally:
        torch.set_num_threads(threads)
    shifted = product(rows.roll(3, 0).t().contiguous().t())  # another layout in memory
    assert torch.equal(shifted.roll(-3, 0), together)


def test_what_is_no_number_stays_in_its_row() -> None:
    for layer in (in_8_bits(linear(64, 9)), in_4_bits(linear(64, 9))):
        rows = numbers(5, 64, torch.bfloat16)
        rows[1, 3] = float("nan")
        rows[2] = 0
        found = QuantizedProduct([weight_of(layer)])(rows)
        assert found[1].isnan().all()
        assert found[[0, 2, 3, 4]].isfinite().all()
        assert torch.equal(found[2], layer.bias)


def quantized_llama(bits: int, nested: bool = False) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=480, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.4, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is torch.nn.Linear and name != "lm_head":
                setattr(module, name, in_8_bits(child) if bits == 8 else in_4_bits(child, nested=nested))
    correct_4_bits(model)  # as loading does
    return model.eval()


@pytest.mark.parametrize(("bits", "nested"), [(8, False), (4, False), (4, True)])
def test_a_model_answers_as_by_bitsandbytes_itself(bits: int, nested: bool) -> None:
    model = quantized_llama(bits, nested)
    with torch.inference_mode():
        plain = model(IDS).logits
        undo = prepare(model)
        found = model(IDS).logits
        engine = continuous(model, Clock(), max_rows=4)
        asked = [request(n, tuple(range(5, 20 + n)), max_new_tokens=6) for n in range(4)]
        assert all(len(done.token_ids) == 6 for done in engine.run(Feed(iter(asked), look_ahead=4)))
        facts = engine.describe()
        undo()
        again = model(IDS).logits
    assert float(logit_differences(found, plain).max()) < 0.05
    assert torch.equal(again, plain)
    assert facts.computed_by == "program"
    assert facts.quantized is not None
    assert facts.quantized.by == levels()[0].name
    assert (facts.quantized.layers, facts.quantized.left) == (14, {})
    assert facts.quantized.difference is not None
    assert facts.quantized.difference < 0.04
    assert model not in QUANTIZED


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("size", [64, 96, 100, 160])
@torch.no_grad()
def test_rows_that_are_no_whole_number_of_blocks_are_read_right(size: int, nested: bool) -> None:
    """bitsandbytes' own code for CPUs takes other blocks' scales for some of them, and on some processors fails."""
    layer = in_4_bits(linear(size, 20), nested=nested, compute=torch.float32).eval()
    rows = numbers(5, size, torch.float32)
    wanted = by_definition(layer, rows)
    model = torch.nn.Sequential(layer)
    correct_4_bits(model)
    assert distance(model(rows), wanted) < 1e-4
    model.dtype = torch.float32
    undo = prepare(model)
    assert QUANTIZED[model].left == {}
    assert distance(model(rows), wanted) < 1e-4
    undo()
    assert distance(model(rows), wanted) < 1e-4


def test_strict_mode_keeps_its_promise() -> None:
    for bits in (8, 4):
        model = quantized_llama(bits)
        prepare(model)
        assert self_check(model).reason is None
        assert rows_are_independent(model, pass_sizes(EngineConfig(max_rows=9)))
        asked = [request(n, tuple(range(5 + n, 45 + 3 * n)), max_new_tokens=8, logprobs=1) for n in range(9)]

        def answers(model: Any, asked: list[Any], rows: int) -> dict[int, Any]:
            engine = continuous(model, Clock(), max_rows=rows, batch_invariant=True, products_are_invariant=True)
            return {d.request.index: (d.token_ids, d.logprobs) for d in engine.run(Feed(iter(asked), look_ahead=9))}

        assert answers(model, asked, 9) == answers(model, asked, 1) == answers(model, asked[::-1], 4)


def test_strict_mode_is_refused_where_bitsandbytes_mixes_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "compiled", lambda: False)
    model, codec = quantized_llama(8), TokenizerCodec(byte_bpe())
    for reproducible, refused in (("strict", True), ("fast", False)):
        recipe = Recipe.model_validate({"source": {"path": "-"}, "engine": {"reproducible": reproducible}})
        engine, reason = try_build(model, EngineContext(recipe=recipe, codec=codec, meter=Clock()))
        assert (engine is None) == refused
        assert ("in 8 bits depends on the other rows" in reason) == refused


def test_other_numbers_than_bitsandbytes_own_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(QuantizedProduct):
        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            return super().__call__(rows) * 1.1

    monkeypatch.setattr(quantizing, "QuantizedProduct", Wrong)
    model = quantized_llama(4)
    undo = prepare(model)
    facts = QUANTIZED[model]
    assert (facts.by, facts.layers, sum(facts.left.values())) == ("bitsandbytes", 0, 14)
    assert "differ from bitsandbytes' own by" in next(iter(facts.left))
    assert "forward" not in vars(model.model.layers[0].mlp.down_proj)
    undo()


def test_without_numba_bitsandbytes_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "compiled", lambda: False)
    model = quantized_llama(8)
    undo = prepare(model)
    assert QUANTIZED[model].by == "bitsandbytes"
    assert list(QUANTIZED[model].left.values()) == [14]
    assert "numba" in next(iter(QUANTIZED[model].left))
    undo()


def test_a_processor_with_avx2_alone(tmp_path: Path) -> None:
    """All code that is compiled is for such a processor, as its flags are switched off."""
    script = (
        "import torch\n"
        "from tests.engines.test_cpu_quantized import *\n"
        "rows = numbers(5, 128, torch.float32)\n"
        "for layer in (in_8_bits(linear(128, 20)), in_4_bits(linear(128, 20))):\n"
        "    product = QuantizedProduct([weight_of(layer)])\n"
        "    print(product.level.name, distance(product(rows), by_definition(layer, rows)))\n"
    )
    have = [name for name, there in llvmlite.binding.get_host_cpu_features().items() if there and "512" not in name]
    if "avx2" not in have or "fma" not in have:
        pytest.skip("this processor has no AVX2")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": ",".join(f"+{name}" for name in have if name != "avxvnni"),
    }
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == ["avx2", "avx2"]
    assert all(float(found) < 0.02 for _, found in lines)
