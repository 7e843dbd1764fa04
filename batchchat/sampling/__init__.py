"""One row-wise sampler for every local engine: a row's tokens depend on nothing but the row."""

from batchchat.sampling.randomness import signed, uniform
from batchchat.sampling.rows import Choice, SamplerRows, Warp, Warps

__all__ = ["Choice", "SamplerRows", "Warp", "Warps", "signed", "uniform"]
