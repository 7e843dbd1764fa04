"""Writing into pages with the rotary embedding, norms and gates, against torch's operators in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from batchchat.engines.continuous.paged.pages import new_pages
from batchchat.engines.cuda import layers
from batchchat.engines.cuda.backend import HeadNorms, PagedAttention
from tests.support.pages import BACKENDS, CPU, needs_interpreter

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = list(TOLERANCE)


def turned(x: torch.Tensor, angles: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """Pairs of numbers as complex ones, times those of the angles."""
    half, out = angles.shape[1], x.double().clone()
    places = torch.arange(half)
    one, other = (2 * places, 2 * places + 1) if interleaved else (places, places + half)
    pairs = torch.complex(out[..., one], out[..., other]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    out[..., one], out[..., other] = pairs.real, pairs.imag
    return out


@pytest.mark.parametrize(
    ("dim", "value_dim", "rotary"), [(64, 64, 64), (80, 48, 32), (96, 96, 96), (256, 128, 20), (24, 40, 2)]
)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_are_turned_and_written(
    backend: PagedAttention, dtype: torch.dtype, interleaved: bool, dim: int, value_dim: int, rotary: int
) -> None:
    random = torch.Generator().manual_seed(dim)
    block_size, kv_heads, heads = 16, 3, 36
    keys, values = (new_pages(4, block_size, kv_heads, d, dtype, CPU).fill_(torch.nan) for d in (dim, value_dim))
    slots = torch.tensor([17, -1, 63, 0, -1])
    joined = torch.randn(5, heads + 2 * kv_heads, max(dim, value_dim), generator=random).to(dtype)
    query = joined[:, :heads, :dim]
    key, value = joined[:, heads : heads + kv_heads, :dim], joined[:, heads + kv_heads :, :value_dim]
    angles = torch.rand(5, rotary // 2, generator=random, dtype=torch.float64) * 6
    cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
    found = backend.rotate_and_write(query, key, value, cosines, sines, keys, values, slots, interleaved)
    close = {"atol": 3 * TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    torch.testing.assert_close(found.double(), turned(query, angles, interleaved), **close)
    wanted = turned(key, angles, interleaved)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            block, place = divmod(slot, block_size)
            torch.testing.assert_close(keys[block, place].double(), wanted[token], **close)
            assert torch.equal(values[block, place], value[token])
    for pages, width in ((keys, dim), (values, value_dim)):
        assert int(pages.isfinite().sum()) == 3 * kv_heads * width


@pytest.mark.parametrize("form", layers.FORMS)
@pytest.mark.parametrize("rotary", [24, 10])
@pytest.mark.parametrize("backend", BACKENDS)
def test_heads_are_normed_before_they_are_turned(backend: PagedAttention, rotary: int, form: int) -> None:
    random = torch.Generator().manual_seed(form)
    query, key, value = (torch.randn(4, heads, 24, generator=random) for heads in (5, 2, 2))
    weights = [torch.rand(24, generator=random) for _ in range(2)]
    angles = torch.rand(4, rotary // 2, generator=random) * 6
    slots = torch.tensor([3, -1, 0, 2])

    def run(query: torch.Tensor, key: torch.Tensor, norms: HeadNorms | None) -> tuple[torch.Tensor, torch.Tensor]:
        keys = new_pages(1, 16, 2, 24, torch.float32, CPU).zero_()
        out = backend.rotate_and_write(
            query, key, value, angles.cos(), angles.sin(), keys, keys.clone(), slots, norms=norms
        )
        return out, keys

    def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * (weight + (form == layers.ONE_MORE))

    found = run(query, key, HeadNorms(*weights, 1e-5, form))
    wanted = run(normed(query, weights[0]), normed(key, weights[1]), None)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_angles_may_be_views_of_doubled_ones(backend: PagedAttention) -> None:
    """Models give each angle twice: side by side for interleaved pairs, one half after the other for halves."""
    query, key = torch.randn(3, 2, 8), torch.randn(3, 1, 8)
    angles = torch.rand(3, 4)
    slots = torch.arange(3)

    def run(cosines: torch.Tensor, sines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keys = new_pages(1, 16, 1, 8, torch.float32, CPU).zero_()
        return backend.rotate_and_write(query, key, key, cosines, sines, keys, keys.clone(), slots), keys

    wanted = run(angles.cos(), angles.sin())
    doubled = angles.repeat_interleave(2, -1)
    for found in (
        run(doubled.cos()[:, ::2], doubled.sin()[:, ::2]),
        run(doubled.cos()[:, ::2], angles.sin()),
    ):
        assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_are_written_as_they_are(backend: PagedAttention) -> None:
    keys, values = (new_pages(3, 32, 40, d, torch.bfloat16, CPU).zero_() for d in (24, 16))
    key, value = torch.randn(4, 40, 24).bfloat16(), torch.randn(4, 40, 16).bfloat16()
    backend.write(key, value, keys, values, torch.tensor([95, 31, -1, 32]))
    for token, place in ((0, (2, 31)), (1, (0, 31)), (3, (1, 0))):
        assert torch.equal(keys[place], key[token])
        assert torch.equal(values[place], value[token])
    assert int(keys.any(-1).any(-1).sum()) == 3


@needs_interpreter
@pytest.mark.parametrize("form", layers.FORMS)
@pytest.mark.parametrize("size", [64, 1000, 5000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(dtype: torch.dtype, size: int, form: int) -> None:
    random = torch.Generator().manual_seed(size)
    x, residual = (torch.randn(2, 3, size, generator=random).to(dtype) for _ in range(2))
    weight = torch.rand(size, generator=random).to(dtype)

    def norm(x: torch.Tensor) -> torch.Tensor:
        x = x.double()
        scale = weight.double() + (form == layers.ONE_MORE)
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale

    close = {"atol": 4 * TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    torch.testing.assert_close(layers.rms_norm(x, weight, 1e-5, form).double(), norm(x), **close)
    normed, summed = layers.add_rms_norm(x, residual, weight, 1e-5, form)
    exact = dtype != torch.bfloat16  # to which the interpreter cuts off instead of rounding
    torch.testing.assert_close(summed, x + residual, **({"atol": 0.0, "rtol": 0.0} if exact else close))
    torch.testing.assert_close(normed.double(), norm(summed), **close)


@needs_interpreter
def test_norms_of_heads_within_a_product() -> None:
    joined = torch.randn(5, 12, 64)
    weight = torch.rand(64)
    found = layers.rms_norm(joined[:, 4:6], weight, 1e-6)
    assert torch.equal(found, layers.rms_norm(joined[:, 4:6].contiguous(), weight, 1e-6))


def test_rows_that_a_norm_cannot_take_are_refused() -> None:
    with pytest.raises(ValueError, match="32768 numbers, not 40000"):
        layers.rms_norm(torch.zeros(1, 40000), torch.zeros(40000), 1e-6)


@needs_interpreter
@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # as on a device: a gate that is shut
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gates(dtype: torch.dtype, gelu: bool) -> None:
    joined = (torch.randn(2, 3, 2600, generator=torch.Generator().manual_seed(3)) * 4).to(dtype)
    gates, ups = joined.chunk(2, -1)
    wide = gates.double()
    opened = functional.gelu(wide, approximate="tanh") if gelu else functional.silu(wide)
    close = {"atol": 8 * TOLERANCE[dtype], "rtol": 2 * TOLERANCE[dtype]}
    torch.testing.assert_close(layers.gated(gates, ups, gelu).double(), opened * ups.double(), **close)


@needs_interpreter
def test_nothing_in_nothing_out() -> None:
    nothing, weight = torch.empty(0, 64), torch.ones(64)
    assert layers.rms_norm(nothing, weight, 1e-6).shape == (0, 64)
    assert layers.gated(nothing, nothing).shape == (0, 64)
