"""Loops over edges and pairs of nodes, compiled by numba and kept on disk.

Shapes: B samples, S and D source and destination places, E edges.
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
    samples, sources, targets = distance.shape
    best = np.empty((k, targets), np.float32)
    row = np.empty(targets, np.float32)
    for b in range(samples):
        best[:] = np.inf
        for i in range(sources):
            if not valid[b, i]:
                continue
            for j in range(targets):
                value = distance[b, i, j]
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
            out = kept[b, i]
            if valid[b, i]:
                for j in range(targets):
                    out[j] = distance[b, i, j] <= limit[j]
                if loopless:
                    out[i] = False
            else:
                out[:] = False


@njit(cache=True, nogil=True)
def shift(index, owners, sizes, room, first):
    """From places inside a sample to packed ids, in place; whether all places were there.

    Args:
        index: int64 ``[2, E]``, the edges of one sample after the other.
        owners, sizes: int64 ``[brought]``, which sample brought edges and how many.
        room, first: int64 ``[2, B]``, nodes of each sample at both ends, and the packed ids of their first ones.
    """
    for end in range(2):
        begin = 0
        for n in range(len(owners)):
            own = index[end, begin : begin + sizes[n]]
            begin += sizes[n]
            limit, offset = room[end, owners[n]], first[end, owners[n]]
            wrong = 0
            for e in range(len(own)):
                place = own[e]
                wrong |= (place < 0) | (place >= limit)
                own[e] = place + offset
            if wrong:
                return False
    return True
