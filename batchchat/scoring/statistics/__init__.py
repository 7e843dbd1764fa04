"""What scores say together: means, intervals, paired tests, ratings, agreement and power. numpy and scipy only.

Every function states its method's source, refuses what it cannot answer with ValueError, and gives n back where an
estimate could be read without it.
"""

from batchchat.scoring.statistics.agreement import cohen_kappa, correlation
from batchchat.scoring.statistics.bootstrap import bootstrap_mean, paired_bootstrap
from batchchat.scoring.statistics.estimate import Estimate
from batchchat.scoring.statistics.intervals import paired_interval, score_interval
from batchchat.scoring.statistics.means import clustered_mean, mean
from batchchat.scoring.statistics.paired import Test, holm, mcnemar, paired_permutation
from batchchat.scoring.statistics.power import detectable_difference
from batchchat.scoring.statistics.proportions import clustered_tango, clustered_wilson, tango, wilson
from batchchat.scoring.statistics.ratings import bradley_terry, length_controlled_win_rate, win_rate
from batchchat.scoring.statistics.samples import majority_vote, pass_at_k

__all__ = [
    "Estimate",
    "Test",
    "bootstrap_mean",
    "bradley_terry",
    "clustered_mean",
    "clustered_tango",
    "clustered_wilson",
    "cohen_kappa",
    "correlation",
    "detectable_difference",
    "holm",
    "length_controlled_win_rate",
    "majority_vote",
    "mcnemar",
    "mean",
    "paired_bootstrap",
    "paired_interval",
    "paired_permutation",
    "pass_at_k",
    "score_interval",
    "tango",
    "wilson",
    "win_rate",
]
