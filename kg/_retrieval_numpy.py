"""The twins of the loops in :mod:`hetgraph.kg._retrieval_numba`, in NumPy: same arguments, same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def expand(
    out_offsets: Any,
    out_nodes: Any,
    into_offsets: Any,
    into_nodes: Any,
    ring: Ints,
    hub: int,
    forward: bool,
    backward: bool,
) -> tuple[Ints, Ints]:
    """The neighbours of a ring of entities, sorted, and how many arcs lead to each."""
    parts = [np.empty(0, np.int64)]
    for wanted, offsets, nodes in ((forward, out_offsets, out_nodes), (backward, into_offsets, into_nodes)):
        if wanted:
            parts.append(nodes[_followed(offsets, ring, hub)[1]])
    found, counts = np.unique(np.concatenate(parts), return_counts=True)
    return found.astype(np.int64), counts.astype(np.int64)


def induced(offsets: Any, nodes: Any, chosen: Ints) -> tuple[Ints, Ints, Ints]:
    """The arcs between chosen entities: places of head and tail in ``chosen``, and of the arc in ``nodes``."""
    begin = offsets[chosen].astype(np.int64)
    degree = offsets[chosen + 1] - begin
    # a long row is searched for the chosen, a short one is looked through
    long = degree > 16 * len(chosen)
    short = np.flatnonzero(~long)
    owner, arcs = _followed(offsets, chosen[short], np.iinfo(np.int64).max)
    parts = [(short[owner], arcs)]
    for head in np.flatnonzero(long):
        row = nodes[begin[head] : begin[head] + degree[head]]
        # in the row's own type, or all of it would be converted
        wanted = chosen.astype(row.dtype)
        first, last = np.searchsorted(row, wanted, "left"), np.searchsorted(row, wanted, "right")
        places = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
        parts.append((np.full(len(places), head), begin[head] + places))
    heads, places = (np.concatenate(part).astype(np.int64) for part in zip(*parts, strict=True))
    ends = nodes[places]
    tails = np.searchsorted(chosen, ends)
    kept = tails < len(chosen)
    kept[kept] = chosen[tails[kept]] == ends[kept]
    order = np.flatnonzero(kept)[np.argsort(places[kept], kind="stable")]
    return heads[order], tails[order].astype(np.int64), places[order]


def push(
    out_offsets: Any,
    out_nodes: Any,
    into_offsets: Any,
    into_nodes: Any,
    seeds: Ints,
    alpha: float,
    eps: float,
    hub: int,
    forward: bool,
    backward: bool,
) -> tuple[Ints, NDArray[np.float64]]:
    """Approximate personalised PageRank: the entities that got a score, sorted, and their scores."""
    rows = [(out_offsets, out_nodes)] * forward + [(into_offsets, into_nodes)] * backward

    def degree_of(entities: Ints) -> Ints:
        return sum(
            (np.minimum(hub, offsets[entities + 1].astype(np.int64) - offsets[entities]) for offsets, _ in rows),
            np.zeros(len(entities), np.int64),
        )

    known, degree = seeds, degree_of(seeds)
    score, rest = np.zeros(len(seeds)), np.full(len(seeds), 1.0 / len(seeds) if len(seeds) else 0.0)
    front = np.arange(len(seeds))
    while len(front):
        mass, ways = rest[front], degree[front]
        rest[front] = 0.0
        score[front] += np.where(ways > 0, alpha * mass, mass)
        share = (1.0 - alpha) * mass / np.maximum(ways, 1)
        parts = [(owner, nodes[places]) for o, nodes in rows for owner, places in [_followed(o, known[front], hub)]]
        owner, reached = (np.concatenate(part) for part in zip(*parts, strict=True))
        # entity by entity, its arcs out before its arcs in: sums depend on the order
        order = np.argsort(owner, kind="stable")
        owner, reached = owner[order], reached[order].astype(np.int64)
        every, place = np.unique(np.concatenate([known, reached]), return_inverse=True)
        before, places = place[: len(known)], place[len(known) :]
        # what was there is the first of the summands
        rest = np.bincount(place, np.concatenate([rest, share[owner]]), len(every))
        wider = np.zeros(len(every))
        wider[before] = score
        known, score, degree = every, wider, degree_of(every)
        touched = np.unique(places)
        front = touched[rest[touched] >= eps * degree[touched]]
    return known[score > 0], score[score > 0]


def _followed(offsets: Any, entities: Ints, hub: int) -> tuple[Ints, Ints]:
    """The arcs of entities that are followed: whose (a place in ``entities``), and their places in the rows."""
    begin = offsets[entities].astype(np.int64)
    degree = offsets[entities + 1] - begin
    taken = np.minimum(degree, hub)
    owner = np.repeat(np.arange(len(entities)), taken)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(taken) - taken, taken)
    return owner, begin[owner] + step * degree[owner] // np.maximum(taken, 1)[owner]
