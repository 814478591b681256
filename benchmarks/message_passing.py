"""How fast is one HGT layer beside PyG's HGTConv, the same function with the same weights?

The standard batch: 32 samples of 122 nodes, 24 edge types, about 7,800 edges each; width 128, 4 heads. Results
and gradients are checked for equality before anything is timed. The candidates take turns in one process.

    python -m benchmarks.message_passing --json FILE [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hetgraph import Graph

from .common import Candidate, Setting, arguments, compare_layers, finish, sizes_of
from .peers import OURS, layer_names, layers, peers_among
from .standard import SAMPLES, WIDTH, standard_batch


class Projections(nn.Module):
    """The linear maps alone (queries, keys, values and output per node type): the floor."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH) for _ in graph.x])
        self.outer = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in graph.x])

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        pairs = zip(x.items(), self.inner, self.outer, strict=True)
        return {name: outer(inner(value)[:, :WIDTH]) for (name, value), inner, outer in pairs}


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=9)
    graph = standard_batch(4 if found.quick else SAMPLES)
    names, left_out = layer_names()
    candidates = layers(graph, names)
    floor = Projections(graph)
    candidates.append(Candidate("projections alone", floor, floor))
    values = compare_layers(candidates, graph.x, found.rounds)
    setting = Setting("standard batch", "ms", sizes_of(graph), OURS, peers_among(names), values)
    finish("message_passing", "HGT layer", found, [setting], left_out)


if __name__ == "__main__":
    main()
