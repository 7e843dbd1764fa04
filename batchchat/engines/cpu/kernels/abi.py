"""The words of each kernel's block of parameters, known to those who compile kernels and to those who call them.

A block is 64-bit integers in the order of a layout. Addresses are given as integers and floats as their bits. A layout
goes into compiled code as a type, so that code kept from before is not used with another one.
"""

from __future__ import annotations

import numpy as np


def _words(names: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in names.split()])


NORM = _words("rows size source stride weight target epsilon added times group group_stride")
"""Row `i` begins at `source`, `i // group` times `group_stride` and `i % group` times `stride` further on, in numbers.
`added`: the address of rows to add first, multiplied by `times` in place, or 0."""

ADD = _words("rows size source added times")
"""The same without a norm."""

GATE = _words("rows size source target limit alpha")
"""`limit` and `alpha` are those of `CLAMPED`."""

ROTARY = _words(
    "tokens half dim cosines sines table_stride "
    "query_heads query query_token query_head query_target "
    "key_heads key key_token key_head key_target "
    "value_heads value value_token value_head value_target value_dim"
)
"""`_token` and `_head`: from one to the next, in numbers. Targets are `[tokens, heads, dim]` without gaps. Numbers of a
head behind the first two halves are copied."""

WRITE_KV = _words("rows heads key key_token key_head value value_token value_head plan bases key_dim value_dim")

ATTENTION = _words(
    "rows heads query query_token query_head out out_token scaling softcap window plan bases sinks shared "
    "key_dim value_dim"
)
"""`shared`: query heads that read a key head. `sinks`: an address, or 0. `softcap`: 0 for none."""

WEIGHTED = _words("rows size outputs source weight target bias")
"""`bias`: an address, or 0."""

QUANTIZED_ROWS = _words("rows size padded source stride target threshold scales counts columns")
"""Rows `[rows, size]`, `stride` numbers apart, to numbers of 8 bits `[rows, padded]`: see
`source.quantized.quantized_rows`."""

QUANTIZED_PRODUCT = _words(
    "rows size padded source numbers stride target target_stride scales counts columns parts num_parts"
)
"""`source`: rows as the one before made them of `numbers`, which are `stride` apart; those of 4 bits' weights are
multiplied as they are."""

PART = _words("weight scales outputs bias beyond shift nested code offset table sums")
"""A weight `[outputs, size]` of several, whose first output is at `beyond` in a row of the target, and its bias, as
floats. Of one of 8 bits `sums` are those of its rows. Of one of 4 bits, `2 ** shift` numbers have one of the `scales`;
where `nested` is not 0, these are bytes, for which numbers are looked up in `code`, 256 times one of `nested`, to which
`offset` is added."""

PLAN = _words("first count row length end pool")
"""One row of a pass's plan: its first token in the pass, how many it has, its row in the pool, the pool's length, how
many keys its last token sees, and the pool's place in the list."""

BASES = _words("keys values")
"""Where a pool's keys and values lie."""

TABLE = _words("table first last threads cursors states team begin end none algorithm error")
"""What the loop is given: a table and the rows to run; how many threads, memory for two sets of their cursors and a
word for each row, 0 all; the address of what a team runs, and room for its rows; two arguments of products; and room
for an error."""

WORDS = 40
"""Of an operation in a table: see `loop`."""
ALONE, SHARED, PRODUCT, FREE = range(4)
"""Kinds of operations; the first two are kernels."""
BLOCK = 3
"""The word at which a kernel's block begins; how many rows it computes is the first. The word before it is the address
of cursors: see `CURSOR`."""
CURSOR = 8
"""Words of a cursor, which says how many pieces of one thread's share are taken: a line of the cache of its own. There
is one for each thread, and all are 0 when a kernel is called."""
RESULT, PAIRS = 4, 6
"""Words of a product: where the handle of its result stands, and where its pairs begin."""

FORMS = ROUND_FIRST, ROUND_LAST, ONE_MORE = range(3)
"""How a norm scales: its rounded numbers by the weight, its exact ones, or those by the weight and one."""

GATES = SILU, GELU, CLAMPED = range(3)
"""By what a gate multiplies: SiLU, GELU in its tanh form, or SiLU of `alpha` times a number of at most `limit`, over
`alpha`, with one added to the other half, which lies between `-limit` and `limit` (GPT-OSS)."""

ROUNDINGS = FLOAT32, BFLOAT16, FLOAT16 = range(3)
"""What a number is rounded to before it is used as a float."""


def block(layout: np.dtype, **values: int) -> list[int]:
    """Values in a layout's order. Every word is named."""
    assert layout.names is not None
    assert values.keys() == set(layout.names), values.keys() ^ set(layout.names)
    return [values[name] for name in layout.names]


def word(layout: np.dtype, name: str) -> int:
    """The place of a word in its block."""
    assert layout.fields is not None
    return layout.fields[name][1] // 8
