"""What a softmax in compiled loops is made of."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

from ._tasks import OPTIONS


def exp(x: float) -> float:
    """e to the power of ``x`` for ``x <= 0``; in single precision to 3e-7, and zero below -87."""
    return math.exp(x)


@overload(exp, inline="always")
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def single(x):
        # Cephes' expf: x = n ln 2 + r, a polynomial in r, n into the exponent's bits. Vector instructions do this;
        # the library's exp they do not. Cast to integer rounds up below zero, hence the half.
        low = np.float32(-87.0)
        y = x if x > low else low
        n = np.int32(y * np.float32(1.44269504) - np.float32(0.5))
        r = y - np.float32(n) * np.float32(0.693359375)
        r = r + np.float32(n) * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        p = p * r * r + r + np.float32(1.0)
        power = np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)
        # the last: NaN stays NaN
        return p * power if x > low else np.float32(0.0) if x <= low else x

    return single


@njit(**OPTIONS)
def largest(line, size, lanes):
    """The largest of the first ``size`` numbers; minus infinity if there are none. ``lanes [16]`` is room to work in.

    Sixteen running maxima, because a single one would not be turned into vector instructions.
    """
    n, width, top = np.uint64(size), np.uint64(16), line.dtype.type(-np.inf)
    if n >= width:
        lanes[:] = -np.inf
        for block in range(n // width):
            for k in range(width):
                x = line[block * width + k]
                lanes[k] = x if x > lanes[k] else lanes[k]
        for k in range(width):
            top = lanes[k] if lanes[k] > top else top
    for j in range(n // width * width, n):
        top = line[j] if line[j] > top else top
    return top
