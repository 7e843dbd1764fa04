"""Attention over pages by each backend against plain attention in float64; Triton's kernels run in its interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.cuda import gathered, paged
from batchchat.engines.cuda.backend import LayerKind, PagedAttention, candidates, choose
from tests.support.pages import BACKENDS, CPU, Rows, needs_interpreter, plain, rows_of

SINKS = torch.tensor([-1.0, 0.5, 3.0, 0.0, 1.0, 2.0, -8.0, 8.0])
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 21},
    "window of one": {"window": 1},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": SINKS[:4]},
    "all": {"window": 40, "softcap": 2.0, "sinks": SINKS[:4]},
}


def decoded(backend: PagedAttention, rows: Rows, query: torch.Tensor, **features: Any) -> torch.Tensor:
    """Of `query` `[rows, count, heads, dim]`."""
    invariant = features.pop("batch_invariant", False)
    found = backend.decode(query.flatten(0, 1), rows.seen, AttentionSpec(0.3, **features), batch_invariant=invariant)
    return found.view(*query.shape[:3], -1)


def check_decode(
    backend: PagedAttention, rows: Rows, heads: int, count: int = 1, tolerance: float = 2e-5, **features: Any
) -> None:
    key_dim = rows.keys.shape[3]
    query = torch.randn(len(rows.dense), count, heads, key_dim, generator=torch.Generator().manual_seed(1))
    query = query.to(rows.keys.dtype)
    found = decoded(backend, rows, query, **features)
    assert found.dtype == rows.keys.dtype
    features.pop("batch_invariant", None)
    wanted = torch.stack([plain(q, *kv, 0.3, **features) for q, kv in zip(query, rows.dense, strict=True)])
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)


def check_prefill(
    backend: PagedAttention,
    rows: Rows,
    counts: list[int],
    heads: int,
    padding: int = 0,
    tolerance: float = 2e-5,
    **features: Any,
) -> None:
    starts = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    key_dim = rows.keys.shape[3]
    random = torch.Generator().manual_seed(1)
    query = torch.randn(sum(counts) + padding, heads, key_dim, generator=random).to(rows.keys.dtype)
    found = backend.prefill(query, rows.seen, starts, AttentionSpec(0.3, **features))
    parts = [plain(q, *kv, 0.3, **features) for q, kv in zip(query.split([*counts, padding]), rows.dense, strict=False)]
    wanted = torch.cat([*parts, parts[0].new_zeros(padding, heads, rows.values.shape[3])])
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("batch_invariant", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_decode_has_every_feature(backend: PagedAttention, batch_invariant: bool, name: str) -> None:
    rows = rows_of([1, 0, 16, 33, 300])  # full and half-filled blocks, several splits
    check_decode(backend, rows, 4, batch_invariant=batch_invariant, **FEATURES[name])


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_prefill_has_every_feature(backend: PagedAttention, name: str) -> None:
    rows = rows_of([70, 0, 16, 90, 5])
    check_prefill(backend, rows, [70, 0, 16, 41, 1], 4, padding=3, **FEATURES[name])


@pytest.mark.parametrize("dims", [(80, 80), (96, 96), (128, 128), (192, 128), (256, 256), (64, 96), (72, 8)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_size_of_head(backend: PagedAttention, dims: tuple[int, int]) -> None:
    rows = rows_of([20, 37], dims=dims)
    check_decode(backend, rows, 4)
    check_prefill(backend, rows, [20, 4], 4)


@pytest.mark.parametrize("block_size", [32, 64, 128, 256])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_size_of_block(backend: PagedAttention, block_size: int) -> None:
    rows = rows_of([block_size + 1, block_size, 3], block_size=block_size)
    check_decode(backend, rows, 4, window=block_size - 3)
    check_prefill(backend, rows, [5, 3, 3], 4)


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (7, 1), (24, 2), (71, 1)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_of_any_size(backend: PagedAttention, heads: int, kv_heads: int) -> None:
    rows = rows_of([9, 40], kv_heads)
    check_decode(backend, rows, heads, 2)
    check_prefill(backend, rows, [9, 7], heads)


@pytest.mark.parametrize("count", [2, 5, 16])
@pytest.mark.parametrize("batch_invariant", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_few_tokens_of_each_row(backend: PagedAttention, batch_invariant: bool, count: int) -> None:
    rows = rows_of([count, 70, 0, 2])  # the last one has padding in front
    check_decode(backend, rows, 8, count, window=18, batch_invariant=batch_invariant)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision(backend: PagedAttention) -> None:
    rows = rows_of([33, 150], dtype=torch.float16)
    check_decode(backend, rows, 4, tolerance=4e-3)
    check_prefill(backend, rows, [33, 20], 4, tolerance=4e-3)


def test_bfloat16_gathered() -> None:  # the interpreter's products of bfloat16 are wrong
    rows = rows_of([33, 50], dtype=torch.bfloat16)
    check_decode(gathered, rows, 4, tolerance=2e-2)
    check_prefill(gathered, rows, [33, 20], 4, tolerance=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12)
@given(data=st.data())
def test_ragged_lengths(backend: PagedAttention, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 70), min_size=1, max_size=5))
    counts = [data.draw(st.integers(0, length)) for length in lengths]
    window = data.draw(st.none() | st.integers(1, 80))
    rows = rows_of(lengths, 1, spare=data.draw(st.integers(1, 3)), seed=data.draw(st.integers(0, 99)))
    padding = data.draw(st.integers(0, 2))
    check_prefill(backend, rows, counts, 3, padding, window=window)
    check_decode(
        backend, rows, 3, data.draw(st.integers(1, 4)), window=window, batch_invariant=data.draw(st.booleans())
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_need_not_be_dense(backend: PagedAttention) -> None:
    rows = rows_of([20, 37])
    joined = torch.randn(2, 8, 64)
    query = joined[:, 2:6]
    wanted = decoded(backend, rows, query.contiguous()[:, None])
    assert torch.equal(decoded(backend, rows, query[:, None]), wanted)
    turned = query.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(decoded(backend, rows, turned[:, None]), wanted)


@pytest.mark.parametrize("features", [{}, {"window": 300, "sinks": SINKS[:2]}], ids=["plain", "window, sinks"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_strict_bits_do_not_depend_on_the_company(backend: PagedAttention, features: dict[str, Any]) -> None:
    lengths = [700, 260, 5, *range(0, 58, 2)]
    assert len(lengths) == 32
    rows = rows_of(lengths, 1)
    query = torch.randn(32, 1, 2, 64)
    together = decoded(backend, rows, query, batch_invariant=True, **features)
    order = [9, 2, 0, 1]
    few = decoded(backend, rows.at(*order), query[order], batch_invariant=True, **features)
    assert torch.equal(few, together[order])
    for row in (0, 1, 2):
        alone = rows.at(row)
        narrow = Rows(alone.dense, alone.keys, alone.values, alone.tables[:, : -(-lengths[row] // 16)], alone.lengths)
        assert torch.equal(
            decoded(backend, narrow, query[row : row + 1], batch_invariant=True, **features)[0], together[row]
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_strict_bits_of_prompts_do_not_depend_on_the_company(backend: PagedAttention) -> None:
    rows, counts = rows_of([70, 3, 90, 0, 41]), [70, 3, 50, 0, 41]
    query = torch.randn(sum(counts), 4, 64)
    parts = query.split(counts)

    def run(places: list[int]) -> list[torch.Tensor]:
        some, own = rows.at(*places), [counts[place] for place in places]
        starts = torch.tensor([0, *own], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        chosen = torch.cat([parts[place] for place in places])
        found = backend.prefill(chosen, some.seen, starts, AttentionSpec(0.3), batch_invariant=True)
        return list(found.split(own))

    together = run([0, 1, 2, 3, 4])
    for places in ([2], [4, 2, 0], [1, 3, 0]):
        assert all(torch.equal(part, together[place]) for part, place in zip(run(places), places, strict=True))


@needs_interpreter
def test_a_row_is_split_by_its_own_length_alone() -> None:
    lengths = [17 * 256, 300]  # more than all splits of the least size take
    rows = rows_of(lengths, 1, (16, 16), 256)
    query = torch.randn(2, 1, 1, 16)
    together = decoded(paged, rows, query, batch_invariant=True)
    alone = rows.at(1)
    assert torch.equal(decoded(paged, alone, query[1:], batch_invariant=True)[0], together[1])
    check_decode(paged, rows, 1, batch_invariant=True)
    check_decode(paged, rows, 1)


def test_no_tokens() -> None:
    rows = rows_of([5])
    for backend in (paged, gathered):
        nothing = torch.empty(0, 4, 64)
        starts = torch.zeros(2, dtype=torch.int32)
        assert backend.prefill(nothing, rows.seen, starts, AttentionSpec(0.3)).shape == (0, 4, 64)
        assert backend.decode(nothing, rows.seen, AttentionSpec(0.3)).shape == (0, 4, 64)


KIND = LayerKind(8, 2, 64, 64, 16, torch.float32, CPU)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block_size": 48}, "not 48"),
        ({"dtype": torch.float64}, "not torch.float64"),
        ({"key_dim": 320}, "not 320"),
        ({"kv_heads": 3}, "3 key heads among 8"),
        ({"device": torch.device("cuda")}, "cuda"),
    ],
)
def test_what_the_kernels_cannot_serve_is_gathered(changes: dict[str, Any], words: str) -> None:
    kind = LayerKind(**{**vars(KIND), **changes})
    found = {candidate.name: candidate for candidate in candidates(kind)}
    assert words in str(found["triton"].why_not)
    assert choose(kind).name == "gathered"


@needs_interpreter
def test_the_kernels_come_first() -> None:
    assert choose(KIND).name == "triton"
