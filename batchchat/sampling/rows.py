"""The row-wise sampler of every local engine: what a row gets depends on its own logits, settings, seed and step.

Rows are independent requests that share a forward pass. Each step, `choose` takes one token per row: penalties and
bans, then the highest logit (temperature 0), or temperature, top-k, top-p and min-p in this order (as transformers
applies them) and one uniform number against the cumulated probabilities. Ties go to the lower token id everywhere.
Work that no row asks for is not done: a greedy batch costs one maximum.

The draw is in float64, where the last bit of a sum, which may depend on how a device splits it, decides nothing that
could ever be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from batchchat.chats import Logprob, Request
from batchchat.sampling.penalties import RowPenalties
from batchchat.sampling.randomness import signed, uniform

CANDIDATES = 256
"""How many of the most likely tokens are looked at before the whole vocabulary is sorted."""

Warp = Callable[[torch.Tensor], torch.Tensor]
"""A further cut of sampled rows: logits [rows, vocabulary] after temperature, to the same with -inf where cut."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One step. `ids` [rows] int64; `failed` [rows] bool marks rows without any token to choose (NaN, +inf or only
    -inf logits), whose id means nothing; `logprobs` one per row, None for rows that did not ask."""

    ids: torch.Tensor
    failed: torch.Tensor
    logprobs: list[Logprob | None] | None = None


class SamplerRows:
    """The sampling state of the rows in flight, in the order of the logits' rows."""

    def __init__(self, vocab_size: int, device: torch.device | str = "cpu", warp: Warp | None = None):
        self._device = torch.device(device)
        self._warp = warp
        self._requests: list[Request] = []
        self._steps: list[int] = []
        self._step = torch.zeros(0, dtype=torch.int64, device=self._device)
        self._penalties = RowPenalties(vocab_size, self._device)
        self._arrange()

    @classmethod
    def from_requests(
        cls,
        requests: Sequence[Request],
        vocab_size: int,
        device: torch.device | str = "cpu",
        warp: Warp | None = None,
    ) -> SamplerRows:
        """Rows for requests at their first token."""
        rows = cls(vocab_size, device, warp)
        rows.extend(requests)
        return rows

    def __len__(self) -> int:
        return len(self._requests)

    def extend(self, requests: Sequence[Request]) -> None:
        """Add rows at the end, at their first token."""
        self._requests += requests
        self._steps += [0] * len(requests)
        self._penalties.extend(requests)
        self._arrange()

    def select(self, rows: Sequence[int]) -> None:
        """Keep the rows with these numbers, in this order: removes and moves rows."""
        self._requests = [self._requests[row] for row in rows]
        self._steps = [self._steps[row] for row in rows]
        self._penalties.select(rows)
        self._arrange()

    def choose(self, logits: torch.Tensor) -> Choice:
        """The next token of each row. `logits` [rows, vocabulary], any float type; not changed."""
        logits = logits.to(device=self._device, dtype=torch.float32)
        best, ids = self._pick(logits, 0)
        failed = ~torch.isfinite(best)
        return Choice(ids, failed, self._logprobs(logits, ids) if self._wants_logprobs else None)

    def guess(self, logits: torch.Tensor, ahead: int) -> torch.Tensor:
        """The token that each row would take `ahead` steps from now on these logits of another model: chosen with the
        number of that step, on the penalties of this one. Ids [rows]; no row moves."""
        return self._pick(logits.to(device=self._device, dtype=torch.float32), ahead)[1]

    def append(self, ids: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """The tokens [rows] that the rows really took; moves every row to its next step, or only those in `rows`."""
        self._penalties.append(ids, rows)
        taking = set(range(len(self._steps)) if rows is None else rows)
        self._steps = [step + (row in taking) for row, step in enumerate(self._steps)]
        self._step = self._whole([self._steps[row] for row in self._sampled_rows])

    def _arrange(self) -> None:
        """Per-row tensors of the rows as they stand now."""
        settings = [request.settings for request in self._requests]
        sampled = [row for row, row_settings in enumerate(settings) if row_settings.temperature > 0]
        chosen = [settings[row] for row in sampled]
        self._sampled_rows = sampled
        self._sampled = self._whole(sampled)
        self._seeds = self._whole([signed(self._requests[row].seed) for row in sampled])
        self._step = self._whole([self._steps[row] for row in sampled])
        self._temperature = self._column([s.temperature for s in chosen])
        self._cuts = _Cuts(
            self._whole([s.top_k for s in chosen])[:, None],
            self._column([s.top_p for s in chosen]),
            self._column([s.min_p for s in chosen]),
        )
        is_cut = [bool(s.top_k or s.top_p < 1 or s.min_p) for s in chosen]
        self._cut = self._whole([place for place, cut in enumerate(is_cut) if cut])
        self._uncut = self._whole([place for place, cut in enumerate(is_cut) if not cut])
        self._wants_logprobs = any(s.logprobs is not None for s in settings)

    def _whole(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _column(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self._device)[:, None]

    def _pick(self, logits: torch.Tensor, ahead: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Highest score and chosen id of each row."""
        scores = self._penalties.apply(logits)
        best, ids = scores.max(dim=-1)
        if self._sampled.numel():
            ids[self._sampled] = self._draw(scores, ahead)
        return best, ids

    def _draw(self, scores: torch.Tensor, ahead: int) -> torch.Tensor:
        """Token ids of the sampled rows."""
        scaled = _from_top(scores[self._sampled].to(torch.float64)) / self._temperature
        if self._warp is not None:
            scaled = _from_top(self._warp(scaled.to(torch.float32)).to(torch.float64))
        scaled = torch.nan_to_num(scaled, nan=0.0)  # of rows that failed, whose draw means nothing
        numbers = uniform(self._seeds, self._step + ahead)[:, None]
        ids = torch.empty(len(scaled), dtype=torch.int64, device=self._device)
        if self._uncut.numel():
            weights = torch.softmax(scaled[self._uncut], dim=-1).cumsum(dim=-1)
            ids[self._uncut] = _place(weights, weights[:, -1:], numbers[self._uncut])[:, 0]
        if self._cut.numel():
            ids[self._cut] = _draw_cut(scaled[self._cut], numbers[self._cut], self._cuts.of(self._cut))
        return ids

    def _logprobs(self, logits: torch.Tensor, ids: torch.Tensor) -> list[Logprob | None]:
        """Of the model's own distribution, for the rows that asked."""
        asked = [request.settings.logprobs for request in self._requests]
        rows = [row for row, count in enumerate(asked) if count is not None]
        logs = torch.log_softmax(logits[rows], dim=-1)
        most = max(count for count in asked if count is not None)
        values, tokens = (part.tolist() for part in logs.topk(min(most, logs.shape[-1]), dim=-1))
        chosen = ids[rows]
        found = logs.gather(1, chosen[:, None])[:, 0].tolist()
        out: list[Logprob | None] = [None] * len(asked)
        for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            ranked = sorted(zip(tokens[place], values[place], strict=True), key=lambda pair: (-pair[1], pair[0]))
            out[row] = Logprob(token, found[place], tuple(ranked[: asked[row]]))
        return out


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Columns [rows, 1] of the settings that cut a distribution."""

    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def of(self, rows: torch.Tensor) -> _Cuts:
        return _Cuts(self.top_k[rows], self.top_p[rows], self.min_p[rows])


def _draw_cut(scaled: torch.Tensor, numbers: torch.Tensor, cuts: _Cuts) -> torch.Tensor:
    """Ids for rows with a cut. `scaled` [rows, vocabulary] has its highest at 0.

    Sorting a vocabulary costs more than all else, so the most likely tokens are tried first; a row whose cut keeps more
    than these is sorted in full. Which way a row goes depends on the row alone.
    """
    vocabulary = scaled.shape[-1]
    if vocabulary <= CANDIDATES:
        return _draw_sorted(scaled, numbers, cuts)
    ids = scaled.topk(CANDIDATES, dim=-1).indices.sort(dim=-1).values
    order, places = scaled.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    mass = 1 / torch.softmax(scaled, dim=-1).amax(dim=-1, keepdim=True)  # the top token's weight is exp(0)
    places_kept, kept = _keep(order, mass, numbers, cuts)
    drawn = ids.gather(1, places).gather(1, places_kept)[:, 0]
    # Of tokens as likely as the last candidate, any may be among the candidates: only the more likely ones are sure.
    sure = (order > order[:, -1:]).sum(dim=-1, keepdim=True)
    in_full = ((kept > sure) | (cuts.top_k > CANDIDATES))[:, 0].nonzero()[:, 0]
    if in_full.numel():
        drawn[in_full] = _draw_sorted(scaled[in_full], numbers[in_full], cuts.of(in_full))
    return drawn


def _draw_sorted(scaled: torch.Tensor, numbers: torch.Tensor, cuts: _Cuts) -> torch.Tensor:
    order, ids = scaled.sort(dim=-1, descending=True, stable=True)
    mass = order.exp().sum(dim=-1, keepdim=True)
    places, _ = _keep(order, mass, numbers, cuts)
    return ids.gather(1, places)[:, 0]


def _keep(
    order: torch.Tensor, mass: torch.Tensor, numbers: torch.Tensor, cuts: _Cuts
) -> tuple[torch.Tensor, torch.Tensor]:
    """The drawn place in `order` [rows, n], log-weights from the highest on, and how many places the cuts keep.

    `mass` [rows, 1] is the weight of the whole vocabulary; where top-k cuts first, its share counts instead.
    """
    weights = order.exp()
    summed = weights.cumsum(dim=-1)
    n = order.shape[-1]
    num_by_k = torch.where(cuts.top_k > 0, cuts.top_k, n).clamp(max=n)
    mass = torch.where(cuts.top_k > 0, summed.gather(1, num_by_k - 1), mass)
    rank = torch.arange(n, device=order.device)
    keeps = (rank < num_by_k) & (order >= cuts.min_p.log())
    # The token that reaches top-p stays: a place is out when those before it have reached it.
    keeps &= (cuts.top_p >= 1) | (summed - weights < cuts.top_p * mass)
    kept = keeps.sum(dim=-1, keepdim=True).clamp(min=1)
    return _place(summed, summed.gather(1, kept - 1), numbers), kept


def _place(summed: torch.Tensor, total: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Where cumulated weights [rows, n] first exceed `numbers` [rows, 1] of `total`: never at a weight of zero."""
    target = torch.minimum(numbers * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(summed, target, right=True).clamp(max=summed.shape[-1] - 1)


def _from_top(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.amax(dim=-1, keepdim=True)
