"""The loops of :mod:`hetgraph.nn.kernels`, compiled by numba; see there for the mathematics and the shapes.

A piece of work (``begin`` to ``end - 1`` are done) is one chunk of destinations (or source rows) and one head, so
that what a thread gathers is a quarter (with four heads) of the keys and values; head after head, so that it is still
in the cache for the next chunk.

In the innermost loops arrays are indexed by unsigned numbers into flat memory: a negative index would have to be
tested for. The width of a head is left unknown to the compiler: loops of known length would be unrolled before their
sums could be turned into vector instructions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray, njit, types

from ._exp import exp, largest
from ._tasks import OPTIONS, array1, array2, array3, compiled, prefetch, take_one
from .threads import FIELDS

LINE = np.uint64(16)
"""Numbers of four bytes in a cache line."""
AHEAD = 8
"""Edges between asking for the rows of one and reading them: on large graphs the gathers wait for memory."""


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


@njit(**OPTIONS)
def weigh(score, size, lanes):
    """Softmax of the first ``size`` scores, in place; ``lanes [16]`` is room to work in."""
    one, zero = score.dtype.type(1), score.dtype.type(0)
    n, top = np.uint64(size), largest(score, size, lanes)
    for j in range(n):
        score[j] = exp(score[j] - top)
    norm = zero
    for j in range(n):
        norm += score[j]
    scale = one / norm
    for j in range(n):
        score[j] *= scale


@njit(inline="always")
def ask(one, other, at, width):
    """Have the rows of two arrays that begin at ``at`` brought near."""
    for j in range(np.uint64(0), width, LINE):
        prefetch(one, at + j)
        prefetch(other, at + j)


@njit(**OPTIONS)
def forward(begin, end, q, k, v, bias, start, row, edge, cut, out, weight):
    heads, width, rows = q.shape[1], q.shape[2], k.shape[1]
    d = np.uint64(width)
    flat_q, flat_k, flat_v, flat_out = q.ravel(), k.ravel(), v.ravel(), out.ravel()
    biased, last = len(bias) > 0, len(row) - 1
    chunks, lanes = len(cut) - 1, np.empty(16, q.dtype)
    for task in range(begin, end):
        h, chunk = task // chunks, task % chunks
        for n in range(cut[chunk], cut[chunk + 1]):
            low, high = start[n], start[n + 1]
            at = np.uint64((n * heads + h) * width)
            for j in range(d):
                flat_out[at + j] = 0
            if low == high:
                continue
            score = weight[h, low:high]
            for e in range(low, high):
                soon = np.uint64((h * rows + row[min(e + AHEAD, last)]) * width)
                ask(flat_k, flat_v, soon, d)
                key = np.uint64((h * rows + row[e]) * width)
                total = flat_q[at] * flat_k[key]
                for j in range(np.uint64(1), d):
                    total += flat_q[at + j] * flat_k[key + j]
                score[e - low] = total
            if biased:
                for e in range(low, high):
                    score[e - low] += bias[edge[e], h]
            weigh(score, high - low, lanes)
            for e in range(low, high):
                p, value = score[e - low], np.uint64((h * rows + row[e]) * width)
                for j in range(d):
                    flat_out[at + j] += p * flat_v[value + j]


@njit(**OPTIONS)
def backward_nodes(begin, end, grad, k, v, out, weight, start, row, edge, cut, dq, slope, dbias):
    heads, width, rows = grad.shape[1], grad.shape[2], k.shape[1]
    d = np.uint64(width)
    flat_up, flat_k, flat_v, flat_out, flat_dq = grad.ravel(), k.ravel(), v.ravel(), out.ravel(), dq.ravel()
    biased, chunks, last = len(dbias) > 0, len(cut) - 1, len(row) - 1
    for task in range(begin, end):
        h, chunk = task // chunks, task % chunks
        for n in range(cut[chunk], cut[chunk + 1]):
            at = np.uint64((n * heads + h) * width)
            delta = flat_up[at] * flat_out[at]
            for j in range(np.uint64(1), d):
                delta += flat_up[at + j] * flat_out[at + j]
            for j in range(d):
                flat_dq[at + j] = 0
            for e in range(start[n], start[n + 1]):
                soon = np.uint64((h * rows + row[min(e + AHEAD, last)]) * width)
                ask(flat_k, flat_v, soon, d)
                place = np.uint64((h * rows + row[e]) * width)
                total = flat_up[at] * flat_v[place]
                for j in range(np.uint64(1), d):
                    total += flat_up[at + j] * flat_v[place + j]
                change = weight[h, e] * (total - delta)
                slope[h, e] = change
                for j in range(d):
                    flat_dq[at + j] += change * flat_k[place + j]
            if biased:
                for e in range(start[n], start[n + 1]):
                    dbias[edge[e], h] = slope[h, e]


@njit(**OPTIONS)
def backward_rows(begin, end, grad, q, weight, slope, start, place, node, cut, dk, dv):
    heads, width, rows = grad.shape[1], grad.shape[2], dk.shape[1]
    d = np.uint64(width)
    flat_up, flat_q, flat_dk, flat_dv = grad.ravel(), q.ravel(), dk.ravel(), dv.ravel()
    flat_slope, flat_weight = slope.ravel(), weight.ravel()
    edges, chunks, last = len(node), len(cut) - 1, len(node) - 1
    for task in range(begin, end):
        h, chunk = task // chunks, task % chunks
        for r in range(cut[chunk], cut[chunk + 1]):
            to = np.uint64((h * rows + r) * width)
            for j in range(d):
                flat_dk[to + j] = 0
                flat_dv[to + j] = 0
            for i in range(start[r], start[r + 1]):
                later = min(i + AHEAD, last)
                soon = np.uint64((node[later] * heads + h) * width)
                ask(flat_q, flat_up, soon, d)
                prefetch(flat_slope, np.uint64(h * edges + place[later]))
                prefetch(flat_weight, np.uint64(h * edges + place[later]))
                at, one = np.uint64((node[i] * heads + h) * width), np.uint64(h * edges + place[i])
                change, p = flat_slope[one], flat_weight[one]
                for j in range(d):
                    flat_dk[to + j] += change * flat_q[at + j]
                    flat_dv[to + j] += p * flat_up[at + j]


@cache
def forward_task(dtype: str) -> int:
    """The address of :func:`forward` as a task (see :mod:`hetgraph.nn._tasks`), for arrays of float32 or float64."""
    real, whole = getattr(types, dtype), types.int64

    def run(data):
        task = carray(data, (2 + 10 * FIELDS,), np.int64)
        inputs = (array3(task, 0, real), array3(task, 1, real), array3(task, 2, real), array2(task, 3, real))
        edges = (array1(task, 4, whole), array1(task, 5, whole), array1(task, 6, whole), array1(task, 7, whole))
        arrays = (*inputs, *edges, array3(task, 8, real), array2(task, 9, real))
        piece = take_one(data)
        while piece < task[1]:
            forward(piece, piece + 1, *arrays)
            piece = take_one(data)

    return compiled(run)


@cache
def backward_nodes_task(dtype: str) -> int:
    """The same of :func:`backward_nodes`."""
    real, whole = getattr(types, dtype), types.int64

    def run(data):
        task = carray(data, (2 + 12 * FIELDS,), np.int64)
        inputs = (array3(task, 0, real), array3(task, 1, real), array3(task, 2, real))
        known = (array3(task, 3, real), array2(task, 4, real))
        edges = (array1(task, 5, whole), array1(task, 6, whole), array1(task, 7, whole), array1(task, 8, whole))
        arrays = (*inputs, *known, *edges, array3(task, 9, real), array2(task, 10, real), array2(task, 11, real))
        piece = take_one(data)
        while piece < task[1]:
            backward_nodes(piece, piece + 1, *arrays)
            piece = take_one(data)

    return compiled(run)


@cache
def backward_rows_task(dtype: str) -> int:
    """The same of :func:`backward_rows`."""
    real, whole = getattr(types, dtype), types.int64

    def run(data):
        task = carray(data, (2 + 10 * FIELDS,), np.int64)
        inputs = (array3(task, 0, real), array3(task, 1, real), array2(task, 2, real), array2(task, 3, real))
        edges = (array1(task, 4, whole), array1(task, 5, whole), array1(task, 6, whole), array1(task, 7, whole))
        arrays = (*inputs, *edges, array3(task, 8, real), array3(task, 9, real))
        piece = take_one(data)
        while piece < task[1]:
            backward_rows(piece, piece + 1, *arrays)
            piece = take_one(data)

    return compiled(run)
