"""How much memory a batch takes, estimated from a model's shape.

The largest moment of a batch is one of two: the prefill, when all prompt tokens pass through a layer at once, or the
last decode step, when the cache is full and one layer of it is copied as it grows. Both hold the weights, the cache
so far and one row of logits per row of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchchat.models.shape import ModelShape

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
KV_BYTES = {"float32": 4.0, "bfloat16": 2.0, "8bit": 1.0, "4bit": 0.5}
"""Bytes per number of the cache."""

PACKED_SHARE = 0.5
"""Of the memory that is free beside the weights, what their copy for a CPU's matrix units may take."""

_BLOCK = 64
"""Weights of 4-bit blocks that share a scale; double quantization packs these scales in blocks of 256."""


@dataclass(frozen=True)
class Batch:
    """Rows of equal length: `prompt` tokens each, `answer` more at most."""

    rows: int
    prompt: int
    answer: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the largest moment of a batch."""

    weights: int
    cache: int
    activations: int
    """Everything that is computed and dropped again, the copies that a growing cache makes included."""
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.activations + self.logits


def weight_bytes(shape: ModelShape, dtype_bytes: int, quantization: str = "none", double: bool = False) -> int:
    """Bytes of the weights as they are loaded; `quantization` is none, 8bit or 4bit, `double` that of 4-bit scales."""
    if quantization == "none":
        return shape.parameters * dtype_bytes
    rest = (shape.parameters - shape.linear_parameters) * dtype_bytes
    if quantization == "8bit":
        return rest + shape.linear_parameters + 4 * shape.linear_rows
    scales = shape.linear_parameters // _BLOCK
    return rest + shape.linear_parameters // 2 + (scales + 4 * scales // 256 if double else 4 * scales)


def cache_bytes(shape: ModelShape, tokens: int, dtype_bytes: float) -> int:
    """Bytes of the cache of one row that is `tokens` long."""
    return round(shape.cache_numbers(tokens) * dtype_bytes)


def batch_memory(
    shape: ModelShape, batch: Batch, weights: int, dtype_bytes: int, eager: bool = False
) -> MemoryEstimate:
    """What a batch takes at its largest moment. `eager`: attention that writes out its scores."""
    prefill = MemoryEstimate(
        weights,
        batch.rows * cache_bytes(shape, batch.prompt, dtype_bytes),
        batch.rows * _prefill_bytes(shape, batch.prompt, dtype_bytes, eager),
        batch.rows * _logit_bytes(shape, dtype_bytes),
    )
    tokens = batch.prompt + batch.answer
    decode = MemoryEstimate(
        weights,
        batch.rows * cache_bytes(shape, tokens, dtype_bytes),
        batch.rows * _decode_bytes(shape, tokens, dtype_bytes),
        batch.rows * _logit_bytes(shape, dtype_bytes),
    )
    return max(prefill, decode, key=lambda memory: memory.total)


def rows_that_fit(
    shape: ModelShape, prompt: int, answer: int, room: int, dtype_bytes: int, eager: bool = False, beside: int = 0
) -> int:
    """The largest batch of rows of this length within `room` bytes beside the weights; 0 where not even one fits.
    `beside`: what else each row takes."""
    one = batch_memory(shape, Batch(1, prompt, answer), 0, dtype_bytes, eager)
    return max(0, room) // max(1, one.total + beside)


def _prefill_bytes(shape: ModelShape, tokens: int, dtype_bytes: int, eager: bool) -> int:
    """Of one row. In the feed-forward part the gate, the activated gate and their product with the other half live at
    once, beside the residual, its normed copy, the layer's input and what becomes of it; in the attention the queries,
    their rotated copy, the keys and values spread over all heads, and what comes out."""
    width = max(3 * shape.intermediate + 4 * shape.hidden, 4 * shape.hidden + 5 * shape.attention)
    mask = tokens * tokens
    scores = shape.num_heads * tokens * tokens * (dtype_bytes + 4) if eager else 0
    return tokens * width * dtype_bytes + mask + scores


def _decode_bytes(shape: ModelShape, tokens: int, dtype_bytes: int) -> int:
    """Of one row: a layer's keys (or values) exist twice while one more is joined to them; where several query heads
    share a key head, keys and values are spread over all of them too."""
    layer = max((layer.numbers(tokens) for layer in shape.cache), default=0)
    spread = 2 * shape.attention * tokens
    return (layer // 2 + (spread if spread > layer else 0)) * dtype_bytes


def _logit_bytes(shape: ModelShape, dtype_bytes: int) -> int:
    """Of one row: as the model gives them, and the float32 copy from which tokens are chosen."""
    return shape.vocabulary * (dtype_bytes + 4)
