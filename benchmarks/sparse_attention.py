"""How fast is one HGT layer on large sparse graphs, beside PyG's HGTConv and DGL's kernels?

Random graphs of 4,000 nodes and 250,000 edges and of 50,000 nodes and 1,000,000 edges, with one node type and one
edge type; and the smaller one with the four node types and 24 edge types of the standard batch. Width 128, 4 heads
of 32. Ours runs on edge lists (backend ``sparse``), with PyG's weights; results and gradients are checked first.
The dense backend does not take part: it would pad to all pairs.

    python -m benchmarks.sparse_attention --json FILE [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence

from .common import Setting, arguments, compare_layers, finish, sizes_of
from .peers import OURS, layer_names, layers, peers_among
from .standard import large_graph, single_schema, standard_schema


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=5)
    small = (400, 5_000) if found.quick else (4_000, 250_000)
    large = (1_000, 10_000) if found.quick else (50_000, 1_000_000)
    settings = []
    names, left_out = layer_names(without=["dense"])
    # the backend is fixed, so the choice that "auto" makes is no question here
    names.remove(OURS)
    for label, schema, size in (
        ("small, one edge type", single_schema(), small),
        ("small, 24 edge types", standard_schema(), small),
        ("large, one edge type", single_schema(), large),
    ):
        graph = large_graph(schema, *size)
        values = compare_layers(layers(graph, names), graph.x, found.rounds)
        settings.append(Setting(label, "ms", sizes_of(graph), f"{OURS}, sparse", peers_among(names), values))
    finish("sparse_attention", "HGT layer, sparse graph", found, settings, left_out)


if __name__ == "__main__":
    main()
