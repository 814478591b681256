"""The smallest tree that connects the seeds, or nearly: Kou, Markowsky and Berman, "A fast algorithm for Steiner
trees" (Acta Informatica 1981), at most twice as large as the smallest one."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .csr import KnowledgeGraph
from .errors import KnowledgeError
from .retrieval import PPRRetriever, Retriever, Subgraph, _settings

Neighbours = list[list[tuple[int, float]]]
Edge = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SteinerRetriever(Retriever):
    """Little that connects the seeds: a tree among candidates that personalised PageRank proposes.

    Only arcs between neighbours in the tree are in the result. Seeds that the candidates do not connect are in trees
    of their own. The score is that of the candidates.

    Args:
        candidates: entities to search in.
        hub_cost: an edge costs one plus ``hub_cost`` times the logarithm of the larger degree at its ends, so that
            a tree would rather not go through what everything is connected to.
        eps: of the PageRank.
    """

    candidates: int = 1000
    hub_cost: float = 0.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 1 or not 0.0 <= self.hub_cost < np.inf:
            raise KnowledgeError(
                f"candidates must be positive and hub_cost not negative, got {self.candidates} and {self.hub_cost}"
            )

    def __call__(self, graph: KnowledgeGraph, seeds: Iterable[int | str]) -> Subgraph:
        ranked = PPRRetriever(
            max_nodes=self.candidates, eps=self.eps, hub=self.hub, direction=self.direction, backend=self.backend
        )
        found = ranked(graph, seeds)
        # places by number, so that nothing depends on scores that are nearly equal
        order = np.argsort(found.nodes)
        place = np.argsort(order)
        costs = np.ones(found.edge_index.shape[1])
        if self.hub_cost:
            offsets = (graph.out.offsets, graph.into.offsets)
            degree = sum(o[found.nodes + 1].astype(np.int64) - o[found.nodes] for o in offsets)
            costs += self.hub_cost * np.log(np.maximum(1, degree))[found.edge_index].max(0, initial=0.0)
        neighbours: Neighbours = [[] for _ in range(len(found))]
        ends = place[found.edge_index]
        for (a, b), cost in zip(ends.T.tolist(), costs.tolist(), strict=True):
            if a != b:
                neighbours[a].append((b, cost))
                neighbours[b].append((a, cost))
        tree = steiner_tree(neighbours, sorted(place[found.seeds].tolist()))
        inside = {node for edge in tree for node in edge}
        places = [p for p in range(len(found)) if p < len(found.seeds) or int(place[p]) in inside]
        notes = {"retriever": type(self).__name__, "settings": _settings(self), "tree_edges": len(tree)}
        kept = found.keep(np.array(places, np.int64), found.score[places], notes)
        own = place[places][kept.edge_index] if len(places) else kept.edge_index
        on_tree = np.array([(min(a, b), max(a, b)) in tree for a, b in own.T.tolist()], bool)
        return Subgraph(
            kept.nodes, kept.edge_index[:, on_tree], kept.edge_type[on_tree], kept.score, kept.seeds, kept.provenance
        )


def steiner_tree(neighbours: Neighbours, terminals: list[int]) -> set[Edge]:
    """A tree that connects the terminals, a forest if they are not connected.

    Args:
        neighbours: for each node its neighbours, and what it costs to go there.
        terminals: nodes, sorted.

    Returns:
        Edges, the smaller node first. Ties go to smaller nodes.
    """
    ways = {terminal: _shortest(neighbours, terminal) for terminal in terminals}
    pairs = sorted(
        (ways[a][0][b], a, b) for i, a in enumerate(terminals) for b in terminals[i + 1 :] if b in ways[a][0]
    )
    # the paths of a smallest tree over the distances between terminals
    used: dict[Edge, float] = {}
    for _, a, b in _spanning(pairs):
        node, (far, before) = b, ways[a]
        while node != a:
            step = before[node]
            used[min(node, step), max(node, step)] = far[node] - far[step]
            node = step
    tree = {(a, b) for _, a, b in _spanning(sorted((cost, a, b) for (a, b), cost in used.items()))}
    return _pruned(tree, set(terminals))


def _shortest(neighbours: Neighbours, start: int) -> tuple[dict[int, float], dict[int, int]]:
    """Dijkstra: the distance of every node that can be reached, and the node before it."""
    far, before, done = {start: 0.0}, {start: start}, set[int]()
    heap = [(0.0, start)]
    while heap:
        distance, node = heapq.heappop(heap)
        if node in done:
            continue
        done.add(node)
        for other, cost in neighbours[node]:
            new = distance + cost
            if other not in far or new < far[other] or (new == far[other] and node < before[other]):
                if other not in far or new < far[other]:
                    heapq.heappush(heap, (new, other))
                far[other], before[other] = new, node
    return far, before


def _spanning(edges: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """Kruskal: the edges of a smallest spanning forest, out of sorted ones."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]
        return node

    kept = []
    for cost, a, b in edges:
        if root(a) != root(b):
            parent[root(a)] = root(b)
            kept.append((cost, a, b))
    return kept


def _pruned(tree: set[Edge], terminals: set[int]) -> set[Edge]:
    """A tree without branches that end in no terminal."""
    while True:
        degree: dict[int, int] = {}
        for edge in tree:
            for node in edge:
                degree[node] = degree.get(node, 0) + 1
        loose = {edge for edge in tree if any(degree[node] == 1 and node not in terminals for node in edge)}
        if not loose:
            return tree
        tree = tree - loose
