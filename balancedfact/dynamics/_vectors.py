"""Vectors of numbers for compiled loops: one operation on all lanes, in registers.

A compiler that meets short loops over the last axis of several arrays must assume that the arrays overlap, and takes their
numbers one by one. Here the innermost axis of an array, whose length is that of the tuple `lanes`, is loaded as a whole:
``load(array, at, lanes)`` is row `at` of the C-contiguous array reshaped to ``(-1, len(lanes))``. `fma` rounds once on every
processor, so that results do not depend on the number of lanes.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import overload, register_model

intrinsic: Any = extending.intrinsic  # whose type does not say that the compiler gives the first argument


_LINE = 64  # bytes of a cache line, and of the longest vectors: one that lies across two lines takes twice the time


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros whose vectors of lanes begin at the border of a cache line."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(count + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return memory[first : first + count].view(dtype).reshape(shape)


class Vector(types.Type):
    """The type of `lanes` numbers of one type."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _Model(PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager[kind.dtype].get_value_type(), kind.lanes))


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any, vector: Vector) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    first = builder.gep(data, [builder.mul(at, ir.Constant(at.type, vector.lanes))])
    return builder.bitcast(first, ir.PointerType(context.get_value_type(vector)))


@intrinsic
def load(typing: Any, array: Any, at: Any, lanes: Any) -> Any:
    """Row `at` of an array whose last axis are the lanes."""
    vector = Vector(array.dtype, len(lanes))

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, array, arguments[0], arguments[1], vector)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp, lanes), code


@intrinsic
def store(typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write row `at` of an array whose last axis are the lanes."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, array, arguments[0], arguments[1], vector)
        builder.store(arguments[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


@intrinsic
def fill(typing: Any, number: Any, lanes: Any) -> Any:
    """One number in all lanes."""
    vector = Vector(number, len(lanes))

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(vector)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), None)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), places)

    return vector(number, lanes), code


@intrinsic
def zero(typing: Any, array: Any, lanes: Any) -> Any:
    """Zeros like the numbers of an array."""
    vector = Vector(array.dtype, len(lanes))
    return vector(array, lanes), lambda context, *_: ir.Constant(context.get_value_type(vector), None)


def _called(name: str, count: int) -> Any:
    """An operation of the processor on vectors, by the name that LLVM gives it."""

    def typed(typing: Any, *kinds: Any) -> Any:
        vector = kinds[0]

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(vector)
            full = f"llvm.{name}.v{vector.lanes}f{vector.dtype.bitwidth}"
            function = builder.module.globals.get(full) or ir.Function(
                builder.module, ir.FunctionType(kind, [kind] * count), full
            )
            return builder.call(function, arguments)

        return vector(*kinds), code

    return typed


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a b + c``, rounded once."""
    return _called("fma", 3)(typing, a, b, c)


@intrinsic
def absolute(typing: Any, a: Any) -> Any:
    """The absolute values."""
    return _called("fabs", 1)(typing, a)


def _operated(method: str, count: int) -> Any:
    """The overload of an operator, by the method of LLVM's builder that writes it."""

    def typed(kinds: tuple[Any, ...]) -> Any:
        return kinds[0](*kinds), lambda context, builder, signature, arguments: getattr(builder, method)(*arguments)

    if count == 1:
        of_one = intrinsic(lambda typing, a: typed((a,)))
        return lambda a: (lambda a: of_one(a)) if isinstance(a, Vector) else None
    of_two = intrinsic(lambda typing, a, b: typed((a, b)))
    return lambda a, b: (lambda a, b: of_two(a, b)) if isinstance(a, Vector) and isinstance(b, Vector) else None


overload(operator.mul)(_operated("fmul", 2))
overload(operator.add)(_operated("fadd", 2))
overload(operator.sub)(_operated("fsub", 2))
overload(operator.neg)(_operated("fneg", 1))
