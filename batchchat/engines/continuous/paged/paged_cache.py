"""A KV cache in pages, as the engine sees it: the books, the tensors, and attention over them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from batchchat.engines.continuous.acceleration import Acceleration
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.paged.backends import Backend, choose
from batchchat.engines.continuous.paged.batch import Form, PagedPass, blank, lay_out
from batchchat.engines.continuous.paged.block_table import BlockTables
from batchchat.engines.continuous.paged.contract import PagedAttention, Seen
from batchchat.engines.continuous.paged.pages import Pages
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE
from batchchat.engines.facts import AttentionFacts


class PagedCache(BlockTables):
    """Block tables whose blocks are pages: see `base.KVStore`. All memory is taken when the layers are known, once.

    `longest`: tokens that a sequence has at most, where that is known.
    """

    def __init__(self, budget: int, granularity: int = 1, longest: int | None = None):
        super().__init__(budget, granularity)
        self._longest = min(budget, longest or budget)
        self.pages = Pages(self.pool.num_blocks)
        self.forms: Sequence[Form] = ()
        self.backends: dict[int, Backend] = {}
        """Per layer who attends over its pages."""

    def drop_idle(self) -> None:
        """Pages are one piece of memory for the run: there is nothing to give back."""

    def lay_out(
        self,
        spans: Sequence[Span[Any]],
        device: torch.device,
        size: int | None = None,
        num_logits: int | None = None,
        *,
        batch_invariant: bool = False,
    ) -> PagedPass:
        self.pages.copy(self.copies)
        self.copies.clear()
        return lay_out(spans, device, size, num_logits, batch_invariant, self.forms)

    def attended_by(self) -> AttentionFacts:
        chosen = self.backends.values()
        refused = {name: why for backend in chosen for name, why in backend.refused.items()}
        return AttentionFacts(by=tuple(dict.fromkeys(backend.name for backend in chosen)), not_by=refused)

    @property
    def gathers(self) -> bool:
        return any(backend.gathers for backend in self.backends.values())

    def blank(self, forms: Collection[Form], device: torch.device, batch_invariant: bool) -> PagedPass:
        return blank(forms, -(-self._longest // BLOCK_SIZE) + 1, device, batch_invariant)

    def attend(
        self,
        work: PagedPass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
        faster: Acceleration | None = None,
    ) -> torch.Tensor:
        new_keys, new_values = key[0].transpose(0, 1), value[0].transpose(0, 1)
        queries = query[0].transpose(0, 1)
        attention, keys, values = self.layer(layer, queries, new_keys, new_values, spec)
        attention.write(new_keys, new_values, keys, values, work.slots)
        return self.read(work, layer, queries, spec)[None]

    def layer(
        self, number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spec: AttentionSpec
    ) -> tuple[PagedAttention, torch.Tensor, torch.Tensor]:
        """Who attends in a layer with such queries, keys and values `[tokens, heads, dim]`, and its pages."""
        self.pages.learn(number, key, value)
        keys, values = self.pages.keys[number], self.pages.values[number]
        if number not in self.backends:
            self.backends[number] = choose(query, keys, values, spec)
        return self.backends[number].attention, keys, values

    def read(self, work: PagedPass, number: int, queries: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
        """Attention of a pass's queries `[size, heads, dim]` over the pages of a layer, into which its keys and values
        are written: `[size, heads, value_dim]`."""
        attention, keys, values = self.backends[number].attention, self.pages.keys[number], self.pages.values[number]
        rows = work.num_decoding
        invariant = work.batch_invariant
        out = []
        if rows:
            seen = Seen(keys, values, work.tables[:rows], work.lengths[:rows])
            out.append(attention.decode(queries[:rows], seen, spec, batch_invariant=invariant))
        if rows < work.size:
            seen = Seen(keys, values, work.tables[rows:], work.lengths[rows:])
            out.append(attention.prefill(queries[rows:], seen, work.starts, spec, batch_invariant=invariant))
        return out[0] if len(out) == 1 else torch.cat(out)
