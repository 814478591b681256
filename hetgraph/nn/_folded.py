"""The loops of :mod:`hetgraph.nn.folded`, compiled by numba; see there for the mathematics and the shapes.

A piece of work (``begin`` to ``end - 1`` are done) is a share of the samples and one head. Everything that is made
on the way, for one sample and one head, is small enough to stay in a core's cache; matrix products are BLAS calls.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import carray, njit, types

from ._exp import exp, largest
from ._tasks import OPTIONS, array1, array2, array3, array4, array5, compiled, take_one
from .folded import AFTER, BAND, BASE, BEFORE, DEPTH, KIND, LOOPS, MASK, PER_HEAD, SOURCE, TILE, WIDTH
from .threads import FIELDS

# In the innermost loops arrays are indexed by unsigned numbers into flat memory: a negative index would have to be
# tested for, and a slice that a branch may skip costs two atomic operations.


@njit(**OPTIONS)
def add(total, part):
    a, b = total.ravel(), part.ravel()
    for j in range(len(a)):
        a[j] += b[j]


@njit(**OPTIONS)
def add_mask(score, at, n, low, high, block, mask, h, b, first):
    """Add what a block says to the scores ``[n, high - low]`` that begin at ``at``, of destinations ``first`` on."""
    if block[KIND] == MASK:
        plus(score, at, n, high - low, mask, mask_place(block, h, b, first, low), block[WIDTH])
    elif block[KIND] == BAND:
        cut_band(score, at, n, high - low, block[BEFORE], block[AFTER], block[LOOPS], low - first)


@njit(**OPTIONS)
def mask_place(block, h, b, i, low):
    """Where the mask speaks of head, sample, destination and first source."""
    return block[BASE] + ((h * block[PER_HEAD] + b) * block[DEPTH] + i) * block[WIDTH] + low


@njit(**OPTIONS)
def plus(score, at, n, w, mask, place, step):
    for i in range(n):
        a, m = np.uint64(at + i * w), np.uint64(place + i * step)
        for j in range(np.uint64(w)):
            score[a + j] += mask[m + j]


@njit(**OPTIONS)
def cut_band(score, at, n, w, before, after, loops, step):
    """Block what lies outside a window; ``step`` is that of the first source from the first destination."""
    never = score.dtype.type(-np.inf)
    for i in range(n):
        for j in range(w):
            s = step + j - i
            if s < -before or s > after or (s == 0 and not loops):
                score[at + i * w + j] = never


@njit(**OPTIONS)
def softmax(score, n, starts, widths, line, lse, h, first):
    """Softmax over the rows of a tile, in place; a row lies in several pieces, one per block.

    It is gathered into a line, so that the exponentials are taken over one long stretch.
    """
    one, zero = score.dtype.type(1), score.dtype.type(0)
    lanes = np.empty(16, score.dtype)
    for i in range(n):
        done = np.uint64(0)
        for r in range(len(starts)):
            w = np.uint64(widths[r])
            a = np.uint64(starts[r]) + np.uint64(i) * w
            for j in range(w):
                line[done + j] = score[a + j]
            done += w
        top = largest(line, done, lanes)
        if top == -np.inf:
            top = zero
        for j in range(done):
            line[j] = exp(line[j] - top)
        norm = zero
        for j in range(done):
            norm += line[j]
        # nothing to hear: all weights are zero
        scale = one / norm if norm != zero else zero
        lse[h, first + i] = top + math.log(norm) if norm != zero else np.inf
        done = np.uint64(0)
        for r in range(len(starts)):
            w = np.uint64(widths[r])
            a = np.uint64(starts[r]) + np.uint64(i) * w
            for j in range(w):
                score[a + j] = line[done + j] * scale
            done += w


@njit(**OPTIONS)
def slopes(score, slope, n, w, lse, h, first, delta):
    """Weights from scores, and the gradient of the scores from that of the weights, both in place, ``[n, w]``."""
    for i in range(n):
        a, top, mean = np.uint64(i * w), lse[h, first + i], delta[i]
        for j in range(np.uint64(w)):
            score[a + j] = exp(score[a + j] - top)
        for j in range(np.uint64(w)):
            slope[a + j] = score[a + j] * (slope[a + j] - mean)


@njit(**OPTIONS)
def take(rows, first, count, side, h, flat, turned):
    """Keys (0), queries (1) or values (2) of some nodes into ``flat [count * d]``, transposed into ``turned``."""
    d = rows.shape[3]
    for i in range(count):
        row, part = rows[first + i, side, h], flat[i * d : (i + 1) * d]
        for j in range(d):
            part[j] = row[j]
    if len(turned):
        for j in range(d):
            part = turned[j * count : (j + 1) * count]
            for i in range(count):
                part[i] = flat[i * d + j]


@njit(**OPTIONS)
def reach(block, first, count, size):
    """The sources ``low .. high - 1`` that any of the destinations ``first .. first + count - 1`` may hear."""
    if block[KIND] != BAND:
        return 0, size
    low = min(max(first - block[BEFORE], 0), size)
    return low, max(min(first + count + block[AFTER], size), low)


@njit(**OPTIONS)
def turned_part(whole, low, high, size, d, room):
    """Columns ``low .. high - 1`` of ``whole [d, size]`` in one piece of memory."""
    if low == 0 and high == size:
        return whole[: d * size].reshape(d, size)
    for j in range(d):
        to, some = room[j * (high - low) : (j + 1) * (high - low)], whole[j * size + low : j * size + high]
        for i in range(high - low):
            to[i] = some[i]
    return room[: d * (high - low)].reshape(d, high - low)


@njit(**OPTIONS)
def forward(begin, end, rows, att_t, msg, mask, place, targets, blocks, share, room, out, lse):
    """Messages ``out [N, H, d]``, and the logarithm of the sum of exponentials of every row of scores, ``lse [H, N]``.

    Args:
        share: ``[pieces, 4]``, first and last sample and the head of a piece of work, number of the share.
        room: sizes of the working memory: nodes of a sample, scores of a tile, scores of a destination.
    """
    d = rows.shape[3]
    nodes = room[0] * d
    keys_t = np.empty(nodes, rows.dtype)
    values = np.empty(nodes, rows.dtype)
    flat = np.empty(nodes, rows.dtype)
    score, band = np.empty(room[1], rows.dtype), np.empty(nodes, rows.dtype)
    line = np.empty(room[2], rows.dtype)
    starts, widths = np.empty(len(blocks), np.int64), np.empty(len(blocks), np.int64)
    tile_q = np.empty(TILE * d, rows.dtype)
    tile_m = np.empty(TILE * d, rows.dtype)
    tile_a = np.empty(TILE * d, rows.dtype)
    tile_o = np.empty(TILE * d, rows.dtype)
    start = np.empty(place.shape[0] + 1, np.int64)
    nothing = flat[:0]
    for piece in range(begin, end):
        h = share[piece, 2]
        for b in range(share[piece, 0], share[piece, 1]):
            start[0] = 0
            for s in range(place.shape[0]):
                start[s + 1] = start[s] + place[s, 1, b] * d
            for s in range(place.shape[0]):
                first, size, at = place[s, 0, b], place[s, 1, b], start[s]
                take(rows, first, size, 0, h, flat, keys_t[at : start[s + 1]])
                take(rows, first, size, 2, h, values[at : start[s + 1]], nothing)
            for t in range(len(targets)):
                target = targets[t, 0]
                first, size = place[target, 0, b], place[target, 1, b]
                for i0 in range(0, size, TILE):
                    n = min(TILE, size - i0)
                    take(rows, first + i0, n, 1, h, tile_q, nothing)
                    query = tile_q[: n * d].reshape(n, d)
                    mapped = tile_m[: n * d].reshape(n, d)
                    at = used = 0
                    for r in range(targets[t, 1], targets[t, 2]):
                        s = blocks[r, SOURCE]
                        low, high = reach(blocks[r], i0, n, place[s, 1, b])
                        w = high - low
                        if w == 0:
                            continue
                        np.dot(query, att_t[r, h], mapped)
                        keys = turned_part(keys_t[start[s] : start[s + 1]], low, high, place[s, 1, b], d, band)
                        np.dot(mapped, keys, score[at : at + n * w].reshape(n, w))
                        add_mask(score, at, n, low, high, blocks[r], mask, h, b, i0)
                        starts[used], widths[used] = at, w
                        used += 1
                        at += n * w
                    softmax(score, n, starts[:used], widths[:used], line, lse, h, first + i0)
                    heard = tile_o[: n * d].reshape(n, d)
                    heard[:] = 0
                    summed = tile_a[: n * d].reshape(n, d)
                    at = 0
                    for r in range(targets[t, 1], targets[t, 2]):
                        s = blocks[r, SOURCE]
                        low, high = reach(blocks[r], i0, n, place[s, 1, b])
                        w = high - low
                        if w == 0:
                            continue
                        some = values[start[s] + low * d : start[s] + high * d].reshape(w, d)
                        np.dot(score[at : at + n * w].reshape(n, w), some, summed)
                        np.dot(summed, msg[r, h], mapped)
                        add(heard, mapped)
                        at += n * w
                    for i in range(n):
                        to = out[first + i0 + i, h]
                        for j in range(d):
                            to[j] = heard[i, j]


@njit(**OPTIONS)
def backward(
    begin,
    end,
    grad,
    rows,
    out,
    lse,
    att,
    att_t,
    msg_t,
    mask,
    place,
    targets,
    blocks,
    share,
    room,
    to_rows,
    to_att_t,
    to_msg,
    to_mask,
):
    """Gradients from ``grad [N, H, d]``; those of the matrices are summed up per share of the samples.

    ``to_att_t`` and ``to_msg`` are ``[shares, blocks, H, d, d]``.
    """
    d = rows.shape[3]
    nodes = room[0] * d
    keys = np.empty(nodes, rows.dtype)
    keys_t = np.empty(nodes, rows.dtype)
    values = np.empty(nodes, rows.dtype)
    values_t = np.empty(nodes, rows.dtype)
    to_keys = np.empty(nodes, rows.dtype)
    to_values = np.empty(nodes, rows.dtype)
    band = np.empty(nodes, rows.dtype)
    part_s = np.empty(nodes, rows.dtype)
    tile_q = np.empty(TILE * d, rows.dtype)
    tile_g = np.empty(TILE * d, rows.dtype)
    tile_m = np.empty(TILE * d, rows.dtype)
    tile_a = np.empty(TILE * d, rows.dtype)
    tile_u = np.empty(TILE * d, rows.dtype)
    tile_c = np.empty(TILE * d, rows.dtype)
    tile_o = np.empty(TILE * d, rows.dtype)
    tile_p = np.empty(TILE * d, rows.dtype)
    score, slope, delta = np.empty(room[1], rows.dtype), np.empty(room[1], rows.dtype), np.empty(TILE, rows.dtype)
    matrix = np.empty((d, d), rows.dtype)
    start = np.empty(place.shape[0] + 1, np.int64)
    nothing = keys[:0]
    for piece in range(begin, end):
        h, slot = share[piece, 2], share[piece, 3]
        for b in range(share[piece, 0], share[piece, 1]):
            start[0] = 0
            for s in range(place.shape[0]):
                start[s + 1] = start[s] + place[s, 1, b] * d
            for s in range(place.shape[0]):
                first, size, at, to = place[s, 0, b], place[s, 1, b], start[s], start[s + 1]
                take(rows, first, size, 0, h, keys[at:to], keys_t[at:to])
                take(rows, first, size, 2, h, values[at:to], values_t[at:to])
            to_keys[: start[-1]] = 0
            to_values[: start[-1]] = 0
            for t in range(len(targets)):
                target = targets[t, 0]
                first, size = place[target, 0, b], place[target, 1, b]
                for i0 in range(0, size, TILE):
                    n = min(TILE, size - i0)
                    take(rows, first + i0, n, 1, h, tile_q, nothing)
                    for i in range(n):
                        up, made = grad[first + i0 + i, h], out[first + i0 + i, h]
                        part = tile_g[i * d : (i + 1) * d]
                        total = up[0] * made[0]
                        for j in range(1, d):
                            total += up[j] * made[j]
                        for j in range(d):
                            part[j] = up[j]
                        delta[i] = total
                    query, mapped = tile_q[: n * d].reshape(n, d), tile_m[: n * d].reshape(n, d)
                    up, summed = tile_g[: n * d].reshape(n, d), tile_a[: n * d].reshape(n, d)
                    to_sum, to_mapped = tile_u[: n * d].reshape(n, d), tile_c[: n * d].reshape(n, d)
                    to_query, part = tile_o[: n * d].reshape(n, d), tile_p[: n * d].reshape(n, d)
                    to_query[:] = 0
                    for r in range(targets[t, 1], targets[t, 2]):
                        block = blocks[r]
                        s = block[SOURCE]
                        source = place[s, 1, b]
                        low, high = reach(block, i0, n, source)
                        w = high - low
                        if w == 0:
                            continue
                        at, to = start[s] + low * d, start[s] + high * d
                        np.dot(query, att_t[r, h], mapped)
                        weight = score[: n * w].reshape(n, w)
                        np.dot(mapped, turned_part(keys_t[start[s] : start[s + 1]], low, high, source, d, band), weight)
                        np.dot(up, msg_t[r, h], to_sum)
                        change = slope[: n * w].reshape(n, w)
                        some = turned_part(values_t[start[s] : start[s + 1]], low, high, source, d, band)
                        np.dot(to_sum, some, change)
                        add_mask(score, 0, n, low, high, block, mask, h, b, i0)
                        slopes(score, slope, n, w, lse, h, first + i0, delta)
                        if len(to_mask) and block[KIND] == MASK and block[PER_HEAD] != 0:
                            for i in range(n):
                                at_mask = mask_place(block, h, b, i0 + i, low)
                                for j in range(w):
                                    to_mask[at_mask + j] = change[i, j]
                        np.dot(weight, values[at:to].reshape(w, d), summed)
                        np.dot(summed.T, up, matrix)
                        add(to_msg[slot, r, h], matrix)
                        np.dot(weight.T, to_sum, part_s[: w * d].reshape(w, d))
                        add(to_values[at:to], part_s[: w * d])
                        np.dot(change, keys[at:to].reshape(w, d), to_mapped)
                        np.dot(change.T, mapped, part_s[: w * d].reshape(w, d))
                        add(to_keys[at:to], part_s[: w * d])
                        np.dot(to_mapped, att[r, h], part)
                        add(to_query, part)
                        np.dot(query.T, to_mapped, matrix)
                        add(to_att_t[slot, r, h], matrix)
                    for i in range(n):
                        to_row = to_rows[first + i0 + i, 1, h]
                        for j in range(d):
                            to_row[j] = to_query[i, j]
            for s in range(place.shape[0]):
                first, at = place[s, 0, b], start[s]
                for i in range(place[s, 1, b]):
                    to_key, to_value = to_rows[first + i, 0, h], to_rows[first + i, 2, h]
                    for j in range(d):
                        to_key[j] = to_keys[at + i * d + j]
                        to_value[j] = to_values[at + i * d + j]


@cache
def forward_task(dtype: str) -> int:
    """The address of :func:`forward` as a task, for arrays of float32 or float64."""
    real, whole = getattr(types, dtype), types.int64

    def run(data):
        task = carray(data, (2 + 11 * FIELDS,), np.int64)
        inputs = (array4(task, 0, real), array4(task, 1, real), array4(task, 2, real), array1(task, 3, real))
        tables = (array3(task, 4, whole), array2(task, 5, whole), array2(task, 6, whole))
        work = (array2(task, 7, whole), array1(task, 8, whole))
        made = (array3(task, 9, real), array2(task, 10, real))
        arrays = (*inputs, *tables, *work, *made)
        piece = take_one(data)
        while piece < task[1]:
            forward(piece, piece + 1, *arrays)
            piece = take_one(data)

    return compiled(run)


@cache
def backward_task(dtype: str) -> int:
    """The address of :func:`backward` as a task, for arrays of float32 or float64."""
    real, whole = getattr(types, dtype), types.int64

    def run(data):
        task = carray(data, (2 + 17 * FIELDS,), np.int64)
        known = (array3(task, 0, real), array4(task, 1, real), array3(task, 2, real), array2(task, 3, real))
        maps = (array4(task, 4, real), array4(task, 5, real), array4(task, 6, real), array1(task, 7, real))
        tables = (array3(task, 8, whole), array2(task, 9, whole), array2(task, 10, whole))
        work = (array2(task, 11, whole), array1(task, 12, whole))
        made = (array4(task, 13, real), array5(task, 14, real), array5(task, 15, real), array1(task, 16, real))
        arrays = (*known, *maps, *tables, *work, *made)
        piece = take_one(data)
        while piece < task[1]:
            backward(piece, piece + 1, *arrays)
            piece = take_one(data)

    return compiled(run)
