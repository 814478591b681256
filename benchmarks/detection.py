"""Do regions find objects, and the region that a phrase means, better when they hear one another?

Fusion methods with equal budgets (layers, width, epochs, learning rate), and the method ``graph`` with other edges
(:mod:`hetgraph.tasks.ablations`): without any it is the same network whose regions hear nothing.

    python -m benchmarks.detection --name scenes --json FILE [--methods graph concat ...] [--seeds 5] [--edges KIND ...]

``scenes`` is scored by mAP@0.5 (pycocotools), ``grounding`` by the share of phrases whose region overlaps what is
meant by at least half. In ``scenes`` a region's class and box are read off its state alone. There is one node type
there, so concat, sum, gated, tensor, late, adversarial, attention and coattention, which differ in how they get from
nodes to Z, are one and the same region transformer in different draws. In ``grounding`` the head reads Z beside the
region's state. An interrupted run goes on with what FILE holds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hetgraph.compare import paired
from hetgraph.comparison_runs import parameters
from hetgraph.fusion import METHODS
from hetgraph.tasks import detection
from hetgraph.tasks.ablations import EDGES, ablate
from hetgraph.tasks.detection import grounding

from .runs import Key, difference, keep, spread

NAMES = ("scenes", "grounding")
MAIN = {"scenes": "map_50", "grounding": "accuracy"}
ALL = EDGES[0]
ABLATIONS = {"scenes": (ALL, "shuffled edges", "no edges"), "grounding": EDGES}
"""With one node type no edge is cross-modal: the other two kinds are all edges and none."""


def outcome(name: str, method: str, edges: str, seed: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Train one model and score the test part."""
    whole = detection.scenes(seed=seed) if name == "scenes" else grounding.phrases(seed=seed)
    data: Any = ablate(whole, edges, seed=seed)  # type: ignore[arg-type]
    task: Any = detection if name == "scenes" else grounding
    started = time.process_time()
    model = task.train(data, task.suggested(name, method=method, **changes), seed=seed, progress=False)
    seconds = time.process_time() - started
    scores = task.evaluate(model, data)
    floors = {} if name == "scenes" else {f"floor_{k}": v for k, v in grounding.floors(data.test).items()}
    return {
        "scores": scores | floors,
        "valid": task.evaluate(model, data, data.valid),
        "parameters": parameters(model),
        "seconds": round(seconds, 1),
    }


def measure(
    name: str,
    methods: Sequence[str],
    edges: Sequence[str],
    seeds: Sequence[int],
    path: Path,
    changes: Mapping[str, Any] | None = None,
    watch: Callable[[str], object] = lambda title: None,
) -> dict[str, Any]:
    """Run whatever the file does not hold yet; it is written after every run.

    Args:
        name: one of :data:`NAMES`.
        methods: of fusion, with all edges.
        edges: kinds of :func:`hetgraph.tasks.ablations.ablate` for the method ``graph``.
        seeds: of data, weights and training.
        path: of the JSON file.
        changes: of the settings.
        watch: is told what is under way.

    Raises:
        HetgraphError: the file is of other settings.
    """
    task: Any = detection if name == "scenes" else grounding
    head = {"data": name, "metric": MAIN[name], "settings": asdict(task.suggested(name, **(changes or {})))}
    conditions = [(method, ALL) for method in methods] + [("graph", kind) for kind in edges if kind != ALL]
    keys = [{"method": m, "edges": kind, "seed": seed} for seed in seeds for m, kind in conditions]

    def run(key: Key) -> dict[str, Any]:
        return outcome(name, key["method"], key["edges"], key["seed"], changes or {})

    return keep(path, head, keys, run, watch)


def values(result: Mapping[str, Any], method: str, edges: str, metric: str) -> dict[str, float]:
    """Seed -> test score."""
    runs = [run for run in result["runs"] if (run["method"], run["edges"]) == (method, edges)]
    return {str(run["seed"]): run["scores"][metric] for run in runs if metric in run["scores"]}


def table(result: Mapping[str, Any]) -> Table:
    """A row per condition: scores, and how much better ``graph`` with all edges is, paired by seed."""
    scenes = result["data"] == "scenes"
    metrics = ["map_50", "map"] if scenes else ["accuracy"]
    shown = Table(title=f"{result['data']}: test part, {len({run['seed'] for run in result['runs']})} seeds")
    shown.add_column("condition")
    for name in (*metrics, "graph better by", "seconds"):
        shown.add_column(name, justify="right")
    main = values(result, "graph", ALL, result["metric"])
    for method, kind in dict.fromkeys((run["method"], run["edges"]) for run in result["runs"]):
        cells = [spread(list(values(result, method, kind, metric).values())) for metric in metrics]
        apart = paired(main, values(result, method, kind, result["metric"])) if main else None
        alone = apart is None or not apart["n"] or (method, kind) == ("graph", ALL)
        better = "" if apart is None or alone else difference(apart["mean"], apart["standard_error"])
        own = [run for run in result["runs"] if (run["method"], run["edges"]) == (method, kind)]
        seconds = statistics.fmean(run["seconds"] for run in own)
        shown.add_row(method if kind == ALL else f"graph, {kind}", *cells, better, f"{seconds:.0f}")
    if not scenes:
        for floor in ("floor_random", "floor_best"):
            shown.add_row(floor.replace("floor_", "region: "), spread(_floor(result, floor)))
    return shown


def _floor(result: Mapping[str, Any], name: str) -> list[float]:
    """A floor of every seed."""
    return list({run["seed"]: run["scores"][name] for run in result["runs"]}.values())


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=NAMES, default="scenes")
    parser.add_argument(
        "--json", type=Path, required=True, help="what was measured; an interrupted run goes on with it"
    )
    parser.add_argument("--methods", nargs="*", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--edges", nargs="*", choices=EDGES, help="ablations of the method graph; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="other than what suits the data")
    arguments = parser.parse_args(given)
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    changes = {} if arguments.epochs is None else {"epochs": arguments.epochs}
    console = Console(highlight=False)
    result = measure(
        arguments.name,
        arguments.methods,
        ABLATIONS[arguments.name] if arguments.edges is None else arguments.edges,
        range(arguments.seeds),
        arguments.json,
        changes,
        lambda title: console.print(title, markup=False),
    )
    console.print(table(result))


if __name__ == "__main__":
    main()
