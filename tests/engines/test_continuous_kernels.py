"""Kernels give the numbers of torch's operators, row by row, and the models that they serve stay what they are."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as interleaved
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2 import modeling_olmo2
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.phi3 import modeling_phi3

from batchchat.chats import Request
from batchchat.engines import cpu
from batchchat.engines.base import EngineConfig
from batchchat.engines.continuous.admission.batch_invariance import rows_are_independent
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.model_runner import PROGRAMS
from batchchat.engines.continuous.passes import pass_sizes
from batchchat.engines.cpu.fusing import FusedRotary, fused_gate, fused_norm
from batchchat.engines.cpu.kernels import compiled
from batchchat.engines.cpu.kernels.abi import CLAMPED, GELU, SILU
from batchchat.engines.cpu.kernels.ops import Gate, attend_rows, gated, rotate, write_kv
from batchchat.engines.cpu.preparation import prepare
from batchchat.engines.cpu.products import make
from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed
from tests.support.architectures import ARCHITECTURES
from tests.support.engines import continuous
from tests.support.jobs import ROOT
from tests.support.zoo import Clock, byte_bpe, llama, request

CODEC = TokenizerCodec(byte_bpe())
DTYPES = (torch.float32, torch.bfloat16)
CLOSE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2}}


class Case(SimpleNamespace):
    """Rows in slots of two pools, with new keys, values and queries; `rows` are a plan."""


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype | None = None) -> Case:
    chosen = dtype or draw(st.sampled_from(DTYPES))
    heads, shared = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    key_dim, value_dim = draw(st.sampled_from(((4, 16), (24, 4), (8, 8), (64, 64), (80, 128))))
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    lengths = [draw(st.sampled_from((8, 40))) for _ in counts]
    ends = [draw(st.integers(count, length)) for count, length in zip(counts, lengths, strict=True)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(chosen)

    pools = [
        SimpleNamespace(
            length=length,
            keys={0: numbers(len(counts), heads, length, key_dim)},
            values={0: numbers(len(counts), heads, length, value_dim)},
        )
        for length in (8, 40)
    ]
    rows, first = [], 0
    for row, (count, length, end) in enumerate(zip(counts, lengths, ends, strict=True)):
        rows.append((first, count, row, length, end, (8, 40).index(length)))
        first += count
    return Case(
        rows=np.array(rows, dtype=np.int64),
        pools=pools,
        query=numbers(1, first, heads * shared, key_dim).transpose(1, 2),
        key=numbers(1, first, heads, key_dim).transpose(1, 2),
        value=numbers(1, heads, first, value_dim),
        window=draw(st.sampled_from((None, 1, 3, 100))),
        sinks=numbers(heads * shared) if draw(st.booleans()) else None,
        softcap=draw(st.sampled_from((None, 0.5, 20.0))),
    )


def attended(case: Case, rows: np.ndarray | None = None) -> torch.Tensor:
    out = torch.full((case.query.shape[2], case.query.shape[1], case.value.shape[3]), 7.0, dtype=case.query.dtype)
    plan = case.rows if rows is None else rows
    current: Any = SimpleNamespace(plan=(plan, case.pools), bases={})
    write_kv(current, 0, case.key, case.value)
    attend_rows(current, 0, case.query, out, AttentionSpec(0.3, case.window, case.softcap, case.sinks))
    return out


def by_definition(case: Case) -> torch.Tensor:
    """The same in double precision, token by token, from slots that hold the new keys and values."""
    heads = case.key.shape[1]
    out = torch.zeros(case.query.shape[2], case.query.shape[1], case.value.shape[3], dtype=torch.float64)
    for first, count, row, _, end, pool in case.rows.tolist():
        for j in range(count):
            seen = end - count + j + 1
            low = 0 if case.window is None else max(0, seen - case.window)
            for head in range(case.query.shape[1]):
                mine = head // (case.query.shape[1] // heads)
                keys = case.pools[pool].keys[0][row, mine, low:seen].double()
                values = case.pools[pool].values[0][row, mine, low:seen].double()
                scores = keys @ case.query[0, head, first + j].double() * 0.3
                if case.softcap is not None:
                    scores = case.softcap * torch.tanh(scores / case.softcap)
                if case.sinks is not None:
                    scores = torch.cat((scores, case.sinks[head : head + 1].double()))
                out[first + j, head] = torch.softmax(scores, 0)[: len(values)] @ values
    return out


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_attention_is_what_its_definition_says(case: Case) -> None:
    found = attended(case)
    for first, count, row, _, end, pool in case.rows.tolist():
        written = case.pools[pool].keys[0][row, :, end - count : end]
        assert torch.equal(written, case.key[0, :, first : first + count])
    torch.testing.assert_close(found.double(), by_definition(case), **CLOSE[found.dtype])


@given(case=cases(), number=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_row_has_the_same_bits_alone_and_with_any_number_of_threads(case: Case, number: int) -> None:
    together = attended(case)
    number %= len(case.rows)
    first, count = case.rows[number, :2]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = attended(case, case.rows[number : number + 1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[first : first + count], together[first : first + count])


@given(case=cases())
@settings(max_examples=20, deadline=None)
def test_what_is_no_number_stays_in_its_row(case: Case) -> None:
    case.query[0, :, 0] = float("nan")
    count = case.rows[0, 1]
    found = attended(case)
    assert found[0].isnan().all()
    assert found[count:].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [LlamaRMSNorm, GemmaRMSNorm, Olmo2RMSNorm])
def test_norms_are_those_of_the_models(kind: type[torch.nn.Module], dtype: torch.dtype) -> None:
    norm = kind(48).to(dtype)
    norm.weight.data.uniform_(-1, 1)
    forward = fused_norm(norm)
    assert forward is not None
    x = torch.randn(1, 70, 3, 48).to(dtype) * 5
    for part in (x, x[:, ::2], x.transpose(1, 2), x[:, :0]):
        with torch.no_grad():
            found, wanted = forward(part), norm(part)
        torch.testing.assert_close(found, wanted, **CLOSE[dtype])


def test_a_norm_of_another_kind_is_left_alone() -> None:
    class MeanRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))

    assert fused_norm(MeanRMSNorm(48)) is None
    assert fused_norm(torch.nn.LayerNorm(48)) is None
    assert fused_norm(LlamaRMSNorm(48).to(torch.float64)) is None


def clamped(gates: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """As in GPT-OSS."""
    gates, others = gates.clamp(max=7.0), others.clamp(-7.0, 7.0)
    return (others + 1) * (gates * torch.sigmoid(1.7 * gates))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("gate", "wanted"),
    [
        (Gate(SILU), lambda gates, others: functional.silu(gates) * others),
        (Gate(GELU), lambda gates, others: functional.gelu(gates, approximate="tanh") * others),
        (Gate(CLAMPED, 7.0, 1.7), clamped),
    ],
    ids=("silu", "gelu", "clamped"),
)
def test_a_gate_is_its_function_times_the_rest(gate: Gate, wanted: Any, dtype: torch.dtype) -> None:
    joined = torch.cat((torch.linspace(-200, 200, 900), torch.randn(900) * 9)).view(1, 2, 900).to(dtype)
    found, right = gated(joined, gate), wanted(*joined.double().chunk(2, dim=-1))
    torch.testing.assert_close(found.double(), right, **CLOSE[dtype])
    joined[0, 0, 3] = joined[0, 1, 600] = float("nan")
    assert gated(joined, gate).isnan().nonzero().tolist() == [[0, 0, 3], [0, 1, 150]]


def test_a_layer_with_another_activation_is_left_alone() -> None:
    model = llama(layers=1)
    layer = copy.deepcopy(model.model.layers[0].mlp)
    product = make("kernel", torch.cat((layer.gate_proj.weight, layer.up_proj.weight)).detach())
    assert fused_gate(layer, product) is not None
    layer.act_fn = torch.nn.GELU()
    assert fused_gate(layer, product) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotary_embeddings_are_those_of_the_models(dtype: torch.dtype) -> None:
    q = torch.randn(1, 9, 4, 16).to(dtype).transpose(1, 2)
    k = torch.randn(1, 9, 20, 16).to(dtype)[:, :, 3:5].transpose(1, 2)
    angles = torch.randn(1, 9, 8).repeat(1, 1, 2)
    cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
    plain: Any = modeling_llama.apply_rotary_pos_emb
    wanted = getattr(plain, "plain", plain)(q, k, cosines, sines)
    for found, right in zip(rotate(q, k, cosines, sines), wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("plain", "size", "tables"),
    [
        (modeling_llama.apply_rotary_pos_emb, 16, None),
        (modeling_olmo2.apply_rotary_pos_emb, 16, torch.float32),
        (modeling_phi3.apply_rotary_pos_emb, 16, None),
        (modeling_phi3.apply_rotary_pos_emb, 12, None),
        (modeling_phi3.apply_rotary_pos_emb, 8, None),
        (modeling_gpt_oss.apply_rotary_pos_emb, 8, None),
    ],
)
def test_a_fused_function_turns_as_the_models_own_does(
    plain: Any, size: int, tables: torch.dtype | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tables for all numbers of a head, for some, or once for both halves; in the model's type or a wider one."""
    plain = getattr(plain, "plain", plain)
    fused = FusedRotary(plain)
    q, k = (torch.randn(1, 9, heads, 16).to(dtype).transpose(1, 2) for heads in (4, 2))
    angles = torch.randn(1, 9, size) if plain is modeling_gpt_oss.apply_rotary_pos_emb else torch.randn(1, 9, size // 2)
    angles = angles if angles.shape[2] == size else angles.repeat(1, 1, 2)
    cosines, sines = angles.cos().to(tables or dtype), angles.sin().to(tables or dtype)
    wanted = plain(q, k, cosines, sines)
    with torch.inference_mode():
        fused(q, k, cosines, sines)  # it has tried this kind then
        monkeypatch.setattr(fused, "plain", None)
        found = fused(q, k, cosines, sines)
    for one, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, right, rtol=1e-6, atol=1e-6 if dtype == torch.float32 else 2e-2)


def test_rotary_embeddings_of_another_kind_are_left_alone() -> None:
    assert FusedRotary(modeling_llama.apply_rotary_pos_emb).is_right()
    assert not FusedRotary(interleaved).is_right()
    with torch.inference_mode():
        x, angles = torch.randn(1, 2, 5, 16), torch.randn(1, 5, 8)
        with pytest.raises(RuntimeError, match="size"):  # as the plain function does, which turns whole heads only
            FusedRotary(modeling_llama.apply_rotary_pos_emb)(x, x, angles.cos(), angles.sin())


def answers(model: Any, **more: Any) -> dict[int, Any]:
    requests = [request(n, tuple(range(5 + n, 45 + 9 * n)), max_new_tokens=10, logprobs=1) for n in range(9)]
    engine = continuous(model, Clock(), max_rows=9, **more)
    return {d.request.index: (d.token_ids, d.logprobs) for d in engine.run(Feed(iter(requests), look_ahead=9))}


def test_answers_are_the_same_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(llama(layers=2))
    before = modeling_llama.apply_rotary_pos_emb
    undo = prepare(model)
    with_kernels = answers(model)
    undo()
    assert modeling_llama.apply_rotary_pos_emb is before
    monkeypatch.setattr(cpu, "attends", lambda *tensors: False)
    without = answers(model)
    assert {n: ids for n, (ids, _) in with_kernels.items()} == {n: ids for n, (ids, _) in without.items()}


def test_without_numba_everything_still_runs(tmp_path: Path) -> None:
    """As where the extra is not installed."""
    question = '{"messages": [{"role": "user", "content": "What is 2 + 3?"}]}'
    (tmp_path / "chats.jsonl").write_text(question)
    script = (
        "import sys; sys.modules['numba'] = None\n"
        "from batchchat import Recipe, run\n"
        "recipe = Recipe.model_validate({'source': {'path': 'chats.jsonl'}, 'model': {'name': 'builtin:tiny-chat'},\n"
        "    'generation': {'max_new_tokens': 4}, 'engine': {'kind': 'continuous'}})\n"
        "print(run(recipe).report.engine.computed_by)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "torch"


def test_compiled_code_is_kept(tmp_path: Path) -> None:
    """A second process needs no compiler for what the first one compiled; what was not kept whole is compiled anew."""
    script = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from batchchat.engines.cpu.kernels import machine_code, ops, tiled\n"
        "machine_code._folder = lambda: Path('kept')\n"
        "found = ops.rms_norm(torch.ones(2, 8), torch.arange(8.0), 1e-6, 0)\n"
        "assert found.round().tolist() == 2 * [list(range(8))], found\n"
        "ops.add_kernel(torch.bfloat16)\n"
        "tiled() and ops.tiled_kernel()\n"
        "print('numba' in sys.modules)\n"
    )
    compiles, kept = [], []
    for _ in range(4):
        command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        compiles.append(done.stdout.strip())
        files = sorted((tmp_path / "kept").glob("*.o"))
        kept.append({file.name: len(file.read_bytes()) for file in files})
        if len(kept) == 2:
            files[0].write_bytes(files[0].read_bytes()[:-1])
    assert compiles == ["True", "False", "True", "False"]
    assert kept[0] == kept[1]
    assert kept[2] == kept[3]
    assert kept[0].keys() == kept[2].keys()
    assert len(kept[0]) >= 2


def test_compiled_code_is_kept_where_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled():
        pytest.skip("numba is not here")
    from batchchat.engines.cpu.kernels import machine_code

    folder = machine_code._folder.__wrapped__
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "beside"))
    assert (tmp_path / "beside") in folder().parents
    monkeypatch.setattr(sys, "pycache_prefix", "/proc/nowhere")
    assert folder() == tmp_path / "batchchat" / "kernels"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name", ["llama", "gemma2, window 50", "phi3", "olmo2", "granite", "qwen3_moe", "gpt_oss, window 50"]
)
def test_passes_of_any_size_give_the_same_bits(name: str, dtype: torch.dtype) -> None:
    """Strict mode without fixed shapes: alone, together, and in another order."""
    model = next(one for one in ARCHITECTURES if one.name == name).model().to(dtype)
    prepare(model, batch_invariant=True)
    assert model in PROGRAMS
    assert rows_are_independent(model, pass_sizes(EngineConfig(max_rows=9)))
    strict: dict[str, Any] = {"batch_invariant": True, "products_are_invariant": True}
    requests = [
        request(n, tuple(range(5 + n, 45 + 9 * n)), max_new_tokens=10, temperature=float(n % 2), logprobs=1)
        for n in range(9)
    ]

    def run(ordered: list[Request], rows: int) -> dict[int, Any]:
        engine = continuous(model, Clock(), max_rows=rows, **strict)
        return {d.request.index: (d.token_ids, d.logprobs) for d in engine.run(Feed(iter(ordered), look_ahead=3))}

    together = run(requests, 9)
    assert together == run(requests, 1) == run(requests[::-1], 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_long_prompt_beside_others_does_not_change_their_bits(dtype: torch.dtype) -> None:
    """Its attention is another one from some length on."""
    model = next(one for one in ARCHITECTURES if one.name == "llama").model().to(dtype)
    prepare(model)
    long = request(0, tuple(range(5, 245)) * 5, max_new_tokens=6, logprobs=1)
    short = [request(n, tuple(range(5, 25 + n)), max_new_tokens=2, logprobs=1) for n in range(1, 40)]
    requests = [long, *short]  # one short prompt after the other is read while the long one is

    def run(chosen: list[Request], rows: int) -> dict[int, Any]:
        engine = continuous(model, Clock(), max_rows=rows, batch_invariant=True, products_are_invariant=True)
        return {d.request.index: (d.token_ids, d.logprobs) for d in engine.run(Feed(iter(chosen), look_ahead=4))}

    alone = [run([one], 1)[one.index] for one in requests]
    assert run(requests, 2) == dict(enumerate(alone))


def test_products_that_depend_on_the_number_of_rows_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that sums up in another order where there are many rows."""
    from batchchat.engines.cpu import invariance

    def uneven(name: str, weight: torch.Tensor) -> Any:
        def product(rows: torch.Tensor) -> torch.Tensor:
            if rows.shape[1] < 20:
                return rows @ weight.T
            half = weight.shape[1] // 2
            return rows[..., :half] @ weight[:, :half].T + rows[..., half:] @ weight[:, half:].T

        return product

    model = copy.deepcopy(llama(layers=1)).to(torch.bfloat16)
    prepare(model)
    monkeypatch.setattr(invariance, "make", uneven)
    assert not rows_are_independent(model, pass_sizes(EngineConfig(max_rows=9)))


def test_a_model_that_is_not_packed_keeps_its_shapes() -> None:
    assert not rows_are_independent(copy.deepcopy(llama(layers=1)), pass_sizes(EngineConfig(max_rows=4)))
    assert compiled(), "the tests need the extra of the name cpu"
