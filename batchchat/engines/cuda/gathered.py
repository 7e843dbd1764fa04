"""Attention over pages by torch's operators, for layers and devices that no kernel serves: `backend.LayerAttention`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from batchchat.engines.continuous.paged.attention import decode, prefill, write
from batchchat.engines.cuda.layers import ONE_MORE, ROUND_FIRST

if TYPE_CHECKING:
    from batchchat.engines.cuda.backend import HeadNorms, LayerKind

__all__ = ["decode", "prefill", "rotate_and_write", "unsupported", "write"]


def unsupported(kind: LayerKind) -> str | None:
    return None


def rotate_and_write(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    interleaved: bool = False,
    norms: HeadNorms | None = None,
) -> torch.Tensor:
    if norms is not None:
        query, key = (_normed(x, weight, *norms[2:]) for x, weight in ((query, norms.query), (key, norms.key)))
    write(_rotated(key, cosines, sines, interleaved), value, keys, values, slots)
    return _rotated(query, cosines, sines, interleaved)


def _normed(x: torch.Tensor, weight: torch.Tensor, epsilon: float, form: int) -> torch.Tensor:
    wide = x.float()
    numbers = wide * (wide.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    if form == ROUND_FIRST:
        numbers = numbers.to(x.dtype).float()
    return (numbers * (weight.float() + (form == ONE_MORE))).to(x.dtype)


def _rotated(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, interleaved: bool) -> torch.Tensor:
    half = cosines.shape[1]
    turned, rest = x[..., : 2 * half].float(), x[..., 2 * half :]
    cosine, sine = cosines.float()[:, None], sines.float()[:, None]
    one, other = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = one * cosine - other * sine, other * cosine + one * sine
    joined = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat((joined.to(x.dtype), rest), -1)
