"""A paged KV cache: keys and values in blocks of tokens that sequences share, found through a table per sequence.

`block_pool` and `block_table` keep the books and know no tensors; `paged_cache` is what the engine sees, `pages` are
the tensors, `batch` lays passes out, `contract` says what attention over pages is, `attention` does it by torch's
operators alone, `backends` finds who does it faster.
(Method: PagedAttention, https://arxiv.org/abs/2309.06180)
"""
