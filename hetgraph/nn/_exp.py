"""The exponential function for compiled loops."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload


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
