"""Which attention backend is expected to be faster on a graph: a cost model, linear in sizes.

``python -m benchmarks.calibrate`` measures both backends over a grid of sizes and densities, fits the
coefficients below and says how often, and by how much, the choice is wrong.
"""

from __future__ import annotations

from ..graph import Graph
from . import dense

# microseconds of a forward and backward pass, for each of the terms that the functions below list
DENSE_COST = (1.45e3, 26.2, 7.9e-4, 0.0, 1.25e-4, 0.0)
SPARSE_COST = (1.51e3, 7.55, 6.38e-4, 0.0, 1.15e-3, 0.0)

# without the fused kernel, edge lists pay below this share of edges among padded pairs
PLAIN_DENSITY = 0.076


def dense_terms(graph: Graph, width: int, heads: int) -> tuple[float, ...]:
    """What the work of the dense backend grows with: blocks, products with matrices, moved rows, padded pairs."""
    plan = dense._plan(graph)
    blocks = [(plan.longest[key[0]], plan.longest[name]) for name, some in plan.targets.items() for key, _ in some]
    samples = len(graph)
    rows = samples * sum(s for s, _ in blocks)
    pairs = samples * sum(s * d for s, d in blocks)
    return 1.0, len(blocks), rows * width * (width / heads), rows * width, pairs * width, pairs * heads


def sparse_terms(graph: Graph, width: int, heads: int) -> tuple[float, ...]:
    """What the work of the sparse backend grows with: edge types, products, moved rows, edges."""
    used = [e for e in graph.edges.values() if e.src.total and e.dst.total]
    edges = sum(len(e) for e in used)
    rows = sum(e.src.total if e.relation is None else min(len(e), e.src.total) for e in used)
    return 1.0, len(used), rows * width * (width / heads), rows * width, edges * width, edges * heads


def choose_backend(graph: Graph, width: int = 128, heads: int = 4) -> str:
    """``dense`` or ``sparse``, whichever is expected to be faster on this graph and device."""
    at = ("backend", width, heads)
    if at not in graph.cache:
        if graph.device.type == "cpu":
            wide = _cost(DENSE_COST, dense_terms(graph, width, heads))
            listed = _cost(SPARSE_COST, sparse_terms(graph, width, heads))
        else:
            wide = PLAIN_DENSITY * dense_terms(graph, 1, 1)[4]
            listed = sum(len(e) for e in graph.edges.values())
        graph.cache[at] = "sparse" if listed < wide else "dense"
    return graph.cache[at]


def _cost(coefficients: tuple[float, ...], terms: tuple[float, ...]) -> float:
    return sum(c * t for c, t in zip(coefficients, terms, strict=True))
