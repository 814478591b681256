"""Which fusion method finds best across modalities, and what do the edges of the graph give?

All methods have the same closed-form maps, settings, epochs and seeds. Beside them stand floors: chance (the mean over
random scores), plain CCA for each pair of modalities, and the closed-form maps alone. ``graph`` is also trained with
edges left out or dealt out anew, and on tuxpaint with a re-ranker on top of it.

    python -m benchmarks.retrieval --data FOLDER --name tuxpaint --json FILE [--methods graph concat] [--seeds 5]

An interrupted run goes on with what FILE holds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hetgraph.fusion import METHODS
from hetgraph.graph import Graph
from hetgraph.tasks import retrieval
from hetgraph.tasks.ablations import EDGES, ablate
from hetgraph.tasks.retrieval import RetrievalData, RetrievalSettings, learning, linear, rerank
from hetgraph.tasks.retrieval.picture import draw

from .runs import Key, keep, spread

FLOORS = ("chance", "cca", retrieval.LINEAR)
ALL = EDGES[0]
SHOWN = {
    "wikipedia": ("map", "map image > text", "map text > image"),
    "tuxpaint": (
        *("map", "recall@10 picture > english", "recall@10 speech > english"),
        "recall@10 picture + speech > english",
    ),
}
RERANKED = (("picture",), ("english",))
CCA_RIDGE = 3.0
"""Of plain CCA; better than 0.1 on the validation part of Tux Paint (picture to caption 0.64 against 0.58)."""


def chance(data: RetrievalData, draws: int = 20) -> dict[str, float]:
    """Scores of random rankings, the mean over draws."""
    draw_from = torch.Generator().manual_seed(0)
    asked = data.asked(data.test)
    found: list[dict[str, float]] = []
    for _ in range(draws):
        one: dict[str, float] = {}
        for a, b in linear.ordered(list(data.views)):
            asking, offered = ([s for s in asked if data.has(s, view)] for view in (a, b))
            right = retrieval._right(data, asking, offered)
            values = retrieval.score(torch.rand(right.shape, generator=draw_from), right)
            one |= {f"{metric} {a} > {b}": value for metric, value in values.items()}
        found.append(one)
    return _with_mean(data, {name: statistics.fmean(one[name] for one in found) for name in found[0]})


def cca(data: RetrievalData, settings: RetrievalSettings) -> dict[str, float]:
    """Plain regularised CCA of the pooled nodes, fitted to each pair of modalities by itself."""
    model = learning.make(data, retrieval.suggested(data.name, method=retrieval.LINEAR))
    graphs = {part: _graph(model, samples) for part, samples in (("train", data.train), ("test", data.test))}
    rows = {view: {part: model.scaled(graph, view) for part, graph in graphs.items()} for view in model.mapped}
    first = {str(s.id) for s in data.asked(data.test)}
    out: dict[str, float] = {}
    for a, b in linear.ordered(model.mapped):
        (xa, ta), (xb, tb) = rows[a]["train"], rows[b]["train"]
        both = ta & tb
        wa, wb = linear.cca(xa[both], xb[both], min(settings.dims, int(both.sum()) - 1), CCA_RIDGE)
        chosen = []
        for view in (a, b):
            _, there = rows[view]["test"]
            chosen.append([i for i, s in enumerate(data.test) if bool(there[i]) and str(s.id) in first])
        sides = [rows[view]["test"][0][at] @ w for view, at, w in zip((a, b), chosen, (wa, wb), strict=True)]
        scores = torch.nn.functional.normalize(sides[0], dim=1) @ torch.nn.functional.normalize(sides[1], dim=1).T
        right = retrieval._right(data, *([data.test[i] for i in at] for at in chosen))
        out |= {f"{metric} {a} > {b}": value for metric, value in retrieval.score(scores, right).items()}
    return _with_mean(data, out)


def _graph(model: retrieval.RetrievalModel, samples: Sequence[Any]) -> Graph:
    from hetgraph import GraphBuilder

    return GraphBuilder(model.schema)(samples)


def _with_mean(data: RetrievalData, found: Mapping[str, float]) -> dict[str, float]:
    """With the mean average precision over the pairs that have enough queries, as ``evaluate`` gives it."""
    pairs = [f"{a} > {b}" for a, b in linear.ordered(list(data.views))]
    values = [found[f"map {p}"] for p in pairs if found.get(f"queries {p}", 0) >= retrieval.FEWEST]
    return {"map": statistics.fmean(values), **found}


def outcome(data: RetrievalData, key: Key) -> dict[str, Any]:
    """One run: train, and score the test part."""
    started = time.perf_counter()
    name, seed = key["method"], key["seed"]
    settings = retrieval.suggested(data.name, **({} if name in ("chance", "cca") else {"method": name}))
    if name == "chance":
        return {"scores": chance(data), "seconds": time.perf_counter() - started}
    if name == "cca":
        return {"scores": cca(data, settings), "seconds": time.perf_counter() - started}
    used = ablate(data, key["edges"], seed=seed)
    assert isinstance(used, RetrievalData)
    model = retrieval.train(used, settings, seed=seed, progress=False)
    found: dict[str, Any] = {
        "scores": retrieval.evaluate(model, used),
        "history": model.history,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": time.perf_counter() - started,
    }
    if key["again"]:
        second = rerank.train_reranker(model, used, *RERANKED, settings, seed=seed, progress=False)
        found["rerank"] = {
            "weight": second.model.weight,
            "valid": {"first": second.first, "both": second.both},
            "test": rerank.evaluate_reranked(second.model, model, used, *RERANKED),
        }
    return found


def keys_of(methods: Sequence[str], seeds: int, again: bool) -> list[dict[str, Any]]:
    """The floors once; each method with each seed; ``graph`` with other edges."""
    plain = {"edges": ALL, "again": False}
    keys = [{"method": name, "seed": 0, **plain} for name in FLOORS]
    for seed in range(seeds):
        keys += [{"method": m, "seed": seed, "edges": ALL, "again": again and m == "graph"} for m in methods]
        if "graph" in methods:
            keys += [{"method": "graph", "seed": seed, "edges": e, "again": False} for e in EDGES if e != ALL]
    return keys


def rows(result: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Label of the table -> its runs."""
    out: dict[str, list[dict[str, Any]]] = {}
    for run in result["runs"]:
        label = run["method"] if run["edges"] == ALL else f"{run['method']}, {run['edges']}"
        out.setdefault(label, []).append(run)
    return out


def table(result: Mapping[str, Any]) -> Table:
    """A row per method, and one per ablation of ``graph``."""
    shown = Table(title=f"{result['data']}: test part, mean ± std over seeds")
    shown.add_column("method")
    for name in SHOWN[result["data"]]:
        shown.add_column(name.replace("recall", "R"), justify="right", max_width=20)
    for label, runs in rows(result).items():
        cells = [[run["scores"][name] for run in runs if name in run["scores"]] for name in SHOWN[result["data"]]]
        shown.add_row(label, *(spread(values) if values else "" for values in cells))
    return shown


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=retrieval.DATA, required=True)
    parser.add_argument("--data", type=Path, help="folder of the data set; default: its folder in $HETGRAPH_DATA")
    parser.add_argument(
        "--json", type=Path, required=True, help="what was measured; an interrupted run goes on with it"
    )
    parser.add_argument("--methods", nargs="*", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="keeps what encoders compute")
    parser.add_argument("--plot", type=Path, help="draw recall@10 of graph for all pairs into this .png")
    arguments = parser.parse_args(given)
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    data = retrieval.load(arguments.name, arguments.data, cache=arguments.cache)
    console = Console(highlight=False, width=100)
    head = {"data": data.name, "notes": data.notes, "settings": asdict(retrieval.suggested(data.name))}
    result = keep(
        arguments.json,
        head,
        keys_of(arguments.methods, arguments.seeds, arguments.name == "tuxpaint"),
        lambda key: outcome(data, key),
        lambda title: console.print(title, markup=False),
    )
    console.print(table(result))
    found = rows(result).get("graph")
    for run in found or []:
        if "rerank" in run:
            valid, test = run["rerank"]["valid"], run["rerank"]["test"]
            pair = " > ".join(" + ".join(side) for side in RERANKED)
            console.print(
                f"seed {run['seed']}, {pair} ranked again (weight {run['rerank']['weight']}): map on the validation "
                f"part {valid['first']['map']:.3f} -> {valid['both']['map']:.3f}, on the test part "
                f"{run['scores'][f'map {pair}']:.3f} -> {test['map']:.3f}",
                markup=False,
            )
    if arguments.plot and found:
        means = {name: mean for name, (mean, _) in retrieval.summary([run["scores"] for run in found]).items()}
        draw(means, arguments.plot, title=f"{data.name}, graph: recall@10, {len(found)} seeds")


if __name__ == "__main__":
    main()
