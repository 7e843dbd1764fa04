"""Top-k, top-p and min-p, in this order, as transformers applies them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

CANDIDATES = 256
"""How many of the most likely tokens are looked at before the whole vocabulary is sorted."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Columns [rows, 1] of the settings that cut a distribution."""

    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def of(self, rows: torch.Tensor | slice) -> Cuts:
        return Cuts(self.top_k[rows], self.top_p[rows], self.min_p[rows])


def draw_cut(scaled: torch.Tensor, numbers: torch.Tensor, cuts: Cuts) -> torch.Tensor:
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
    summed, kept, num_by_k = _keep(order, mass, cuts)
    drawn = ids.gather(1, places).gather(1, place(summed, summed.gather(1, kept - 1), numbers))[:, 0]
    # Of tokens as likely as the last candidate, any may be among the candidates: only the more likely ones are sure.
    sure = (order > order[:, -1:]).sum(dim=-1, keepdim=True)
    in_full = ((kept > sure) | ((cuts.top_k > 0) & (num_by_k > sure)))[:, 0].nonzero()[:, 0]
    if in_full.numel():
        drawn[in_full] = _draw_sorted(scaled[in_full], numbers[in_full], cuts.of(in_full))
    return drawn


def masked(scaled: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    """`scaled` [rows, vocabulary], its highest at 0, with -inf where cut."""
    order, ids = scaled.sort(dim=-1, descending=True, stable=True)
    _, kept, _ = _keep(order, order.exp().sum(dim=-1, keepdim=True), cuts)
    is_out = torch.arange(order.shape[-1], device=order.device) >= kept
    return torch.empty_like(scaled).scatter_(1, ids, order.masked_fill(is_out, -torch.inf))


def _draw_sorted(scaled: torch.Tensor, numbers: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    order, ids = scaled.sort(dim=-1, descending=True, stable=True)
    summed, kept, _ = _keep(order, order.exp().sum(dim=-1, keepdim=True), cuts)
    return ids.gather(1, place(summed, summed.gather(1, kept - 1), numbers))[:, 0]


def _keep(order: torch.Tensor, mass: torch.Tensor, cuts: Cuts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of `order` [rows, n], log-weights from the highest on: their cumulated weights, how many places all cuts keep,
    and how many top-k does, which keeps those as likely as the last of its k.

    `mass` [rows, 1] is the weight of the whole vocabulary; where top-k cuts first, its share counts instead.
    """
    weights = order.exp()
    summed = weights.cumsum(dim=-1)
    n = order.shape[-1]
    last = order.gather(1, cuts.top_k.clamp(min=1, max=n) - 1)
    possible = order > -torch.inf  # what is banned is never kept: it would only make the cut look wide
    num_by_k = torch.where(cuts.top_k > 0, ((order >= last) & possible).sum(dim=-1, keepdim=True), n)
    mass = torch.where(cuts.top_k > 0, summed.gather(1, num_by_k - 1), mass)
    keeps = (torch.arange(n, device=order.device) < num_by_k) & (order >= cuts.min_p.log()) & possible
    # The token that reaches top-p stays: a place is out when those before it have reached it.
    keeps &= (cuts.top_p >= 1) | (summed - weights < cuts.top_p * mass)
    return summed, keeps.sum(dim=-1, keepdim=True).clamp(min=1), num_by_k


def place(summed: torch.Tensor, total: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Where cumulated weights [rows, n] first exceed `numbers` [rows, 1] of `total`: never at a weight of zero."""
    target = torch.minimum(numbers * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(summed, target, right=True).clamp(max=summed.shape[-1] - 1)
