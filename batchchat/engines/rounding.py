"""Whether two ways to compute the same logits differ by more than rounding explains."""

from __future__ import annotations

import torch

_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.15}


def tolerance(dtype: torch.dtype) -> float:
    """The difference of logits that rounding may explain: root mean square over the vocabulary at one place, in
    standard deviations of the logits."""
    return _TOLERANCE.get(dtype, _TOLERANCE[torch.bfloat16])


def logit_differences(ours: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """At each place `[..., places]` of logits `[..., places, vocabulary]`; NaN where either holds one."""
    ours, others = ours.float(), others.float()
    return (ours - others).pow(2).mean(dim=-1).sqrt() / others.std().clamp_min(1e-6)
