"""The loops of :mod:`hetgraph.nn.kernels`, compiled by numba; see there for the mathematics and the shapes.

A piece of work (``begin`` to ``end - 1`` are done) is one chunk of destinations (or source rows) and one head, so
that what a thread gathers is a quarter (with four heads) of the keys and values. Sums may be reordered
(``reassoc``), which is what lets them use vector instructions; infinities and NaN keep their meaning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_FAST = {"reassoc", "contract", "arcp", "nsz"}
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": _FAST}


@njit(cache=True, nogil=True)
def group(key, count):
    """Stable counting sort: where each key's entries begin ``[count + 1]``, and the entries in order ``[E]``."""
    start = np.zeros(count + 1, np.int64)
    for i in range(len(key)):
        start[key[i] + 1] += 1
    for i in range(count):
        start[i + 1] += start[i]
    fill = start[:-1].copy()
    order = np.empty(len(key), np.int64)
    for i in range(len(key)):
        order[fill[key[i]]] = i
        fill[key[i]] += 1
    return start, order


@njit(**_OPTIONS)
def forward(begin, end, q, k, v, bias, start, row, edge, cut, out, weight):
    heads, d = q.shape[1], q.shape[2]
    biased = len(bias) > 0
    for task in range(begin, end):
        h = task % heads
        first, last = cut[task // heads], cut[task // heads + 1]
        for n in range(first, last):
            low, high = start[n], start[n + 1]
            target = out[n, h]
            target[:] = 0
            if low == high:
                continue
            query = q[n, h]
            score = weight[h, low:high]
            for e in range(low, high):
                key = k[h, row[e]]
                total = query[0] * key[0]
                for j in range(1, d):
                    total += query[j] * key[j]
                score[e - low] = total
            if biased:
                for e in range(low, high):
                    score[e - low] += bias[edge[e], h]
            top = score[0]
            for e in range(1, high - low):
                top = max(top, score[e])
            for e in range(high - low):
                score[e] = math.exp(score[e] - top)
            norm = score[0]
            for e in range(1, high - low):
                norm += score[e]
            for e in range(low, high):
                p = score[e - low] / norm
                score[e - low] = p
                value = v[h, row[e]]
                for j in range(d):
                    target[j] += p * value[j]


@njit(**_OPTIONS)
def backward_nodes(begin, end, grad, k, v, out, weight, start, row, edge, cut, dq, slope, dbias):
    heads, d = grad.shape[1], grad.shape[2]
    biased = len(dbias) > 0
    for task in range(begin, end):
        h = task % heads
        first, last = cut[task // heads], cut[task // heads + 1]
        for n in range(first, last):
            target = dq[n, h]
            target[:] = 0
            up, made = grad[n, h], out[n, h]
            delta = up[0] * made[0]
            for j in range(1, d):
                delta += up[j] * made[j]
            for e in range(start[n], start[n + 1]):
                value, key = v[h, row[e]], k[h, row[e]]
                total = up[0] * value[0]
                for j in range(1, d):
                    total += up[j] * value[j]
                change = weight[h, e] * (total - delta)
                slope[h, e] = change
                for j in range(d):
                    target[j] += change * key[j]
            if biased:
                for e in range(start[n], start[n + 1]):
                    dbias[edge[e], h] = slope[h, e]


@njit(**_OPTIONS)
def backward_rows(begin, end, grad, q, weight, slope, start, place, node, cut, dk, dv):
    heads, d = grad.shape[1], grad.shape[2]
    for task in range(begin, end):
        h = task % heads
        first, last = cut[task // heads], cut[task // heads + 1]
        for r in range(first, last):
            to_key, to_value = dk[h, r], dv[h, r]
            to_key[:] = 0
            to_value[:] = 0
            for i in range(start[r], start[r + 1]):
                n = node[i]
                change, p = slope[h, place[i]], weight[h, place[i]]
                query, up = q[n, h], grad[n, h]
                for j in range(d):
                    to_key[j] += change * query[j]
                    to_value[j] += p * up[j]
