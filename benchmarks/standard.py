"""The graphs that the speed benchmarks share, and the way they measure.

The standard batch: 32 samples with 36 regions, 20 tokens, 50 frames and 16 entities each; 24 edge types with
together about 7,800 random distinct edges a sample; width 128, 4 heads. Beside it single large graphs with
random edges, of one type or of the standard types.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hetgraph import EdgeType, Graph, GraphBuilder, NodeType, Sample, Schema, rules

SIZES = {"region": 36, "token": 20, "frame": 50, "entity": 16}
EDGES_PER_SAMPLE = 7802
WIDTH, HEADS, SAMPLES = 128, 4, 32


def standard_schema() -> Schema:
    """Four node types and 24 edge types: one for each of the 16 ordered pairs, a second one for eight of them."""
    pairs = [(a, b) for a in SIZES for b in SIZES]
    keys = [(a, "first", b) for a, b in pairs] + [(a, "second", b) for a, b in pairs[::2]]
    return Schema([NodeType(name, WIDTH) for name in SIZES], [EdgeType(*key, rule=rules.given) for key in keys])


def single_schema() -> Schema:
    """One node type, one edge type."""
    return Schema([NodeType("node", WIDTH)], [EdgeType("node", "to", "node", rule=rules.given)])


def standard_samples(
    samples: int = SAMPLES,
    seed: int = 0,
    sizes: Mapping[str, int] = SIZES,
    edges_per_sample: int = EDGES_PER_SAMPLE,
) -> list[Sample]:
    """The samples of the standard batch, their edges as lists, as a user with a graph of their own has them."""
    generator = torch.Generator().manual_seed(seed)
    room = {key: sizes[key[0]] * sizes[key[2]] for key in standard_schema().edges}
    share = edges_per_sample / sum(room.values())
    parts = []
    for _ in range(samples):
        edges = {}
        for key, cells in room.items():
            chosen = torch.randperm(cells, generator=generator)[: round(cells * share)]
            edges[key] = torch.stack([chosen // sizes[key[2]], chosen % sizes[key[2]]])
        nodes = {name: torch.randn(count, WIDTH, generator=generator) for name, count in sizes.items()}
        parts.append(Sample(nodes=nodes, edges=edges))
    return parts


def standard_batch(
    samples: int = SAMPLES,
    seed: int = 0,
    sizes: Mapping[str, int] = SIZES,
    edges_per_sample: int = EDGES_PER_SAMPLE,
) -> Graph:
    """The standard batch, or one with other sizes."""
    return GraphBuilder(standard_schema())(standard_samples(samples, seed, sizes, edges_per_sample))


def large_graph(schema: Schema, nodes: int, edges: int, seed: int = 0) -> Graph:
    """One sample with many nodes and uniformly random edges (a few repeat), shared out evenly over the types."""
    generator = torch.Generator().manual_seed(seed)
    size, share = nodes // len(schema.nodes), edges // len(schema.edges)
    sample = Sample(
        nodes={name: torch.randn(size, WIDTH, generator=generator) for name in schema.nodes},
        edges={key: torch.randint(size, (2, share), generator=generator) for key in schema.edges},
    )
    return GraphBuilder(schema)([sample])


def alternate(candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of every candidate in every round; the candidates take turns, so that drift hits all alike."""
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(measured: list[float], scale: float = 1e3) -> dict[str, float]:
    """Median and quartiles, times ``scale`` (by default milliseconds from seconds)."""
    if len(measured) == 1:
        return dict.fromkeys(("median", "low", "high"), measured[0] * scale)
    low, middle, high = statistics.quantiles(measured, n=4, method="inclusive")
    return {"median": middle * scale, "low": low * scale, "high": high * scale}


def total(out: Mapping[str, Tensor]) -> Tensor:
    """A scalar that depends on every output, to start a backward pass from."""
    return torch.stack([value.square().sum() for value in out.values()]).sum()
