"""The standard batch that the speed benchmarks share, and the way they measure.

32 samples with 36 regions, 20 tokens, 50 frames and 16 entities each; 24 edge types with together about
7,800 random distinct edges a sample; width 128, 4 heads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

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


def standard_batch(samples: int = SAMPLES, seed: int = 0) -> Graph:
    """The batch, its edges as lists, as a user with a graph of their own has them."""
    generator = torch.Generator().manual_seed(seed)
    schema = standard_schema()
    room = {key: SIZES[key[0]] * SIZES[key[2]] for key in schema.edges}
    share = EDGES_PER_SAMPLE / sum(room.values())
    parts = []
    for _ in range(samples):
        edges = {}
        for key, cells in room.items():
            chosen = torch.randperm(cells, generator=generator)[: round(cells * share)]
            edges[key] = torch.stack([chosen // SIZES[key[2]], chosen % SIZES[key[2]]])
        nodes = {name: torch.randn(count, WIDTH, generator=generator) for name, count in SIZES.items()}
        parts.append(Sample(nodes=nodes, edges=edges))
    return GraphBuilder(schema)(parts)


def alternate(candidates: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
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


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    if len(seconds) == 1:
        return {"median_ms": seconds[0] * 1e3, "low_ms": seconds[0] * 1e3, "high_ms": seconds[0] * 1e3}
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"median_ms": middle * 1e3, "low_ms": low * 1e3, "high_ms": high * 1e3}


def total(out: dict[str, Tensor]) -> Tensor:
    """A scalar that depends on every output, to start a backward pass from."""
    return torch.stack([value.square().sum() for value in out.values()]).sum()
