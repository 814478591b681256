"""How fast is one HGT layer beside PyG's HGTConv, the same function with the same weights?

The standard batch: 32 samples of 122 nodes, 24 edge types, about 7,800 edges each; width 128, 4 heads. Results
and gradients are checked for equality before anything is timed. The candidates take turns in one process.

    python -m benchmarks.message_passing --json FILE [--quick]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hetgraph import Graph
from hetgraph.files import write_atomically
from hetgraph.nn import HGTLayer

from .standard import HEADS, SAMPLES, WIDTH, alternate, standard_batch, summary, total

Forward = Callable[[dict[str, Tensor]], dict[str, Tensor]]


class Projections(nn.Module):
    """The linear maps alone (queries, keys, values and output per node type): the floor."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH) for _ in graph.x])
        self.outer = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in graph.x])

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        pairs = zip(x.items(), self.inner, self.outer, strict=True)
        return {name: outer(inner(value)[:, :WIDTH]) for (name, value), inner, outer in pairs}


def check_equal(reference: Forward, candidate: Forward, x: dict[str, Tensor], name: str) -> None:
    """Raise if outputs or input gradients differ by more than 1e-5."""
    found = []
    for forward in (reference, candidate):
        inputs = {n: v.clone().requires_grad_() for n, v in x.items()}
        out = forward(inputs)
        total(out).backward()
        found.append((out, inputs))
    for kind in x:
        torch.testing.assert_close(
            found[0][0][kind], found[1][0][kind], rtol=1e-5, atol=1e-5, msg=f"{name}: output {kind}"
        )
        torch.testing.assert_close(
            found[0][1][kind].grad, found[1][1][kind].grad, rtol=1e-4, atol=1e-5, msg=f"{name}: gradient {kind}"
        )


def main() -> None:
    from torch_geometric.nn import HGTConv

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="two rounds of a batch of four")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    graph = standard_batch(4 if arguments.quick else SAMPLES)
    rounds = 2 if arguments.quick else arguments.rounds
    conv = HGTConv(WIDTH, WIDTH, (list(graph.schema.nodes), list(graph.schema.edges)), heads=HEADS)
    layer = HGTLayer.from_pyg(conv, graph.schema)
    index = dict(graph.edge_index)
    floor = Projections(graph)
    candidates: dict[str, tuple[nn.Module, Forward]] = {
        "PyG HGTConv": (conv, lambda x: conv(x, index)),
        "hetgraph dense": (layer, lambda x: layer(graph, x, "dense")),
        "hetgraph sparse": (layer, lambda x: layer(graph, x, "sparse")),
        "projections alone": (floor, floor),
    }
    for name in ("hetgraph dense", "hetgraph sparse"):
        check_equal(candidates["PyG HGTConv"][1], candidates[name][1], graph.x, name)

    def both(module: nn.Module, forward: Forward) -> Callable[[], None]:
        def run() -> None:
            total(forward(graph.x)).backward()
            module.zero_grad()

        return run

    def only_forward(forward: Forward) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                forward(graph.x)

        return run

    times = {
        "forward": alternate({n: only_forward(f) for n, (_, f) in candidates.items()}, rounds),
        "forward + backward": alternate({n: both(m, f) for n, (m, f) in candidates.items()}, rounds),
    }
    result = {kind: {name: summary(seconds) for name, seconds in found.items()} for kind, found in times.items()}
    edges = sum(len(e) for e in graph.edges.values())
    size = f"{len(graph)} samples, {graph.num_nodes} nodes, {edges:,} edges"
    table = Table(
        title=f"One HGT layer: {size}, {arguments.threads} threads",
        caption="median ms (quartiles); in the last columns PyG's time divided by it",
    )
    table.add_column("")
    for kind in result:
        table.add_column(kind, justify="right")
    for kind in result:
        table.add_column(f"PyG / it, {kind}", justify="right")
    ratios: dict[str, dict[str, float]] = {kind: {} for kind in result}
    for name in candidates:
        row = [name, *("{median_ms:.1f} ({low_ms:.1f}-{high_ms:.1f})".format(**f[name]) for f in result.values())]
        for kind, found in result.items():
            ratios[kind][name] = found["PyG HGTConv"]["median_ms"] / found[name]["median_ms"]
            row.append(f"{ratios[kind][name]:.1f}")
        table.add_row(*row)
    Console().print(table)
    if arguments.json:
        data = {"threads": arguments.threads, "rounds": rounds, "edges": edges, "times": result, "pyg_over": ratios}
        write_atomically(arguments.json, json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
