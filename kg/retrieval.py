"""From a large knowledge graph and some seeds to the small graph around them.

A retriever is a function ``(graph, seeds) -> Subgraph``. Seeds are entities by number or name and are never dropped.
Results do not depend on the order in which the graph's statements came, nor on the backend: what is equally good is
chosen by the number of the entity, which is the order of its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .csr import KnowledgeGraph
from .errors import KnowledgeError

if TYPE_CHECKING:
    import networkx as nx

Ints = NDArray[np.int64]
UNLIMITED = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A part of a knowledge graph: M entities and the K arcs between them.

    Attributes:
        nodes: int64 ``[M]``, entities of the graph, seeds first, then by falling score.
        edge_index: int64 ``[2, K]``, head and tail of each arc as places in ``nodes``.
        edge_type: int64 ``[K]``, relations of the graph.
        score: float64 ``[M]``, the larger the closer; what it is depends on the retriever.
        seeds: int64 ``[S]``, places of the seeds, in the order they were given, each once.
        provenance: the retriever, its settings, and what it has to say.
    """

    nodes: Ints
    edge_index: Ints
    edge_type: Ints
    score: NDArray[np.float64]
    seeds: Ints
    provenance: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.nodes)

    def triples(self, graph: KnowledgeGraph) -> list[tuple[str, str, str]]:
        """The arcs by name."""
        names = [graph.entities[n] for n in self.nodes.tolist()]
        kinds = self.edge_type.tolist()
        return [(names[h], graph.relations[r], names[t]) for (h, t), r in zip(self.edge_index.T, kinds, strict=True)]

    def to_networkx(self, graph: KnowledgeGraph) -> nx.MultiDiGraph:
        """A ``MultiDiGraph`` of names; nodes have ``label``, ``score`` and ``seed``, edges ``relation``."""
        import networkx as nx

        out = nx.MultiDiGraph()
        seeds = set(self.seeds.tolist())
        for place, (node, score) in enumerate(zip(self.nodes.tolist(), self.score.tolist(), strict=True)):
            out.add_node(graph.entities[node], label=graph.label(node), score=score, seed=place in seeds)
        out.add_edges_from((h, t, r, {"relation": r}) for h, r, t in self.triples(graph))
        return out

    def keep(self, places: Ints, score: NDArray[np.float64], note: Mapping[str, Any]) -> Subgraph:
        """The part with some nodes, in their order, which has to begin with the seeds; ``note`` joins provenance."""
        new = np.full(len(self), -1, np.int64)
        new[places] = np.arange(len(places))
        kept = (new[self.edge_index] >= 0).all(0)
        index, kinds = new[self.edge_index[:, kept]], self.edge_type[kept]
        return Subgraph(self.nodes[places], index, kinds, score, new[self.seeds], {**self.provenance, **note})


@cache
def _loops(backend: str) -> Any:
    if backend in ("auto", "numba"):
        from . import _retrieval_numba

        return _retrieval_numba
    if backend == "numpy":
        from . import _retrieval_numpy

        return _retrieval_numpy
    raise KnowledgeError(f"backend must be 'auto', 'numba' or 'numpy', got {backend!r}")


@dataclass(frozen=True, kw_only=True)
class Retriever(ABC):
    """What all retrievers share.

    Args:
        max_nodes: entities of the result; only more seeds than that make it larger.
        hub: arcs of one entity that are followed in one direction, spread evenly over all it has; ``None`` follows all.
        direction: of the arcs that are followed: "out" (from head to tail), "in" or "both".
        backend: "numba", "numpy", or "auto", which is numba.
    """

    max_nodes: int = 200
    hub: int | None = 1000
    direction: str = "both"
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.direction not in ("out", "in", "both"):
            raise KnowledgeError(f"direction must be 'out', 'in' or 'both', got {self.direction!r}")
        for name in ("max_nodes", "hub"):
            value = getattr(self, name)
            if (value is not None or name == "max_nodes") and (not isinstance(value, int) or value < 1):
                raise KnowledgeError(f"{name} must be a positive integer, got {value!r}")
        if self.backend not in ("auto", "numba", "numpy"):
            raise KnowledgeError(f"backend must be 'auto', 'numba' or 'numpy', got {self.backend!r}")

    @abstractmethod
    def __call__(self, graph: KnowledgeGraph, seeds: Iterable[int | str]) -> Subgraph:
        """The part of the graph around the seeds.

        Raises:
            KnowledgeError: a seed that is not in the graph.
        """

    @property
    def _limits(self) -> tuple[int, bool, bool]:
        return self.hub or UNLIMITED, self.direction != "in", self.direction != "out"

    def _walk(self, graph: KnowledgeGraph, start: Ints, hops: int, most: int) -> tuple[Ints, Ints]:
        """Entities within some hops, near ones first, and their distance.

        Where they are too many, those that more arcs lead to from the ring before go first, then lower numbers.
        """
        expand, arrays = _loops(self.backend).expand, _arrays(graph)
        nodes, far, ring = start, np.zeros(len(start), np.int64), start
        known = np.sort(start)
        for hop in range(1, hops + 1):
            found, counts = expand(*arrays, ring, *self._limits)
            place = np.searchsorted(known, found)
            new = np.ones(len(found), bool)
            inside = place < len(known)
            new[inside] = known[place[inside]] != found[inside]
            found, counts = found[new], counts[new]
            if len(found) > most - len(nodes):
                found = found[np.argsort(-counts, kind="stable")[: max(0, most - len(nodes))]]
            ring = found
            if not len(ring):
                break
            nodes = np.concatenate([nodes, ring])
            far = np.concatenate([far, np.full(len(ring), hop)])
            known = np.sort(nodes)
        return nodes, far

    def _best(self, seeds: Ints, nodes: Ints, score: NDArray[np.float64]) -> tuple[Ints, NDArray[np.float64]]:
        """Seeds first, then the others by falling score, as many as may be; ``nodes`` are sorted and hold the seeds."""
        place = np.searchsorted(nodes, seeds)
        other = np.ones(len(nodes), bool)
        other[place] = False
        nodes, score, own = nodes[other], score[other], score[place]
        order = np.argsort(-score, kind="stable")[: max(0, self.max_nodes - len(seeds))]
        return np.concatenate([seeds, nodes[order]]), np.concatenate([own, score[order]])

    def _cut(
        self, graph: KnowledgeGraph, nodes: Ints, score: NDArray[np.float64], seeds: int, **notes: Any
    ) -> Subgraph:
        """The subgraph that some entities, seeds first, span."""
        order = np.argsort(nodes)
        heads, tails, arcs = _loops(self.backend).induced(graph.out.offsets, graph.out.nodes, nodes[order])
        index = np.stack([order[heads], order[tails]])
        provenance = {"retriever": type(self).__name__, "settings": _settings(self), **notes}
        return Subgraph(nodes, index, graph.out.types[arcs].astype(np.int64), score, np.arange(seeds), provenance)


def _arrays(graph: KnowledgeGraph) -> tuple[Any, Any, Any, Any]:
    return graph.out.offsets, graph.out.nodes, graph.into.offsets, graph.into.nodes


def _settings(retriever: Retriever) -> dict[str, Any]:
    # the backend makes no difference
    return {name: value for name, value in asdict(retriever).items() if name != "backend"}


def _distinct(graph: KnowledgeGraph, seeds: Iterable[int | str]) -> Ints:
    if isinstance(seeds, str):
        raise KnowledgeError(f"seeds must be a list, got {seeds!r}")
    return np.array(list(dict.fromkeys(graph.numbers(seeds))), np.int64)


@dataclass(frozen=True, kw_only=True)
class KHopRetriever(Retriever):
    """All within some hops; where they are too many, near ones first, then those with more arcs from the ring before.

    The score is ``1 / (1 + hops)``.

    Args:
        hops: arcs to walk at most.
    """

    hops: int = 2
    hub: int | None = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hops < 0:
            raise KnowledgeError(f"hops must not be negative, got {self.hops}")

    def __call__(self, graph: KnowledgeGraph, seeds: Iterable[int | str]) -> Subgraph:
        start = _distinct(graph, seeds)
        nodes, far = self._walk(graph, start, self.hops, max(self.max_nodes, len(start)))
        return self._cut(graph, nodes, 1.0 / (1.0 + far.astype(np.float64)), len(start))


@dataclass(frozen=True, kw_only=True)
class PPRRetriever(Retriever):
    """Those where a random walk that keeps going back to the seeds is most often: personalised PageRank.

    By local push (Andersen, Chung and Lang, "Local graph partitioning using PageRank vectors", FOCS 2006): with
    ``hub=None`` and both directions a score is below the exact one by at most ``eps`` times the entity's degree. Every
    seed is pushed at least once, whatever its degree.

    Args:
        alpha: probability of going back.
        eps: how exact. The work is at most ``1 / (alpha * eps)`` arcs, and one round of the seeds.
    """

    alpha: float = 0.15
    eps: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0.0 < self.alpha < 1.0 and 0.0 < self.eps < 1.0):
            raise KnowledgeError(f"alpha and eps must be between 0 and 1, got {self.alpha} and {self.eps}")

    def scores(self, graph: KnowledgeGraph, seeds: Iterable[int | str]) -> tuple[Ints, NDArray[np.float64]]:
        """Every entity with a score, sorted, and the scores."""
        start = np.sort(_distinct(graph, seeds))
        if not len(start):
            return start, np.empty(0)
        found: tuple[Ints, NDArray[np.float64]] = _loops(self.backend).push(
            *_arrays(graph), start, self.alpha, self.eps, *self._limits
        )
        return found

    def __call__(self, graph: KnowledgeGraph, seeds: Iterable[int | str]) -> Subgraph:
        start = _distinct(graph, seeds)
        nodes, score = self._best(start, *self.scores(graph, start))
        return self._cut(graph, nodes, score, len(start))


@dataclass(frozen=True, kw_only=True)
class PathRetriever(Retriever):
    """Bridges: what lies on short paths between two seeds (QA-GNN adds the common neighbours of every pair).

    An entity is kept if some pair of seeds has a path through it that is at most ``slack`` longer than their shortest
    and at most ``length`` long. Its score is the sum, over all such pairs, of one over the length of that path.

    Args:
        length: arcs of a path at most.
        slack: 0 or 1; with 1, seeds that are neighbours still find their common neighbours. More could not be told
            from going back and forth.
        reach: entities to look at around one seed.
    """

    length: int = 3
    slack: int = 1
    reach: int = 20_000
    hub: int | None = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1 or self.slack not in (0, 1) or self.reach < 1:
            raise KnowledgeError(
                f"length and reach must be positive and slack 0 or 1, got {self.length}, {self.reach}, {self.slack}"
            )

    def __call__(self, graph: KnowledgeGraph, seeds: Iterable[int | str]) -> Subgraph:
        start = _distinct(graph, seeds)
        reached = []
        for seed in start:
            nodes, far = self._walk(graph, np.array([seed]), max(1, self.length - 1), self.reach)
            order = np.argsort(nodes)
            reached.append((nodes[order], far[order]))
        found, parts, connected = [start], [np.zeros(len(start))], 0
        for pair in combinations(range(len(start)), 2):
            (a, near), (b, far) = (reached[i] for i in pair)
            common, of_a, of_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
            total = near[of_a] + far[of_b]
            shortest = total.min(initial=UNLIMITED)
            if shortest > self.length:
                continue
            connected += 1
            ends = start[list(pair)]
            # the ends may be farther from each other than was walked
            between = (total <= min(self.length, shortest + self.slack)) & ~np.isin(common, ends)
            found += [common[between], ends]
            parts += [1.0 / total[between], np.full(2, 1.0 / shortest)]
        nodes, place = np.unique(np.concatenate(found), return_inverse=True)
        score: NDArray[np.float64] = np.bincount(place, np.concatenate(parts), len(nodes)).astype(np.float64)
        best, score = self._best(start, nodes, score)
        return self._cut(graph, best, score, len(start), connected_pairs=connected)


@dataclass(frozen=True)
class Rerank:
    """Another retriever's result, by a scoring function of yours: the best are kept, and the seeds.

    Args:
        retriever: finds candidates; give it a larger ``max_nodes``.
        scorer: ``(graph, subgraph) -> [M]``, a finite score for each of its nodes.
        max_nodes: to keep.
    """

    retriever: Callable[[KnowledgeGraph, Iterable[int | str]], Subgraph]
    scorer: Callable[[KnowledgeGraph, Subgraph], Any] = field(repr=False)
    max_nodes: int = 200

    def __call__(self, graph: KnowledgeGraph, seeds: Iterable[int | str]) -> Subgraph:
        """The part of the graph around the seeds.

        Raises:
            KnowledgeError: scores that are not finite, or not one for each node.
        """
        found = self.retriever(graph, seeds)
        score = np.asarray(self.scorer(graph, found), np.float64)
        if score.shape != (len(found),) or not np.isfinite(score).all():
            raise KnowledgeError(f"the scorer must give [{len(found)}] finite numbers, got {list(score.shape)}")
        others = np.setdiff1d(np.arange(len(found)), found.seeds)
        order = others[np.lexsort((found.nodes[others], -score[others]))][: max(0, self.max_nodes - len(found.seeds))]
        places = np.concatenate([found.seeds, order])
        name = getattr(self.scorer, "__name__", type(self.scorer).__name__)
        return found.keep(places, score[places], {"reranked_by": name, "candidates": len(found)})
