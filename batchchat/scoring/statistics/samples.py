"""What several samples per chat say: pass@k and majority vote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that at least one of k samples, drawn from n of which `correct` are right, is right.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. (arXiv 2107.03374), as a product that does not
    overflow. ValueError for k > n, which n samples cannot answer.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} right of {n} samples is impossible")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples per chat, and there are {n}; raise generation.samples")
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def majority_vote(answers: Sequence[Hashable | None]) -> Hashable | None:
    """The answer given most often; of equally frequent ones the one given first. Samples without an answer (None)
    have no vote; None where none has."""
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=lambda answer: votes[answer]) if votes else None
