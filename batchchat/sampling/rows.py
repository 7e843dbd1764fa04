"""The row-wise sampler of every local engine: what a row gets depends on its own logits, settings, seed and step.

Rows are independent requests that share a forward pass. Each step, `choose` takes one token per row: biases, penalties
and bans, what the row's form allows, then the highest score (temperature 0), or temperature, top-k, top-p and min-p in
this order (as transformers applies them) and one uniform number against the cumulated probabilities. Ties go to the
lower token id everywhere.
Work that no row asks for is not done: a greedy batch costs one maximum.

The draw is in float64, where the last bit of a sum, which may depend on how a device splits it, decides nothing that
could ever be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from batchchat.chats import Request
from batchchat.sampling.choice import Choice, Tops
from batchchat.sampling.constraints import RowConstraints
from batchchat.sampling.cuts import Cuts, draw_cut, masked, place
from batchchat.sampling.penalties import RowPenalties, Texts
from batchchat.sampling.randomness import signed, uniform
from batchchat.sampling.staging import staged

Warp = Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor]
"""A further change of sampled rows' scores: token ids so far [rows, length], where they are at hand, and log-weights
[rows, vocabulary] after temperature, to the same with -inf where cut."""


@dataclass(frozen=True, slots=True)
class Warps:
    """What flags of `generate` do between temperature and draw."""

    before: Warp | None = None
    """Before top-k, top-p and min-p."""
    after: Warp | None = None


class SamplerRows:
    """The sampling state of the rows in flight, in the order of the logits' rows."""

    def __init__(
        self,
        vocab_size: int,
        device: torch.device | str = "cpu",
        warps: Warps | None = None,
        texts: Callable[[], Texts] | None = None,
    ):
        """`texts` says what each token adds to an answer's text; needed, and asked, only for `Settings.bad_texts` and
        `Settings.structured`."""
        self._device = torch.device(device)
        self._warps = warps or Warps()
        self._requests: list[Request] = []
        self._steps: list[int] = []
        self._step = torch.zeros(0, dtype=torch.int64, device=self._device)
        self._penalties = RowPenalties(vocab_size, self._device, texts)
        self._constraints = RowConstraints(vocab_size, self._device, texts)
        self._arrange()

    @classmethod
    def from_requests(
        cls,
        requests: Sequence[Request],
        vocab_size: int,
        device: torch.device | str = "cpu",
        warps: Warps | None = None,
        texts: Callable[[], Texts] | None = None,
    ) -> SamplerRows:
        """Rows for requests at their first token."""
        rows = cls(vocab_size, device, warps, texts)
        rows.extend(requests)
        return rows

    def __len__(self) -> int:
        return len(self._requests)

    def refusal(self, request: Request) -> str | None:
        """Why `extend` would raise ValueError for a request, in one sentence; None if it takes it."""
        return self._penalties.refusal(request.settings) or self._constraints.refusal(request)

    def extend(self, requests: Sequence[Request]) -> None:
        """Add rows at the end, at their first token."""
        self._requests += requests
        self._steps += [0] * len(requests)
        self._penalties.extend(requests)
        self._constraints.extend(requests)
        self._arrange()

    def select(self, rows: Sequence[int]) -> None:
        """Keep the rows with these numbers, in this order: removes and moves rows."""
        self._requests = [self._requests[row] for row in rows]
        self._steps = [self._steps[row] for row in rows]
        self._penalties.select(rows)
        self._constraints.select(rows)
        self._arrange()

    def choose(
        self, logits: torch.Tensor, raw: torch.Tensor | None = None, token_ids: torch.Tensor | None = None
    ) -> Choice:
        """The next token of each row. `logits` [rows, vocabulary], any float type; not changed. `raw`: the model's own,
        where `logits` were changed before. `token_ids` [rows, length]: for warps that read them."""
        logits = self._floats(logits)
        scores = self._constraints.apply(self._penalties.apply(logits))
        best, ids = scores.max(dim=-1)
        weights = None
        if self._sampled.numel():
            weights = self._weights(scores, token_ids)
            ids[self._sampled] = self._draw(weights, 0)
        failed = ~torch.isfinite(best)
        tops = None
        if self._wants_logprobs:
            tops = self._tops(logits if raw is None else self._floats(raw), scores, weights, ids)
        return Choice(ids, failed, tops, self._constraints.failures)

    def guess(self, logits: torch.Tensor, ahead: int) -> torch.Tensor:
        """The token that each row would take `ahead` steps from now on these logits of another model: chosen with the
        number of that step, on the penalties of this one. Ids [rows]; no row moves, so what a form allows after a guess
        is not asked."""
        scores = self._penalties.apply(self._floats(logits))
        if ahead == 0:
            scores = self._constraints.apply(scores)
        ids = scores.argmax(dim=-1)
        if self._sampled.numel():
            ids[self._sampled] = self._draw(self._weights(scores, None), ahead)
        return ids

    def append(self, ids: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """The tokens [rows] that the rows really took; moves every row to its next step, or only those in `rows`."""
        taking = range(len(self._steps)) if rows is None else rows
        self._penalties.append(ids, taking)
        self._constraints.append(ids, taking)
        for row in taking:
            self._steps[row] += 1
        if len(taking) == len(self._steps):
            self._step = self._step + 1
        else:
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
        self._cuts = Cuts(
            self._whole([s.top_k for s in chosen])[:, None],
            self._column([s.top_p for s in chosen]),
            self._column([s.min_p for s in chosen]),
        )
        is_cut = [bool(s.top_k or s.top_p < 1 or s.min_p) and self._warps.after is None for s in chosen]
        self._cut = self._whole([place for place, cut in enumerate(is_cut) if cut])
        self._uncut = self._whole([place for place, cut in enumerate(is_cut) if not cut])
        self._wants_logprobs = any(s.logprobs is not None for s in settings)

    def _whole(self, values: list[int]) -> torch.Tensor:
        return staged(values, self._device, torch.int64)

    def _column(self, values: list[float]) -> torch.Tensor:
        return staged(values, self._device, torch.float64)[:, None]

    def _floats(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.to(device=self._device, dtype=torch.float32)

    def _weights(self, scores: torch.Tensor, token_ids: torch.Tensor | None) -> torch.Tensor:
        """Log-weights [sampled rows, vocabulary] from which the rows draw: top-k, top-p and min-p are still to come,
        unless warps come after them. The highest is at 0."""
        scaled = _from_top(scores[self._sampled].to(torch.float64)) / self._temperature
        seen = None if token_ids is None else token_ids[self._sampled]
        if self._warps.before is not None:
            scaled = _from_top(self._warps.before(seen, scaled))
        scaled = torch.nan_to_num(scaled, nan=0.0, neginf=-torch.inf)  # of rows that failed, whose draw means nothing
        if self._warps.after is not None:
            scaled = _from_top(self._warps.after(seen, masked(scaled, self._cuts)))
        return scaled

    def _draw(self, weights: torch.Tensor, ahead: int) -> torch.Tensor:
        """Token ids of the sampled rows."""
        numbers = uniform(self._seeds, self._step + ahead)[:, None]
        ids = torch.empty(len(weights), dtype=torch.int64, device=self._device)
        if self._uncut.numel():
            summed = torch.softmax(weights[self._uncut], dim=-1).cumsum(dim=-1)
            ids[self._uncut] = place(summed, summed[:, -1:], numbers[self._uncut])[:, 0]
        if self._cut.numel():
            ids[self._cut] = draw_cut(weights[self._cut], numbers[self._cut], self._cuts.of(self._cut))
        return ids

    def _tops(self, raw: torch.Tensor, scores: torch.Tensor, weights: torch.Tensor | None, ids: torch.Tensor) -> Tops:
        """Of the model's own distribution or of the one that was drawn from, for the rows that asked."""
        asked = [(row, request.settings) for row, request in enumerate(self._requests)]
        asked = [(row, settings) for row, settings in asked if settings.logprobs is not None]
        rows = self._whole([row for row, _ in asked])
        logits = raw[rows]
        for number, (row, settings) in enumerate(asked):
            if settings.logprobs_of == "processed":
                logits[number] = scores[row] if weights is None else self._processed(row, scores, weights)
        logs = torch.log_softmax(logits, dim=-1)
        counts = tuple(settings.logprobs or 0 for _, settings in asked)
        values, tokens = logs.topk(min(max(counts), logs.shape[-1]), dim=-1)
        chosen = logs.gather(1, ids[rows][:, None])[:, 0]
        return Tops(tuple(row for row, _ in asked), counts, chosen, values, tokens)

    def _processed(self, row: int, scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Log-weights [vocabulary] of the row's choice: cut where it is sampled, as they are where it is greedy."""
        if row not in self._sampled_rows:
            return scores[row]
        number = self._sampled_rows.index(row)
        if self._warps.after is not None:
            return weights[number]
        return masked(weights[number : number + 1], self._cuts.of(slice(number, number + 1)))[0]


def _from_top(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.amax(dim=-1, keepdim=True)
