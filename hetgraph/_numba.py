"""Loops over edges and pairs of nodes, compiled by numba and kept on disk.

Shapes: B samples, S and D source and destination places, d axes, E edges.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def keep_k(distance, valid, k, loopless, kept):
    """Per destination the ``k`` smallest distances and all that are as small as the k-th.

    Args:
        distance: float32 ``[B, S, D]``; NaN is never kept.
        valid: bool ``[B, S]``, the sources that may be kept.
        k: 1 .. S.
        loopless: leave out source i of destination i.
        kept: bool ``[B, S, D]``, written.
    """
    for b in range(len(distance)):
        _keep_k(distance[b], valid[b], k, loopless, kept[b])


@njit(cache=True, nogil=True)
def keep_nearest(sources, targets, valid, k, loopless, kept):
    """The same of squared Euclidean distances between points, float32 ``[B, S, d]`` and ``[B, D, d]``."""
    distance = np.empty(kept.shape[1:], np.float32)
    at = np.empty(targets.shape[1:][::-1], np.float32)
    for b in range(len(sources)):
        for axis in range(len(at)):
            at[axis] = targets[b, :, axis]
        for i in range(len(distance)):
            row = distance[i]
            row[:] = 0
            for axis in range(len(at)):
                place, others = sources[b, i, axis], at[axis]
                for j in range(len(row)):
                    row[j] += (place - others[j]) * (place - others[j])
        _keep_k(distance, valid[b], k, loopless, kept[b])


@njit(cache=True, nogil=True)
def _keep_k(distance, valid, k, loopless, kept):
    sources, targets = distance.shape
    best = np.full((k, targets), np.inf, np.float32)
    row = np.empty(targets, np.float32)
    for i in range(sources):
        if not valid[i]:
            continue
        for j in range(targets):
            value = distance[i, j]
            row[j] = value if value == value else np.inf
        if loopless:
            row[i] = np.inf
        # one step of an insertion sort, for all destinations at once
        for r in range(k):
            place = best[r]
            for j in range(targets):
                low, high = place[j], row[j]
                place[j] = high if high < low else low
                row[j] = low if high < low else high
    limit = best[k - 1]
    for i in range(sources):
        out = kept[i]
        if valid[i]:
            for j in range(targets):
                out[j] = distance[i, j] <= limit[j]
            if loopless:
                out[i] = False
        else:
            out[:] = False


@njit(cache=True, nogil=True)
def shift(index, owners, sizes, sources, first_source, targets, first_target):
    """From places inside a sample to packed ids, in place; whether all places were there.

    Args:
        index: int64 ``[2, E]``, the edges of one sample after the other.
        owners, sizes: int64 ``[brought]``, which sample brought edges and how many.
        sources, targets: int64 ``[B]``, nodes of each sample at both ends.
        first_source, first_target: int64 ``[B]``, the packed ids of their first ones.
    """
    begin = 0
    for n in range(len(owners)):
        sample, end = owners[n], begin + sizes[n]
        if not _move(index[0, begin:end], sources[sample], first_source[sample]):
            return False
        if not _move(index[1, begin:end], targets[sample], first_target[sample]):
            return False
        begin = end
    return True


@njit(cache=True, nogil=True, inline="always")
def _move(places, limit, offset):
    wrong = False
    for e in range(len(places)):
        place = places[e]
        wrong |= (place < 0) | (place >= limit)
        places[e] = place + offset
    return not wrong
