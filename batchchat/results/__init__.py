"""The results of a run, finished or not, sample by sample: what is viewed, exported and handed to Python."""

from batchchat.results.opening import Results, open_results
from batchchat.results.sample import Sample, State

__all__ = ["Results", "Sample", "State", "open_results"]
