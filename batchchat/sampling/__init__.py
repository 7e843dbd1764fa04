"""One row-wise sampler for every local engine: a row's tokens depend on nothing but the row."""

from batchchat.sampling.choice import Choice, Reader, Reading, Told, reader
from batchchat.sampling.randomness import signed, uniform
from batchchat.sampling.rows import SamplerRows, Warp, Warps
from batchchat.sampling.staging import staged

__all__ = [
    "Choice",
    "Reader",
    "Reading",
    "SamplerRows",
    "Told",
    "Warp",
    "Warps",
    "reader",
    "signed",
    "staged",
    "uniform",
]
