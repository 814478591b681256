"""Is one method better than another over the same seeds? Paired tests, and a correction for asking several times.

Differences ``d [n]`` are paired: entry i is one method minus the other with the same seed and the same data.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

MOST_EXACT = 20
"""Differences up to which all ``2^n`` signs are tried."""

_TINY = 1e-300


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided exact permutation test: the share of all ``2^n`` sign patterns with a mean at least as far from 0.

    Under the hypothesis that the two methods are exchangeable within a seed every sign pattern is as likely as the
    one observed (Fisher, The Design of Experiments, 1935). The smallest possible value is ``2 / 2^n``.

    Raises:
        ValueError: no differences, or more than ``MOST_EXACT``.
    """
    if not 1 <= len(differences) <= MOST_EXACT:
        raise ValueError(f"the exact test takes 1 to {MOST_EXACT} differences, got {len(differences)}")
    sums = [0.0]
    for d in differences:
        sums = [s + sign * d for s in sums for sign in (1.0, -1.0)]
    # sums that are equal on paper differ in their last digits, by the order of adding
    limit = abs(math.fsum(differences)) - 1e-9 * math.fsum(abs(d) for d in differences)
    return sum(abs(s) >= limit for s in sums) / len(sums)


def paired_t(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test; None for fewer than two differences.

    Differences that are all the same have no spread to compare with: p is 1 if they are zero, else 0.
    """
    n = len(differences)
    if n < 2:
        return None
    mean, error = statistics.fmean(differences), standard_error(differences)
    assert error is not None
    if error <= 1e-12 * abs(mean) or error == 0:
        return 1.0 if mean == 0 else 0.0
    return t_tails(mean / error, n - 1)


def standard_error(values: Sequence[float]) -> float | None:
    """Sample standard deviation over the root of n; None for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def t_tails(t: float, freedom: int) -> float:
    """Probability that Student's t with so many degrees of freedom is at least as far from 0 as ``t``.

    ``P = I_x(v / 2, 1 / 2)`` with ``x = v / (v + t^2)`` (Abramowitz and Stegun, 26.7.1 and 26.5.2).
    """
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function ``I_x(a, b)``, by its continued fraction.

    Abramowitz and Stegun, 26.5.8, evaluated by the method of Lentz (1976); it converges fast for
    ``x < (a + 1) / (a + b + 2)``, and elsewhere ``I_x(a, b) = 1 - I_{1 - x}(b, a)``.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    value, c, d = 1.0, 1.0, 0.0
    for i in range(1000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _not_zero(1 + term * d)
        c = _not_zero(1 + term / c)
        value *= c * d
        if i and abs(1 - c * d) < 1e-15:
            break
    return front * (value - 1)


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given (Holm, Scand. J. Statist., 1979).

    The k-th smallest of m is multiplied by ``m - k + 1``; none becomes smaller than one before it, or larger than 1.
    """
    out = [0.0] * len(p)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        out[i] = largest
    return out
