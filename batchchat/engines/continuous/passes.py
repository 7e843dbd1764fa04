"""Which spans of a step share a pass, and how many places a pass has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from batchchat.engines.base import EngineConfig
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.paged.batch import Form, row_bucket

WIDE_CHUNK, WIDE_INVARIANT_CHUNK = 8192, 512
"""`EngineConfig.chunk` of accelerators, whose matrix units are busy only with many tokens; in strict mode passes are
filled up to it."""
INVARIANT_CHUNK = 64
"""In strict mode prompts are computed in chunks that begin at multiples of so many tokens."""
_APART_ROWS = 16
"""Rows of a strict pass where prompts are computed each for itself."""
_LEAST_ROWS = 32
"""Rows of a strict pass that all who write share: few cost an accelerator as much, and are summed up in ways of their
own."""
_READ_TOKENS = 64, 128, 256, 512, 1024
_READING_ROWS = 32
"""Tokens of prompts, and rows that read them, of passes that are recorded."""
_LAST_ROWS = 8
"""Rows of such passes that take one token where few write, or none: a prompt's last token may be one of them."""


class Part(NamedTuple):
    """Spans that are one pass of `size` places with `num_logits` logits, padding included."""

    spans: list[Span[Any]]
    size: int
    num_logits: int


def parts(spans: Sequence[Span[Any]], config: EngineConfig) -> Iterator[Part]:
    """A step's spans, pass by pass: all in one with a little padding, or in strict mode in passes of fixed size, unless
    they may have any. The spans' sequences say whether they write (`is_writing`)."""
    everything = list(spans)
    if not config.batch_invariant or config.products_are_invariant:
        tokens, logits = sum(span.count for span in spans), sum(span.num_logits for span in spans)
        least = 2 if config.batch_invariant else 1  # one row alone is summed up in another way
        yield Part(everything, max(least, round_up(tokens)), max(least, round_up(logits)) if logits else 0)
        return
    writing = [span for span in everything if span.sequence.is_writing]
    reading = [span for span in everything if not span.sequence.is_writing]
    rows = _fixed_rows(config)
    for first in range(0, len(writing), rows):
        yield Part(writing[first : first + rows], rows, rows)
    if config.shared_passes and reading:
        yield Part(reading, config.chunk, rows)
    elif not config.shared_passes:
        for span in reading:
            yield Part([span], INVARIANT_CHUNK, int(span.sampled))


def round_up(count: int) -> int:
    """A number of rows that products see more often: the first one of a shape costs as much as ten later ones."""
    step = 1 if count <= 8 else 4 if count <= 64 else 16
    return -(-count // step) * step


def pass_sizes(config: EngineConfig) -> set[int]:
    """The numbers of places and of logits that passes of any size may have."""
    return {size(count) for count in range(2, config.max_rows + config.chunk + 1) for size in (round_up, row_bucket)}


def fixed_sizes(config: EngineConfig) -> tuple[int, int]:
    """The places of strict passes of fixed size that are shared: of rows that write, and of prompts."""
    return _fixed_rows(config), config.chunk


def recorded_forms(config: EngineConfig) -> list[Form]:
    """Of the passes over pages that are worth a recording: those that only decode, and those with few tokens of
    prompts, which take longer to launch than to compute."""
    if config.batch_invariant and not config.products_are_invariant:
        rows = _fixed_rows(config)
        only = [Form(rows, 0, 0, rows)]
        reading = Form(_LAST_ROWS, config.chunk - _LAST_ROWS, _READING_ROWS, rows)
        return [*only, reading] if config.shared_passes else only
    least = 2 if config.batch_invariant else 1
    most = row_bucket(max(least, config.max_rows))
    return [
        *(Form(rows, 0, 0, rows) for rows in sorted({row_bucket(rows) for rows in range(least, most + 1)})),
        *(
            Form(rows, tokens, _READING_ROWS, rows + _READING_ROWS)
            for rows in sorted({min(most, _LAST_ROWS), most})
            for tokens in _READ_TOKENS
        ),
    ]


def _fixed_rows(config: EngineConfig) -> int:
    """Of a strict pass of fixed size."""
    return row_bucket(max(_LEAST_ROWS, config.max_rows)) if config.shared_passes else _APART_ROWS
