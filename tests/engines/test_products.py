"""Ways to compute a product: each is as exact as torch's own and gives a row its own bits; the fastest one is taken."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from batchchat.cache import cache_file, read_cache
from batchchat.engines.base import EngineConfig, EngineContext
from batchchat.engines.continuous import try_build
from batchchat.engines.continuous.admission.batch_invariance import rows_are_independent
from batchchat.engines.continuous.passes import pass_sizes
from batchchat.engines.cpu import trial
from batchchat.engines.cpu.packing import packed_products, product_facts
from batchchat.engines.cpu.preparation import prepare
from batchchat.engines.cpu.products import CANDIDATES, PlainProduct, candidates, make
from batchchat.engines.cpu.trial import Shape, best, chosen, measured, times_of
from batchchat.prompts import TokenizerCodec
from batchchat.recipe import Recipe
from batchchat.schedule import Feed
from tests.support.engines import continuous, each_by
from tests.support.zoo import Clock, byte_bpe, llama, request

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OF_ANY_SIZE = [name for name, one in CANDIDATES.items() if one.independent]
AVX2 = "+avx2,+fma,+f16c,+avx,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+popcnt,+bmi,+bmi2"
"""All that a processor of 2013 has."""

cases = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 70),
        "outputs": st.one_of(st.integers(1, 90), st.just(64)),
        "width": st.one_of(st.integers(1, 150), st.just(64)),
        "bias": st.booleans(),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def numbers(case: dict[str, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(case["seed"])
    rows = torch.randn(case["rows"], case["width"], generator=generator).to(dtype)
    weight = torch.randn(case["outputs"], case["width"], generator=generator).to(dtype)
    bias = torch.randn(case["outputs"], generator=generator).to(dtype)
    return rows, weight, bias if case["bias"] else None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(case=cases)
@settings(max_examples=40, deadline=None)
def test_a_product_is_as_exact_as_torchs_and_a_row_has_its_own_bits(dtype: torch.dtype, case: dict[str, int]) -> None:
    rows, weight, bias = numbers(case, dtype)
    exact = functional.linear(rows.double(), weight.double(), None if bias is None else bias.double())

    def error(found: torch.Tensor) -> float:
        return float((found.double() - exact).pow(2).mean().sqrt())

    least = error(exact.to(dtype))  # nothing is nearer
    wide = torch.finfo(torch.float32).eps * case["width"] * float(exact.abs().max())
    allowed = max(1.02 * least, 1.1 * error(functional.linear(rows, weight, bias))) + wide
    one = case["seed"] % case["rows"]
    names = candidates(*weight.shape, dtype)
    assert {"kernel", "torch"} <= set(names)
    for name in names:
        product = make(name, weight, bias)
        found = product(rows[None])[0]
        assert found.dtype == dtype
        assert error(found) <= allowed, name
        if name in OF_ANY_SIZE:
            assert torch.equal(product(rows[None, one : one + 1])[0, 0], found[one]), name
        else:  # of the same shape
            others = rows.flip(0).clone()
            others[one] = rows[one]
            assert torch.equal(product(others[None])[0, one], found[one]), name


@given(case=cases)
@settings(max_examples=20, deadline=None)
def test_a_copy_in_float32_gives_the_same_bits(case: dict[str, int]) -> None:
    rows, weight, bias = numbers(case, torch.bfloat16)
    assert torch.equal(make("kernel", weight, bias)(rows), make("kernel, float32 copy", weight, bias)(rows))


def test_no_rows_are_no_work() -> None:
    """A pass in which no answer goes on wants no logits; an exception in a kernel would be one that nobody can catch,
    which warnings as errors show."""
    weight = torch.randn(725, 192)
    for name in candidates(725, 192, torch.float32):
        assert make(name, weight)(torch.empty(0, 192)).shape == (0, 725)


def test_what_is_not_finite_shows() -> None:
    rows, weight = torch.ones(3, 40), torch.ones(33, 40)
    rows[1, 7] = torch.inf
    rows[2, 39] = torch.nan
    found = make("kernel", weight)(rows)
    assert torch.equal(found[0], torch.full((33,), 40.0))
    assert torch.all(found[1] == torch.inf)
    assert torch.all(found[2].isnan())


def test_other_vector_units_give_the_same_bits(tmp_path: Path) -> None:
    """Compiled for AVX2 alone."""
    case = {"rows": 23, "outputs": 53, "width": 131, "bias": True, "seed": 5}
    rows, weight, bias = numbers(case, torch.bfloat16)
    found = make("kernel", weight, bias)(rows)
    torch.save((rows, weight, bias), tmp_path / "in.pt")
    program = (
        "import sys, torch\n"
        "from batchchat.engines.cpu.products import candidates, make\n"
        "from batchchat.engines.cpu.kernels.processor import registers\n"
        "rows, weight, bias = torch.load(sys.argv[1])\n"
        "assert registers().lanes == 8\n"
        "assert 'kernel' in candidates(53, 131, torch.bfloat16)\n"
        "torch.save(make('kernel', weight, bias)(rows), sys.argv[2])\n"
    )
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": AVX2,
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    }
    command = [sys.executable, "-c", program, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "out.pt"), found)


def test_the_fastest_is_taken() -> None:
    names = ["kernel", "oneDNN", "torch"]
    times = {"kernel": [2.0] * 4, "oneDNN": [1.0] * 4, "torch": [0.9] * 4}
    assert best(times, names) == "oneDNN", "torch's own would cost the program"
    assert best({**times, "kernel": [1.1] * 4}, names) == "kernel", "oneDNN's calls cost a program its team"
    assert best({**times, "torch": [0.5] * 4}, names) == "torch"
    assert best({**times, "kernel": [0.4, 1.1, 1.1, 1.1]}, names) == "kernel", "all numbers of rows count alike"
    assert best({**times, "oneDNN": [0.1, 0.1, 0.1, None]}, names) == "torch", "of what was tried with all numbers"
    two = {"kernel": [1.0] * 4, "kernel, float32 copy": [0.97] * 4}
    assert best(two, list(two)) == "kernel", "a small difference is chance"
    assert best({**two, "kernel, float32 copy": [0.9] * 4}, list(two)) == "kernel, float32 copy"
    assert best({}, names) == "kernel"


def test_hopeless_ways_are_not_tried_with_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Slow(PlainProduct):
        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            calls.append(rows.shape[1])
            time.sleep(0.05)
            return super().__call__(rows)

    monkeypatch.setitem(CANDIDATES, "oneDNN", CANDIDATES["oneDNN"]._replace(make=Slow))
    shape = Shape(32, 16, torch.float32)
    assert "oneDNN" in candidates(*shape)
    calls.clear()  # the first time that it is a candidate, a small product is tried
    assert measured(shape, torch.randn(32, 16))["oneDNN"] == [None] * len(trial.ROWS)
    assert set(calls) == {1}


def test_of_a_large_weight_a_part_is_timed_that_all_candidates_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary's: matrix units multiply whole blocks of outputs, and a part must have them too."""
    parts = []

    def made(name: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        if weight.shape != trial._WARM:
            parts.append(weight.shape)
        return make(name, weight, bias)

    monkeypatch.setattr(trial, "_MOST_NUMBERS", 1 << 17)
    monkeypatch.setattr(trial, "make", made)
    shape = Shape(4096, 192, torch.bfloat16)
    times = measured(shape, torch.randn(*shape[:2]).to(shape.dtype))
    assert set(times) == set(candidates(*shape))
    assert set(parts) == {(640, 192)}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(trial, "_FEWEST_NUMBERS", 1)
    return tmp_path


def test_a_shape_is_timed_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, weight = Shape(96, 64, torch.bfloat16), torch.randn(96, 64).bfloat16()
    name = chosen(shape, weight, may_copy=True)
    (kept,) = read_cache("products.json").values()
    assert kept["product"] == "64 to 96, bfloat16"
    assert set(kept["seconds"]) == set(candidates(*shape))
    assert all(seconds is None or seconds > 0 for times in kept["seconds"].values() for seconds in times)
    assert None not in kept["seconds"][name]

    def again(*_: object) -> None:
        raise AssertionError("it is known")

    monkeypatch.setattr(trial, "measured", again)
    assert chosen(shape, weight, may_copy=True) == name
    changed = {**kept, "seconds": {**kept["seconds"], "kernel, float32 copy": [1e-9] * len(trial.ROWS)}}
    (key,) = read_cache("products.json")
    cache_file("products.json").write_text(json.dumps({key: changed}), encoding="utf-8")
    assert chosen(shape, weight, may_copy=True) == "kernel, float32 copy"
    assert chosen(shape, weight, may_copy=False) != "kernel, float32 copy"


def test_in_strict_mode_a_row_has_its_own_bits_even_where_another_way_is_faster(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all passes have one size, which takes longer than any product."""
    shape, weight = Shape(96, 64, torch.bfloat16), torch.randn(96, 64).bfloat16()
    times = {name: [1.0 if CANDIDATES[name].independent else 0.01] * len(trial.ROWS) for name in candidates(*shape)}
    monkeypatch.setattr(trial, "measured", lambda *_: times)
    assert not CANDIDATES[chosen(shape, weight, may_copy=True)].independent
    assert CANDIDATES[chosen(shape, weight, may_copy=True, independent=True)].independent
    model = copy.deepcopy(llama(layers=1)).bfloat16()
    undo = prepare(model, batch_invariant=True)
    assert all(CANDIDATES[product.name].independent for product in packed_products(model))
    undo()
    monkeypatch.setattr(trial, "candidates", lambda *_: ["oneDNN", "torch"])
    assert chosen(shape, weight, may_copy=True, independent=True) == "oneDNN", "nothing else is there"


def test_where_nothing_can_be_kept_no_times_decide(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_cache / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache / "file"))
    shape, weight = Shape(96, 64, torch.float32), torch.randn(96, 64)
    assert times_of(shape, weight) == {}
    assert chosen(shape, weight, may_copy=True) == candidates(*shape)[0]


def test_a_run_goes_on_as_it_began() -> None:
    kept: dict[str, Any] = {}
    prepare(copy.deepcopy(llama(layers=1)).bfloat16(), kept=kept)
    began = dict(kept["products"])
    assert all(shape.endswith("bfloat16") for shape in began)
    kept["products"] = dict.fromkeys(began, "torch")
    model = copy.deepcopy(llama(layers=1)).bfloat16()
    prepare(model, kept=kept)
    assert {product.name for product in packed_products(model)} == {"torch"}
    assert {fact.by for fact in product_facts(model)} == {"torch"}
    assert kept["products"] == dict.fromkeys(began, "torch")
    kept["products"] = dict.fromkeys(began, "of another machine")
    prepare(copy.deepcopy(llama(layers=1)).bfloat16(), kept=kept)
    assert kept["products"] == began


def test_the_report_hears_of_a_run_that_cannot_go_on_as_it_began() -> None:
    recipe = Recipe.model_validate({"source": {"path": "-"}, "engine": {"kind": "continuous"}})
    for name, heard in (("kernel", []), ("of another machine", ["other_products"])):
        clock = Clock()
        model = copy.deepcopy(llama(layers=1))
        context = EngineContext(recipe, TokenizerCodec(byte_bpe()), clock, kept=each_by(name, model))
        engine, reason = try_build(model, context)
        assert engine is not None, reason
        engine.close()
        assert [event for event, _ in clock.events if event == "other_products"] == heard


@pytest.mark.parametrize("name", CANDIDATES)
def test_strict_mode_keeps_its_promise_on_each(name: str) -> None:
    if name not in candidates(64, 64, torch.bfloat16):
        pytest.skip(f"nothing computes products by {name} on this processor")
    model = copy.deepcopy(llama(layers=2)).bfloat16()
    prepare(model, kept=each_by(name, model))
    assert {product.name for product in packed_products(model)} == {name}
    of_any_size = rows_are_independent(model, pass_sizes(EngineConfig(max_rows=9)))
    assert of_any_size or name not in OF_ANY_SIZE
    requests = [request(n, tuple(range(5 + n, 45 + 3 * n)), max_new_tokens=8, logprobs=1) for n in range(9)]

    def answers(rows: int) -> dict[int, object]:
        engine = continuous(model, Clock(), max_rows=rows, batch_invariant=True, products_are_invariant=of_any_size)
        return {d.request.index: (d.token_ids, d.logprobs) for d in engine.run(Feed(iter(requests), look_ahead=9))}

    assert answers(9) == answers(1)


def test_facts_say_what_computes() -> None:
    model = copy.deepcopy(llama(layers=2)).bfloat16()
    prepare(model)
    facts = product_facts(model)
    assert sum(fact.count for fact in facts) == 2 * 4 + 1
    assert {fact.by for fact in facts} <= {one.by for one in CANDIDATES.values()}
    for fact in facts:
        width, outputs = map(int, fact.product.split(" to "))
        assert fact.held_bytes >= fact.count * width * outputs * (2 if fact.weights == "bfloat16" else 4)
