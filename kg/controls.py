"""Graphs that say nothing, to hold against one that should: does a model gain from what the graph says, or from having
more nodes and weights?

All keep the entities with their numbers, names and literals, so that links and entity features stay what they were,
and the number of arcs of every relation. A gain that remains with one of them does not come from the arcs
(compare Hewitt and Liang, "Designing and interpreting probes with control tasks", EMNLP 2019).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .building import both_ways
from .csr import KnowledgeGraph
from .errors import KnowledgeError

ATTEMPTS = 100
"""How often arcs that came out twice are drawn anew."""


def permute_relations(kg: KnowledgeGraph, seed: int = 0) -> KnowledgeGraph:
    """The same arcs with their relations dealt out anew: who is connected stays, what it means does not.

    Raises:
        KnowledgeError: no permutation without two equal arcs was found, because nearly all possible arcs are there.
    """
    return _dealt(kg, 1, np.zeros(len(kg), np.int64), seed)


def permute_tails(kg: KnowledgeGraph, seed: int = 0) -> KnowledgeGraph:
    """The same arcs with the tails of each relation dealt out anew: how many arcs of which kind an entity has stays,
    where they lead does not.

    Where nearly all arcs are of one kind, as in a taxonomy, permuting relations leaves what the graph says; this does
    not.

    Raises:
        KnowledgeError: as :func:`permute_relations`.
    """
    return _dealt(kg, 2, kg.out.types.astype(np.int64), seed)


def random_arcs(kg: KnowledgeGraph, seed: int = 0) -> KnowledgeGraph:
    """As many arcs of every relation, between entities drawn at random (uniformly, from those that have arcs).

    Raises:
        KnowledgeError: as :func:`permute_relations`.
    """
    rng = np.random.default_rng(seed)
    connected = np.flatnonzero(kg.degree())
    kinds = kg.out.types.astype(np.int64)
    heads, tails = (rng.choice(connected, len(kinds)) if len(kinds) else kinds for _ in range(2))
    for _ in range(ATTEMPTS):
        twice = _repeated(heads, kinds, tails)
        if not len(twice):
            return _with(kg, heads, kinds, tails)
        heads[twice], tails[twice] = rng.choice(connected, (2, len(twice)))
    raise KnowledgeError(f"found no random arcs for {kg} of which {len(kg)} are different")


def _dealt(kg: KnowledgeGraph, column: int, groups: NDArray[np.int64], seed: int) -> KnowledgeGraph:
    """One column (heads, relations, tails) permuted among the arcs of each group."""
    rng = np.random.default_rng(seed)
    columns = [part.astype(np.int64) for part in (kg.heads, kg.out.types, kg.out.nodes)]
    values = columns[column]
    grouped = np.argsort(groups, kind="stable")
    values[grouped] = values[np.lexsort((rng.random(len(kg)), groups))]
    sizes = np.bincount(groups)
    first = np.cumsum(sizes) - sizes
    for _ in range(ATTEMPTS):
        twice = _repeated(*columns)
        if not len(twice):
            return _with(kg, *columns)
        # exchanged with any others of the group: among themselves they might be equal for ever
        own = groups[twice]
        for a, b in zip(twice, grouped[first[own] + rng.integers(0, sizes[own])], strict=True):
            values[a], values[b] = values[b], values[a]
    raise KnowledgeError(f"found no permutation of {kg} that leaves {len(kg)} different arcs")


def _repeated(heads: NDArray[Any], kinds: NDArray[Any], tails: NDArray[Any]) -> NDArray[np.int64]:
    """Places of the arcs that are there before."""
    order = np.lexsort((kinds, tails, heads))
    h, r, t = heads[order], kinds[order], tails[order]
    return order[1:][(h[1:] == h[:-1]) & (r[1:] == r[:-1]) & (t[1:] == t[:-1])]


def _with(kg: KnowledgeGraph, heads: NDArray[Any], kinds: NDArray[Any], tails: NDArray[Any]) -> KnowledgeGraph:
    out, into = both_ways(heads, kinds, tails, kg.num_entities, kg.num_relations)
    return replace(kg, out=out, into=into, file=None)
