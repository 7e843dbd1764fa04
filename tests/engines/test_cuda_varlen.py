"""Torch's own attention over pages: what a torch's form of it can do, and what it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.cuda import gathered, varlen
from batchchat.engines.cuda.backend import LayerKind
from tests.support.pages import CPU, plain, rows_of

CUDA = torch.device("cuda", 0)
KIND = LayerKind(8, 2, 128, 128, 256, torch.bfloat16, CUDA)


def bare(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: Any, max_k: Any, **_: Any) -> None:
    """As in the first torch that had one."""


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> torch.Tensor:
    """What torch documents, by gathered pages; NaN where it leaves the result as it was."""
    assert cu_seq_k is None
    assert seqused_k is not None
    assert block_table is not None
    assert scale is not None
    assert window_size[1] == 0  # causal
    assert enable_gqa == (query.shape[1] != key.shape[2])
    assert max_q >= int(cu_seq_q.diff().max())
    assert max_k == block_table.shape[1] * key.shape[1]
    window = None if window_size[0] < 0 else window_size[0] + 1
    out = gathered.prefill(query, Seen(key, value, block_table, seqused_k), cu_seq_q, AttentionSpec(scale, window))
    out[int(cu_seq_q[-1]) :] = torch.nan
    calls.append(num_splits)
    return out


calls: list[int | None] = []


@contextmanager
def torch_with(function: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(varlen, "varlen_attn", lambda: function)
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        yield


def test_what_a_torch_can_do_is_read_from_its_signature() -> None:
    assert varlen.features(bare) == (False, False, False, False)
    assert varlen.features(flash) == (True, True, True, True)


def test_this_torch_has_it() -> None:
    function = varlen.varlen_attn()
    if function is None:
        pytest.skip("this torch has no varlen_attn")
    found = varlen.features(function)
    assert found.windows


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": CPU}, "not cpu"),
        ({"block_size": 64}, "not 64"),
        ({"dtype": torch.float32}, "not torch.float32"),
        ({"value_dim": 64}, "not 128/64"),
        ({"softcap": True}, "neither soft-capping nor sinks"),
        ({"sinks": True}, "neither soft-capping nor sinks"),
    ],
)
def test_what_it_cannot_serve_says_why(changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch_with(flash, monkeypatch):
        assert varlen.unsupported(KIND) is None
        assert words in str(varlen.unsupported(LayerKind(**{**vars(KIND), **changes})))


def test_an_older_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch_with(bare, monkeypatch):
        assert "no block tables" in str(varlen.unsupported(KIND))
    with torch_with(None, monkeypatch):
        assert "has no varlen_attn" in str(varlen.unsupported(KIND))


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("batch_invariant", [False, True])
def test_it_is_asked_for_the_same_attention(
    batch_invariant: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, counts = rows_of([30, 0, 300], block_size=256), [30, 0, 4]
    spec = AttentionSpec(0.3, window)
    query = torch.randn(36, 4, 64)
    starts = torch.tensor([0, 30, 30, 34], dtype=torch.int32)
    calls.clear()
    with torch_with(flash, monkeypatch):
        found = varlen.prefill(query, rows.seen, starts, spec, batch_invariant=batch_invariant)
        few = varlen.decode(query[:6], rows.seen, spec, batch_invariant=batch_invariant)
    parts = [plain(q, *kv, 0.3, window) for q, kv in zip(query.split([*counts, 2]), rows.dense, strict=False)]
    torch.testing.assert_close(found.double(), torch.cat([*parts, torch.zeros(2, 4, 64)]), atol=2e-5, rtol=2e-5)
    parts = [plain(q, *kv, 0.3, window) for q, kv in zip(query[:6].split(2), rows.dense, strict=True)]
    torch.testing.assert_close(few.double(), torch.cat(parts), atol=2e-5, rtol=2e-5)
    assert calls == [1 if batch_invariant else None] * 2


def test_torch_takes_what_it_is_given() -> None:
    """Its own checks of arguments, on tensors without numbers."""
    function = varlen.varlen_attn()
    if function is None or not varlen.features(function).pages:
        pytest.skip("this torch's varlen_attn takes no block tables")
    from torch._subclasses.fake_tensor import FakeTensorMode

    rows = rows_of([30, 300], block_size=256)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        seen = Seen(*(mode.from_tensor(part) for part in rows.seen))
        query = torch.empty(4, 8, 64)
        starts = torch.empty(3, dtype=torch.int32)
        assert varlen.decode(query, seen, AttentionSpec(0.3, 20), batch_invariant=True).shape == (4, 8, 64)
        assert varlen.prefill(query, seen, starts, AttentionSpec(0.3)).shape == (4, 8, 64)
