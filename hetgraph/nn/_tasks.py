"""What a compiled kernel needs to be run by OpenMP: arrays out of bare addresses, and a counter that threads share.

A task is a C function of one pointer, to a list of int64: next piece of work, number of pieces, then for every array
its address and five dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from .threads import FIELDS

# sums may be reordered, which is what lets them use vector instructions; infinities and NaN keep their meaning
OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
}


def compiled(run: Callable[[Any], None]) -> int:
    """The address of ``run(pointer)``, compiled as a task."""
    return cfunc(types.void(types.voidptr), cache=True)(run).address


@intrinsic
def pointer(typingctx, address):
    """An integer as a pointer."""

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@intrinsic
def take_one(typingctx, address):
    """Add one to the int64 that lies at a pointer, in one indivisible step; gives what it was before."""

    def code(context, builder, signature, arguments):
        number = ir.IntType(64)
        place = builder.bitcast(arguments[0], number.as_pointer())
        return builder.atomic_rmw("add", place, number(1), "monotonic")

    return types.int64(types.voidptr), code


@intrinsic
def prefetch(typingctx, array, place):
    """Ask for the cache line of element ``place`` of an array, which will be read soon; any place is allowed."""

    def code(context, builder, signature, arguments):
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        line = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        whole = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, whole, whole, whole])
        function = builder.module.declare_intrinsic("llvm.prefetch", [line.type], kind)
        # to read (0), to be kept in all caches (3), data (1)
        builder.call(function, [line, whole(0), whole(3), whole(1)])
        return context.get_dummy_value()

    return types.void(array, place), code


# one function per number of dimensions, because it is part of an array's type


@njit(inline="always")
def array1(task, i, dtype):
    """Array ``i`` of a task, of one dimension."""
    at = 2 + FIELDS * i
    return carray(pointer(task[at]), (task[at + 1],), dtype)


@njit(inline="always")
def array2(task, i, dtype):
    """Array ``i`` of a task, of two dimensions."""
    at = 2 + FIELDS * i
    return carray(pointer(task[at]), (task[at + 1], task[at + 2]), dtype)


@njit(inline="always")
def array3(task, i, dtype):
    """Array ``i`` of a task, of three dimensions."""
    at = 2 + FIELDS * i
    return carray(pointer(task[at]), (task[at + 1], task[at + 2], task[at + 3]), dtype)


@njit(inline="always")
def array4(task, i, dtype):
    """Array ``i`` of a task, of four dimensions."""
    at = 2 + FIELDS * i
    return carray(pointer(task[at]), (task[at + 1], task[at + 2], task[at + 3], task[at + 4]), dtype)


@njit(inline="always")
def array5(task, i, dtype):
    """Array ``i`` of a task, of five dimensions."""
    at = 2 + FIELDS * i
    return carray(pointer(task[at]), (task[at + 1], task[at + 2], task[at + 3], task[at + 4], task[at + 5]), dtype)
