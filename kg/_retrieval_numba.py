"""Loops over the arcs of a knowledge graph, compiled by numba and kept on disk.

Each has a twin of the same name in :mod:`hetgraph.kg._retrieval_numpy` that gives the same bits.

Shapes: N entities, E arcs; ``offsets [N + 1]`` and ``nodes [E]`` are rows of arcs, once by head (``out``)
and once by tail (``into``); ``hub`` is how many arcs of one entity are followed in one direction, evenly spread.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def expand(out_offsets, out_nodes, into_offsets, into_nodes, ring, hub, forward, backward):
    """The neighbours of a ring of entities: sorted, int64 ``[M]``, and how many arcs lead to each, int64 ``[M]``."""
    total = 0
    for u in ring:
        if forward:
            total += min(hub, np.int64(out_offsets[u + 1]) - np.int64(out_offsets[u]))
        if backward:
            total += min(hub, np.int64(into_offsets[u + 1]) - np.int64(into_offsets[u]))
    found = np.empty(total, np.int64)
    at = 0
    for u in ring:
        if forward:
            begin, degree = np.int64(out_offsets[u]), np.int64(out_offsets[u + 1]) - np.int64(out_offsets[u])
            followed = min(hub, degree)
            for i in range(followed):
                found[at] = out_nodes[begin + i * degree // followed]
                at += 1
        if backward:
            begin, degree = np.int64(into_offsets[u]), np.int64(into_offsets[u + 1]) - np.int64(into_offsets[u])
            followed = min(hub, degree)
            for i in range(followed):
                found[at] = into_nodes[begin + i * degree // followed]
                at += 1
    found.sort()
    counts = np.empty(total, np.int64)
    size = 0
    for i in range(total):
        if size and found[size - 1] == found[i]:
            counts[size - 1] += 1
        else:
            found[size], counts[size] = found[i], 1
            size += 1
    return found[:size].copy(), counts[:size].copy()


@njit(cache=True, nogil=True)
def induced(offsets, nodes, chosen):
    """The arcs between chosen entities.

    Args:
        offsets, nodes: rows by head.
        chosen: int64 ``[M]``, sorted.

    Returns:
        int64 ``[K]`` each: places of the head and of the tail in ``chosen``, and of the arc in ``nodes``; by head,
        then in the order of the rows.
    """
    most = len(chosen)
    size, room = 0, 4 * most + 16
    heads, tails, arcs = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    for head in range(most):
        begin, end = np.int64(offsets[chosen[head]]), np.int64(offsets[chosen[head] + 1])
        # a long row is searched for the chosen, a short one is looked through
        search = end - begin > 16 * most
        steps = most if search else end - begin
        for step in range(steps):
            if search:
                place, tail = _lower(nodes, begin, end, chosen[step]), step
            else:
                place = begin + step
                tail = _lower(chosen, 0, most, np.int64(nodes[place]))
            while place < end and tail < most and nodes[place] == chosen[tail]:
                if size == room:
                    room *= 2
                    heads, tails, arcs = _grown(heads, room), _grown(tails, room), _grown(arcs, room)
                heads[size], tails[size], arcs[size] = head, tail, place
                size += 1
                place += 1
                if not search:
                    break
    return heads[:size].copy(), tails[:size].copy(), arcs[:size].copy()


@njit(cache=True, nogil=True)
def _lower(array, begin, end, value):
    """The first place in ``begin .. end`` of a sorted array that is not below a value."""
    while begin < end:
        middle = (begin + end) // 2
        if array[middle] < value:
            begin = middle + 1
        else:
            end = middle
    return begin


@njit(cache=True, nogil=True)
def _grown(array, room):
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True, nogil=True)
def _slot(keys, key):
    """Where a key is in a table of open addresses with a power of two of places, or where it would go."""
    mask = np.uint64(len(keys) - 1)
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)
    slot &= mask
    while keys[slot] != -1 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@njit(cache=True, nogil=True)
def push(out_offsets, out_nodes, into_offsets, into_nodes, seeds, alpha, eps, hub, forward, backward):
    """Approximate personalised PageRank (Andersen, Chung and Lang 2006), all entities above the threshold at once.

    Args:
        seeds: int64 ``[S]``, sorted and distinct; the walk starts at each with the same probability.
        alpha: probability of going back to the start.
        eps: a residual below ``eps`` times the degree stays where it is.

    Returns:
        The entities that got a score, int64 ``[M]``, sorted, and their scores, float64 ``[M]``.
    """
    room = 1024
    while room < 8 * len(seeds):
        room *= 2
    # a table of places, and for each place the entity, its score, its residual, its degree
    keys, places = np.full(room, -1, np.int64), np.empty(room, np.int64)
    known = np.empty(room, np.int64)
    score, rest, degree = np.zeros(room), np.zeros(room), np.zeros(room, np.int64)
    touched_in = np.zeros(room, np.int64)
    size = 0
    front = np.empty(len(seeds), np.int64)
    for i in range(len(seeds)):
        slot = _slot(keys, seeds[i])
        keys[slot], places[slot], known[size] = seeds[i], size, seeds[i]
        rest[size] = 1.0 / len(seeds)
        degree[size] = _degree(out_offsets, into_offsets, seeds[i], hub, forward, backward)
        front[i] = size
        size += 1
    turn = 0
    while len(front):
        turn += 1
        mass = np.empty(len(front))
        for i in range(len(front)):
            at = front[i]
            mass[i] = rest[at]
            rest[at] = 0.0
            score[at] += alpha * mass[i] if degree[at] else mass[i]
        touched, count = np.empty(256, np.int64), 0
        for i in range(len(front)):
            u = known[front[i]]
            if not degree[front[i]]:
                continue
            share = (1.0 - alpha) * mass[i] / degree[front[i]]
            for direction in range(2):
                if direction == 0:
                    if not forward:
                        continue
                    offsets, nodes = out_offsets, out_nodes
                else:
                    if not backward:
                        continue
                    offsets, nodes = into_offsets, into_nodes
                begin, arcs = np.int64(offsets[u]), np.int64(offsets[u + 1]) - np.int64(offsets[u])
                followed = min(hub, arcs)
                for j in range(followed):
                    v = np.int64(nodes[begin + j * arcs // followed])
                    slot = _slot(keys, v)
                    if keys[slot] == -1:
                        keys[slot], places[slot], known[size] = v, size, v
                        degree[size] = _degree(out_offsets, into_offsets, v, hub, forward, backward)
                        size += 1
                        if 2 * size > room:
                            room *= 2
                            known, degree, touched_in = (
                                _grown(known, room),
                                _grown(degree, room),
                                _grown_zero(touched_in, room),
                            )
                            score, rest = _grown_zero(score, room), _grown_zero(rest, room)
                            keys, places = np.full(room, -1, np.int64), np.empty(room, np.int64)
                            for k in range(size):
                                slot = _slot(keys, known[k])
                                keys[slot], places[slot] = known[k], k
                            slot = _slot(keys, v)
                    at = places[slot]
                    rest[at] += share
                    if touched_in[at] != turn:
                        touched_in[at] = turn
                        if count == len(touched):
                            touched = _grown(touched, 2 * count)
                        touched[count] = at
                        count += 1
        ready = np.empty(count, np.int64)
        kept = 0
        for i in range(count):
            at = touched[i]
            if rest[at] >= eps * degree[at]:
                ready[kept] = at
                kept += 1
        front = ready[:kept][np.argsort(known[ready[:kept]])]
    kept = 0
    for i in range(size):
        if score[i] > 0:
            known[kept], score[kept] = known[i], score[i]
            kept += 1
    order = np.argsort(known[:kept])
    return known[:kept][order], score[:kept][order]


@njit(cache=True, nogil=True)
def _grown_zero(array, room):
    larger = np.zeros(room, array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True, nogil=True)
def _degree(out_offsets, into_offsets, u, hub, forward, backward):
    degree = 0
    if forward:
        degree += min(hub, np.int64(out_offsets[u + 1]) - np.int64(out_offsets[u]))
    if backward:
        degree += min(hub, np.int64(into_offsets[u + 1]) - np.int64(into_offsets[u]))
    return degree
