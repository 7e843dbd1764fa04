"""A KV cache in pages, as the engine sees it: the books, the tensors, and attention over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from batchchat.engines.continuous.acceleration import Acceleration
from batchchat.engines.continuous.attention_spec import Scoring
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.paged import attention as torch_attention
from batchchat.engines.continuous.paged.attention import PagedAttention
from batchchat.engines.continuous.paged.batch import PagedPass, lay_out
from batchchat.engines.continuous.paged.block_table import BlockTables
from batchchat.engines.continuous.paged.pages import Pages


class PagedCache(BlockTables):
    """Block tables whose blocks are pages: see `base.KVStore`. All memory is taken when the layers are known, once.

    `attention` attends over the pages of each layer.
    """

    def __init__(self, budget: int, quantum: int = 1, attention: PagedAttention = torch_attention):
        super().__init__(budget, quantum)
        self.pages = Pages(self.pool.num_blocks)
        self._attention = attention

    def drop_idle(self) -> None:
        """Pages are one piece of memory for the run: there is nothing to give back."""

    def lay_out(
        self,
        spans: Sequence[Span[Any]],
        device: torch.device,
        size: int | None = None,
        num_logits: int | None = None,
        *,
        exact: bool = False,
    ) -> PagedPass:
        self.pages.copy(self.copies)
        self.copies.clear()
        return lay_out(spans, device, size, num_logits, self.pool.num_blocks, exact)

    def attend(
        self,
        work: PagedPass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
        faster: Acceleration | None = None,
    ) -> torch.Tensor:
        self.pages.learn(layer, key, value)
        keys, values = self.pages.keys[layer], self.pages.values[layer]
        queries = query[0].transpose(0, 1)
        self._attention.write(key[0].transpose(0, 1), value[0].transpose(0, 1), keys, values, work.slots)
        rows = work.num_decoding
        scaling, bends = scoring.scaling, scoring[1:]
        out = []
        if rows:
            tables, lengths = work.tables[:rows], work.lengths[:rows]
            decode = self._attention.decode
            out.append(decode(queries[:rows], keys, values, tables, lengths, scaling, *bends, strict=work.exact))
        if rows < work.size:
            tables, lengths = work.tables[rows:], work.lengths[rows:]
            prefill = self._attention.prefill
            out.append(
                prefill(queries[rows:], keys, values, tables, lengths, work.starts, scaling, *bends, strict=work.exact)
            )
        return (out[0] if len(out) == 1 else torch.cat(out))[None]
