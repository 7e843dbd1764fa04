"""Arithmetic on vectors of 16 floats, for the loops in which a compiler alone does not find it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.source.writing import prefetch, splat

LANES = 16

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_PAIRED = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
_FAST = ("reassoc", "contract", "nsz")


def _add(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b, flags=_FAST)


def _multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=_FAST), total, flags=_FAST)


def _load(builder: Any, base: Any, number: int) -> Any:
    """Vector `number` behind a pointer to floats."""
    place = builder.gep(base, [ir.Constant(ir.IntType(64), number * LANES)])
    return builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4)


def _store(builder: Any, vector: Any, base: Any, number: int) -> None:
    place = builder.gep(base, [ir.Constant(ir.IntType(64), number * LANES)])
    builder.store(vector, builder.bitcast(place, _VECTOR.as_pointer()), align=4)


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes))


def sums(builder: Any, vectors: list[Any], add: Any) -> Any:
    """Of as many vectors as they have lanes the sum of each, as one vector."""
    lanes, run = len(vectors), 1
    while len(vectors) > 1:
        ones, others = [], []
        for first in range(0, lanes, 2 * run):
            own = list(range(first, first + run))
            ones += own + [lane + lanes for lane in own]
            others += [lane + run for lane in own] + [lane + run + lanes for lane in own]
        kind = ir.VectorType(ir.IntType(32), lanes)
        vectors = [
            add(*(builder.shuffle_vector(a, b, ir.Constant(kind, places)) for places in (ones, others)))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        run *= 2
    return vectors[0]


def _floats(builder: Any, addresses: Any) -> Iterator[Any]:
    for address in addresses:
        yield builder.inttoptr(address, _FLOAT.as_pointer())


@intrinsic(prefer_literal=True)
def dots(_: Any, one: Any, sixteen: Any, out: Any, dim: Any, in_pairs: Any) -> Any:
    """Products of one vector of `dim` numbers with each of 16, which lie one behind the other; all three are addresses.
    The numbers are floats, or with `in_pairs` in bfloat16, multiplied by an instruction that adds up pairs of them: see
    `processor.has_pairs`. What comes out are floats. `dim` and `in_pairs` are constants."""
    paired = in_pairs.literal_value
    num_parts = dim.literal_value // (LANES * (2 if paired else 1))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        query, keys, result = _floats(builder, arguments[:3])
        parts = [_load(builder, query, part) for part in range(num_parts)]
        found = []
        for key in range(LANES):
            total = ir.Constant(_VECTOR, [0.0] * LANES)
            for part, own in enumerate(parts):
                other = _load(builder, keys, key * num_parts + part)
                if paired:
                    total = builder.asm(_PAIRED, "vdpbf16ps $2, $1, $0", "=v,v,v,0", [own, other, total], False)
                else:
                    total = _multiply_add(builder, own, other, total)
            found.append(total)
        _store(builder, sums(builder, found, partial(_add, builder)), result, 0)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, dim, in_pairs), generate


@intrinsic(prefer_literal=True)
def add_weighted(_: Any, total: Any, weights: Any, sixteen: Any, dim: Any) -> Any:
    """Add to one vector of `dim` floats 16 others, each with its weight; all are addresses of floats, and `dim` is a
    constant."""
    num_parts = dim.literal_value // LANES

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, shares, values = _floats(builder, arguments[:3])
        sums = [_load(builder, result, part) for part in range(num_parts)]
        for value in range(LANES):
            place = builder.gep(shares, [ir.Constant(ir.IntType(64), value)])
            share = splat(builder, builder.load(place), LANES)
            for part in range(num_parts):
                other = _load(builder, values, value * num_parts + part)
                sums[part] = _multiply_add(builder, share, other, sums[part])
        for part, vector in enumerate(sums):
            _store(builder, vector, result, part)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, dim), generate


@intrinsic
def highest(_: Any, floats: Any, vectors: Any) -> Any:
    """The highest of `vectors` times 16 floats at an address, at least one time. What is no number does not count."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (source,) = _floats(builder, arguments[:1])
        top = cgutils.alloca_once(builder, _VECTOR)
        builder.store(_load(builder, source, 0), top)
        with cgutils.for_range(builder, arguments[1]) as loop:
            place = builder.gep(source, [builder.mul(loop.index, ir.Constant(ir.IntType(64), LANES))])
            before, vector = builder.load(top), _load(builder, place, 0)
            builder.store(builder.select(builder.fcmp_ordered(">", vector, before), vector, before), top)
        vector, run = builder.load(top), LANES // 2
        while run:  # halves onto each other
            other = _shuffle(builder, vector, vector, [(lane + run) % LANES for lane in range(LANES)])
            vector = builder.select(builder.fcmp_ordered(">", vector, other), vector, other)
            run //= 2
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.int64, types.int64), generate


@intrinsic
def fetch(_: Any, address: Any) -> Any:
    """Have the cache line at an address brought nearer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate
