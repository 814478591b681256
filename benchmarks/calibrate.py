"""Fit the cost model behind ``backend="auto"`` and say how good its choices are.

Both backends run forward and backward on a grid of batches, node counts, edge types and densities, in turns, on
this machine. The coefficients are a non-negative least squares fit to relative errors on one half of the
grid; how much slower than the better backend the choice is, is told for the other half. Where it is more than 1.15
times, both are measured once more.

    python -m benchmarks.calibrate --json FILE [--quick]

The printed coefficients belong into ``hetgraph/nn/choice.py``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hetgraph import EdgeType, Graph, GraphBuilder, NodeType, Sample, Schema, rules
from hetgraph.files import write_atomically
from hetgraph.nn import HGTLayer
from hetgraph.nn.choice import dense_terms, sparse_terms

from .standard import alternate, total

SAMPLES, NODES, EDGE_TYPES = (1, 8, 32, 64), (8, 32, 128, 512), (1, 4, 16)
DENSITIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SIZES = ((64, 4), (128, 4))
MOST_PAIRS = 12_000_000
AGAIN = 1.15
BACKENDS = {"dense": dense_terms, "sparse": sparse_terms}


def batch(samples: int, nodes: int, edge_types: int, density: float, width: int, seed: int) -> Graph:
    """Two node types of ragged counts up to ``nodes``, with random edges of a share ``density`` of all pairs."""
    generator = torch.Generator().manual_seed(seed)
    ends = [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    edges = [
        EdgeType(*(s, f"r{i}", d), rule=rules.given) for i, (s, d) in zip(range(edge_types), itertools.cycle(ends))
    ]
    schema = Schema([NodeType("a", width), NodeType("b", width)], edges)
    made = []
    for _ in range(samples):
        count = {
            name: int(torch.randint(max(nodes * 3 // 4, 1), nodes + 1, (1,), generator=generator)) for name in "ab"
        }
        given = {}
        for edge in edges:
            cells = count[edge.src] * count[edge.dst]
            chosen = torch.randint(cells, (max(round(cells * density), 1),), generator=generator)
            given[edge.key] = torch.stack([chosen // count[edge.dst], chosen % count[edge.dst]])
        made.append(
            Sample(nodes={n: torch.randn(c, width, generator=generator) for n, c in count.items()}, edges=given)
        )
    return GraphBuilder(schema)(made)


def milliseconds(graph: Graph, width: int, heads: int, rounds: int) -> dict[str, float]:
    """Median time of a forward and backward pass of one layer, for both backends in turns."""
    layer = HGTLayer(graph.schema, width, heads)

    def run(backend: str) -> None:
        total(layer(graph, graph.x, backend)).backward()
        layer.zero_grad()

    seconds = alternate({name: lambda name=name: run(name) for name in BACKENDS}, rounds, warmup=2)
    return {name: statistics.median(values) * 1e3 for name, values in seconds.items()}


def fit(terms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Non-negative coefficients ``[T]`` that make ``terms [S, T]`` times them relatively close to ``measured [S]``."""
    from scipy.optimize import nnls

    scale = terms.max(0).clip(1e-30)
    return nnls(terms / scale / measured[:, None], np.ones(len(measured)))[0] / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few small batches, one round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    grid = [
        point
        for point in itertools.product(SAMPLES, NODES, EDGE_TYPES, DENSITIES, SIZES)
        if point[0] * point[1] ** 2 * point[2] <= (20_000 if arguments.quick else MOST_PAIRS)
    ]
    if arguments.quick:
        grid = grid[::7]
    rows = []
    for i, (samples, nodes, edge_types, density, (width, heads)) in enumerate(track(grid, "measuring")):
        graph = batch(samples, nodes, edge_types, density, width, seed=i)
        found = milliseconds(graph, width, heads, 1 if arguments.quick else arguments.rounds)
        terms = {name: make(graph, width, heads) for name, make in BACKENDS.items()}
        rows.append(
            {"grid": (samples, nodes, edge_types, density, width, heads), "seed": i, "ms": found, "terms": terms}
        )
    cost = {}
    predicted = {}
    for name in BACKENDS:
        terms = np.array([row["terms"][name] for row in rows])
        measured = np.array([row["ms"][name] * 1e3 for row in rows])
        cost[name] = fit(terms[::2], measured[::2])
        predicted[name] = terms @ cost[name]
    chosen = np.where(predicted["sparse"] < predicted["dense"], "sparse", "dense")
    for row, choice in zip(rows, chosen, strict=True):
        if row["ms"][choice] > AGAIN * min(row["ms"].values()):
            # once more, in case something else ran on the machine
            samples, nodes, edge_types, density, width, heads = row["grid"]
            graph = batch(samples, nodes, edge_types, density, width, seed=row["seed"])
            row["first_ms"], row["ms"] = row["ms"], milliseconds(graph, width, heads, 3 * arguments.rounds)
    loss = np.array([row["ms"][c] / min(row["ms"].values()) for row, c in zip(rows, chosen, strict=True)])
    table = Table(title=f"auto against the better backend, {len(rows)} batches, {arguments.threads} threads")
    for title in ("half", "batches", "wrong", "median", "95 %", "worst"):
        table.add_column(title, justify="left" if title == "half" else "right")
    for title, part in (("fitted", slice(0, None, 2)), ("held out", slice(1, None, 2))):
        some = loss[part]
        numbers = (np.median(some), np.quantile(some, 0.95), some.max())
        table.add_row(title, str(len(some)), str(int((some > 1).sum())), *(f"{n:.2f}" for n in numbers))
    console = Console()
    console.print(table)
    for name, values in cost.items():
        console.print(f"{name.upper()}_COST = ({', '.join(f'{value:.3g}' for value in values)})", soft_wrap=True)
    worst = sorted(range(len(rows)), key=lambda i: -loss[i])[:8]
    for i in worst:
        times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in rows[i]["ms"].items())
        console.print(f"{loss[i]:.2f} at {rows[i]['grid']}: chose {chosen[i]}; {times}", soft_wrap=True)
    if arguments.json:
        data = {
            "threads": arguments.threads,
            "cost": {name: values.tolist() for name, values in cost.items()},
            "held_out": {"worst": float(loss[1::2].max()), "p95": float(np.quantile(loss[1::2], 0.95))},
            "rows": [
                {k: v for k, v in row.items() if k != "terms"} | {"chosen": str(c)}
                for row, c in zip(rows, chosen, strict=True)
            ],
        }
        write_atomically(arguments.json, json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
