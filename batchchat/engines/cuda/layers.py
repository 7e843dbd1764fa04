"""What lies between attentions, by the Triton kernels: norms with the residual's addition, and gates."""

from __future__ import annotations

import torch

from batchchat.engines.cuda.paged import OPTIONS, _on, _power

FORMS = ROUND_FIRST, ROUND_LAST, ONE_MORE = range(3)
"""How a norm scales: its rounded numbers by the weight, its exact ones, or those by the weight and one (Gemma)."""
LARGEST = 1 << 15
"""Numbers of a row that a norm takes."""
_PIECE = 1024


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float, form: int = ROUND_FIRST) -> torch.Tensor:
    """`x` `[..., size]` divided by the root of its mean square, times `weight` `[size]`.

    Source: https://arxiv.org/abs/1910.07467
    """
    return _norm(x, None, weight, epsilon, form)[0]


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float, form: int = ROUND_FIRST
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of `x + residual`, both `[..., size]`, and that sum as it is stored."""
    return _norm(x, residual, weight, epsilon, form)


def gated(gates: torch.Tensor, ups: torch.Tensor, gelu: bool = False) -> torch.Tensor:
    """SiLU of `gates`, or GELU in its tanh form, times `ups`, both `[..., size]`; halves of one tensor are not copied.

    Source: https://arxiv.org/abs/2002.05202
    """
    from batchchat.engines.cuda.kernels import rows as kernels

    out = gates.new_empty(gates.shape)
    gates, ups = _rows(gates), _rows(ups)
    count, size = gates.shape
    if out.numel():
        with _on(out):
            kernels.gate[count, -(-size // _PIECE)](
                out, gates, ups, gates.stride(0), ups.stride(0), size, GELU=gelu, BLOCK=_PIECE, num_warps=4, **OPTIONS
            )
    return out


def _norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, epsilon: float, form: int
) -> tuple[torch.Tensor, torch.Tensor]:
    from batchchat.engines.cuda.kernels import rows as kernels

    size = x.shape[-1]
    if size > LARGEST:
        raise ValueError(f"a norm takes rows of up to {LARGEST} numbers, not {size}")
    out = x.new_empty(x.shape)
    summed = out if residual is None else x.new_empty(x.shape)
    rows = _rows(x)
    added = rows if residual is None else _rows(residual)
    block = _power(size)
    if out.numel():
        with _on(out):
            kernels.norm[(len(rows),)](
                out,
                summed,
                rows,
                added,
                weight,
                rows.stride(0),
                added.stride(0),
                size,
                epsilon,
                FORM=form,
                RESIDUAL=residual is not None,
                BLOCK=block,
                num_warps=max(1, min(16, block // 512)),
                **OPTIONS,
            )
    return out, summed


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """`[rows, size]` of `[..., size]`, each row dense; copied where that cannot be seen as one stride."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
