"""Which attention backend is expected to be faster on a graph: a cost model, linear in sizes.

``python -m benchmarks.calibrate`` measures both backends over a grid of sizes and densities, fits the
coefficients below and says how often, and by how much, the choice is wrong.
"""

from __future__ import annotations

import torch

from ..edges import Edges
from ..graph import Graph
from ..rules import Window
from . import dense
from .folded import TILE

# microseconds of a forward and backward pass, for each of the terms that the functions below list
DENSE_COST = (1.47e3, 1.6, 1.94e-4, 1.3e-4, 0.0, 2.79e-4)
SPARSE_COST = (1.52e3, 33.2, 0.0, 6.5e-3, 9.33e-4, 0.0, 1.68e-4)

# where the dense backend has padded blocks, edge lists pay below this share of edges among padded pairs
PLAIN_DENSITY = 0.076


def dense_terms(graph: Graph, width: int, heads: int) -> tuple[float, ...]:
    """What the work of the dense backend grows with: calls, products with matrices, pairs, all numbers there are."""
    blocks = [key for some in dense._plan(graph).targets.values() for key, _ in some]
    samples, d = len(graph), width // heads
    mapped = sum(graph.edges[key].dst.total for key in blocks)
    pairs = sum(_pairs(graph.edges[key]) for key in blocks)
    return 1.0, samples * heads * len(blocks), mapped * width * d, pairs * width, pairs * heads, _numbers(graph, width)


def _pairs(edges: Edges) -> int:
    """The pairs of a source and a destination that the dense backend looks at."""
    if isinstance(edges.structure, Window):
        reach = TILE + edges.structure.before + edges.structure.after
        return int((edges.src.per_sample.clamp(max=reach) * edges.dst.per_sample).sum())
    return int((edges.src.per_sample * edges.dst.per_sample).sum())


def _numbers(graph: Graph, width: int) -> int:
    """What the projections grow with."""
    return sum(layout.total for layout in graph.layout.values()) * width * width


def sparse_terms(graph: Graph, width: int, heads: int) -> tuple[float, ...]:
    """What the work of the sparse backend grows with: edge types, products, moved rows, edges, all numbers."""
    used = [e for e in graph.edges.values() if e.src.total and e.dst.total]
    edges = sum(len(e) for e in used)
    rows = sum(e.src.total if e.relation is None else min(len(e), e.src.total) for e in used)
    d = width // heads
    return 1.0, len(used), rows * width * d, rows * width, edges * width, edges * heads, _numbers(graph, width)


def choose_backend(graph: Graph, width: int = 128, heads: int = 4, dtype: torch.dtype = torch.float32) -> str:
    """``dense`` or ``sparse``, whichever is expected to be faster on this graph, its device and such numbers."""
    at = ("backend", width, heads, dtype)
    if at not in graph.cache:
        if dense.folds(graph.device, dtype):
            wide = _cost(DENSE_COST, dense_terms(graph, width, heads))
            listed = _cost(SPARSE_COST, sparse_terms(graph, width, heads))
        else:
            wide = PLAIN_DENSITY * _padded_pairs(graph)
            listed = sum(len(e) for e in graph.edges.values())
        graph.cache[at] = "sparse" if listed < wide else "dense"
    return graph.cache[at]


def _padded_pairs(graph: Graph) -> int:
    """The pairs that the dense backend looks at where it has padded blocks and full masks."""
    plan = dense._plan(graph)
    blocks = [(plan.longest[key[0]], plan.longest[name]) for name, some in plan.targets.items() for key, _ in some]
    return len(graph) * sum(s * d for s, d in blocks)


def _cost(coefficients: tuple[float, ...], terms: tuple[float, ...]) -> float:
    return sum(c * t for c, t in zip(coefficients, terms, strict=True))
