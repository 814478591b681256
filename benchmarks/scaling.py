"""How does the time of one HGT layer grow with nodes, edges and samples, ours and PyG's?

Forward and backward, the same weights, checked to be equal at every size. Starting from the standard sample: more
nodes at 64 edges a node, more edges between the same nodes, more samples in the batch. And one long sound: frames of
one type, each hearing the four on both sides (``rules.window(4)``), in one sample; there the time must grow as the
frames do. That one is also timed with the graph built anew every time.

    python -m benchmarks.scaling --json FILE [--quick]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from hetgraph import EdgeType, Graph, GraphBuilder, NodeType, Sample, Schema, rules

from .common import Candidate, Setting, Values, arguments, finish
from .peers import DGL_KERNELS, OURS, PYG, layer_names, layers, peers_among
from .standard import SIZES, WIDTH, alternate, standard_batch, summary, total

EDGES_PER_NODE = 64


def more_nodes(factor: int) -> Graph:
    sizes = {name: factor * size for name, size in SIZES.items()}
    return standard_batch(4, sizes=sizes, edges_per_sample=EDGES_PER_NODE * sum(sizes.values()))


def more_edges(edges: int) -> Graph:
    return standard_batch(8, edges_per_sample=edges)


def sound(frames: int) -> Graph:
    schema = Schema([NodeType("frame", WIDTH)], [EdgeType("frame", "near", "frame", rule=rules.window(4))])
    generator = torch.Generator().manual_seed(0)
    return GraphBuilder(schema)([Sample(frame=torch.randn(frames, WIDTH, generator=generator))])


def step(candidate: Candidate, graph: Graph) -> Callable[[], None]:
    """Forward and backward of a layer."""

    def run() -> None:
        total(candidate.forward(graph.x)).backward()
        candidate.module.zero_grad()

    return run


def rebuilt(candidate: Candidate, graph: Graph) -> Callable[[], None]:
    """Our layer on a graph that is made from its sample each time."""
    builder, sample = GraphBuilder(graph.schema), graph[0]

    def run() -> None:
        fresh = builder([sample])
        total(candidate.module(fresh, fresh.x)).backward()
        candidate.module.zero_grad()

    return run


def sweep(
    axis: str, graphs: Mapping[int, Callable[[], Graph]], names: Sequence[str], rounds: int, *, rebuild: bool = False
) -> Setting:
    """Time the candidates on every graph; all samples of a graph are alike."""
    values: dict[str, Values] = {}
    for size, make in graphs.items():
        graph = make()
        candidates = layers(graph, names)
        runs = {candidate.name: step(candidate, graph) for candidate in candidates}
        if rebuild:
            ours = next(candidate for candidate in candidates if candidate.name == OURS)
            runs[f"{OURS}, graph built"] = rebuilt(ours, graph)
        values[str(size)] = {name: summary(seconds) for name, seconds in alternate(runs, rounds).items()}
    sizes = {"sizes": len(graphs)}
    return Setting(f"forward + backward by {axis}", "ms", sizes, OURS, peers_among(names), values, axis=axis)


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=5)
    known, left_out = layer_names()
    names = [name for name in known if name in (PYG, OURS, DGL_KERNELS)]
    quick = found.quick
    nodes = {
        factor * sum(SIZES.values()): (lambda f=factor: more_nodes(f))
        for factor in ((1, 2) if quick else (1, 2, 4, 8, 16))
    }
    edges = {n: (lambda n=n: more_edges(n)) for n in ((500, 1000) if quick else (1000, 2000, 4000, 8000, 16000))}
    batch = {n: (lambda n=n: standard_batch(n)) for n in ((1, 2) if quick else (1, 2, 4, 8, 16, 32, 64))}
    frames = {n: (lambda n=n: sound(n)) for n in ((250, 500) if quick else (2000, 4000, 8000, 16000))}
    settings = [
        sweep("nodes per sample", nodes, names, found.rounds),
        sweep("edges per sample", edges, names, found.rounds),
        sweep("samples", batch, names, found.rounds),
        sweep("frames", frames, names, found.rounds, rebuild=True),
    ]
    finish("scaling", "HGT layer", found, settings, left_out)


if __name__ == "__main__":
    main()
