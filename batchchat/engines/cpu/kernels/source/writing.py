"""Pieces of LLVM's code that several kernels are written with: loads of vectors, and what is rounded to what."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from batchchat.engines.cpu.kernels.abi import BFLOAT16, FLOAT32

_INT, _WORD = ir.IntType(32), ir.IntType(64)


def pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def after(builder: Any, address: Any, distance: int) -> Any:
    return builder.add(address, ir.Constant(_WORD, distance)) if distance else address


def load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(pointer(builder, address, kind), align=1)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    places = ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes)
    return builder.shuffle_vector(vector, vector, places)


def prefetch(builder: Any, address: Any) -> None:
    """Have the cache line at an address brought nearer."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, *[_INT] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    to_read, near, data = (ir.Constant(_INT, number) for number in (0, 3, 1))
    builder.call(function, [builder.inttoptr(address, byte), to_read, near, data])


def like(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def rounded_to(builder: Any, value: Any, rounding: int) -> Any:
    """A float or a vector of them as the nearest number of another type, ties to even."""
    if rounding == FLOAT32:
        return value
    floats = value.type
    ints = ir.VectorType(_INT, floats.count) if isinstance(floats, ir.VectorType) else _INT
    bits = builder.bitcast(value, ints)
    if rounding == BFLOAT16:
        odd = builder.icmp_signed("!=", builder.and_(bits, like(ints, 1 << 16)), like(ints, 0))
        up = builder.add(bits, builder.select(odd, like(ints, 0x8000), like(ints, 0x7FFF)))
        return builder.bitcast(builder.and_(up, like(ints, -(1 << 16))), floats)
    size = builder.and_(bits, like(ints, 0x7FFFFFFF))
    odd = builder.and_(builder.lshr(size, like(ints, 13)), like(ints, 1))
    near = builder.and_(builder.add(size, builder.add(odd, like(ints, 0xFFF))), like(ints, -(1 << 13)))
    steps = whole(builder, builder.fmul(builder.bitcast(size, floats), like(floats, 2.0**24)))
    tiny = builder.bitcast(builder.fmul(steps, like(floats, 2.0**-24)), ints)
    near = builder.select(builder.icmp_unsigned("<", size, like(ints, 0x38800000)), tiny, near)
    near = builder.select(builder.icmp_unsigned(">=", near, like(ints, 0x47800000)), like(ints, 0x7F800000), near)
    near = builder.select(builder.icmp_unsigned(">", size, like(ints, 0x7F800000)), size, near)  # no number
    signed = builder.or_(near, builder.and_(bits, like(ints, -(1 << 31))))
    return builder.bitcast(signed, floats)


def whole(builder: Any, value: Any) -> Any:
    """The nearest whole number to a float, ties to even; or of a vector of them."""
    kind = value.type
    suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), f"llvm.rint.{suffix}")
    return builder.call(function, [value])
