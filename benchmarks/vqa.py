"""Questions about pictures: every fusion method, parts of the input alone, and the graph with other edges.

Per seed and with the same settings are trained

* each fusion method, of a width that brings it to as many parameters as ``graph`` has;
* ``graph`` on the question alone, and on everything but the question: the floors beside the most frequent answer;
* where what training says of a picture, or of like ones, are nodes: ``graph`` without them;
* ``graph`` with some edges left out or dealt out anew (:mod:`hetgraph.tasks.ablations`).

    python -m benchmarks.vqa NAME --data FOLDER --json FILE [--wordnet] [--seeds 5] [--methods graph concat ...]

An interrupted run goes on with what FILE holds. With ``--wordnet`` WUPS is scored, too.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hetgraph.compare import paired, width_for
from hetgraph.comparison_runs import make_model, parameters
from hetgraph.fusion import METHODS
from hetgraph.tasks import datasets, vqa
from hetgraph.tasks.ablations import EDGES, ablate
from hetgraph.tasks.datasets import Dataset
from hetgraph.tasks.running import TaskSettings, suggested, train

from .knowledge_data import only
from .runs import Key, difference, keep, spread

WORDS = ("question", "token", "word", "look", "place")
"""Node types that a question is made of; of SHAPES also what it says where to look."""
QUESTION, PICTURE = "graph, question alone", "graph, picture alone"
LESS = {"graph, no facts": ("fact",), "graph, no recall": ("attribute", "neighbour")}
CONDITIONS = (*METHODS, QUESTION, PICTURE, *LESS, *(f"graph, {kind}" for kind in EDGES[1:]))


def conditioned(data: Dataset, condition: str, seed: int) -> tuple[Dataset, str]:
    """The data as a condition has it, and the fusion method."""
    method, _, what = condition.partition(", ")
    words = [name for name in data.schema.nodes if name in WORDS]
    if condition == QUESTION:
        return only(data, *words), method
    if condition == PICTURE:
        return only(data, *(name for name in data.schema.nodes if name not in words)), method
    if condition in LESS:
        return only(data, *(name for name in data.schema.nodes if name not in LESS[condition])), method
    return (ablate(data, what, seed=seed) if what else data), method


def outcome(
    data: Dataset, condition: str, seed: int, settings: TaskSettings, taxonomy: vqa.Taxonomy | None
) -> dict[str, Any]:
    """Train under one condition, and score the validation and the test part."""
    own, method = conditioned(data, condition, seed)
    s = replace(settings, method=method)
    if method != "graph":
        budget = parameters(make_model(own, "graph", s.width, s.layers, s.heads, norm=s.norm))
        s = replace(s, width=width_for(own, method, budget, s.layers, s.heads))
    model = train(own, s, seed=seed, progress=False)
    out: dict[str, Any] = {"width": s.width, "parameters": parameters(model)}
    for part in ("valid", "test"):
        samples = getattr(own, part)
        if samples:
            out[part] = vqa.score(vqa.predict(model, own, samples), taxonomy)
    return out


def majority(data: Dataset) -> float:
    """Test accuracy of the most frequent training answer."""
    answer = Counter(sample.target for sample in data.train).most_common(1)[0][0]
    return sum(sample.target == answer for sample in data.test) / len(data.test)


def scores(result: Mapping[str, Any], condition: str, metric: str = "accuracy", part: str = "test") -> dict[str, float]:
    """Seed -> score."""
    return {str(run["seed"]): run[part][metric] for run in result["runs"] if run["condition"] == condition}


def table(result: Mapping[str, Any]) -> Table:
    """A row per condition, the best fusion method first; the difference of ``graph`` to each is paired by seed."""
    shown = Table(title=f"{result['data']}: test, {len({run['seed'] for run in result['runs']})} seeds")
    found = {name: scores(result, name) for name in CONDITIONS if scores(result, name)}
    metrics = list(result["runs"][0]["test"])
    for column in ("condition", *metrics, "graph minus it"):
        shown.add_column(column, justify="left" if column == "condition" else "right")
    mean = {name: sum(own.values()) / len(own) for name, own in found.items()}
    order = sorted(found, key=lambda name: (name not in METHODS, -mean[name] if name in METHODS else 0))
    for name in order:
        own = [spread(list(scores(result, name, metric).values())) for metric in metrics]
        gap = paired(found["graph"], found[name]) if name != "graph" and "graph" in found else None
        shown.add_row(name, *own, "" if gap is None else difference(gap["mean"], gap["standard_error"]))
    shown.add_row("most frequent answer", f"{result['majority']:.3f}")
    return shown


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=vqa.DATA)
    parser.add_argument("--data", type=Path, help="folder of the data set; default: its folder in $HETGRAPH_DATA")
    parser.add_argument("--json", type=Path, required=True, help="what was measured; an interrupted run goes on")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=CONDITIONS, help="conditions to train; default: all")
    parser.add_argument("--epochs", type=int, help="other than what suits the data set")
    parser.add_argument("--cache", type=Path, help="keeps what encoders compute")
    parser.add_argument("--wordnet", action="store_true", help="score WUPS with the installed WordNet")
    arguments = parser.parse_args(given)
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)

    @lru_cache(maxsize=1)
    def read(seed: int) -> Dataset:
        return datasets.load(arguments.name, arguments.data, seed=seed, cache=arguments.cache)

    first = read(0)
    settings = suggested(arguments.name, **({} if arguments.epochs is None else {"epochs": arguments.epochs}))
    taxonomy = vqa.Taxonomy.from_wordnet() if arguments.wordnet else None
    head = {
        "data": arguments.name,
        "notes": first.notes,
        "settings": asdict(settings),
        "majority": majority(first),
        "questions": {part: len(getattr(first, part) or ()) for part in ("train", "valid", "test")},
        "wups": taxonomy is not None,
    }

    def run(key: Key) -> dict[str, Any]:
        return outcome(read(key["seed"]), key["condition"], key["seed"], settings, taxonomy)

    console = Console(highlight=False)
    every = [c for c in CONDITIONS if set(LESS.get(c, ())) <= set(first.schema.nodes)]
    keys = [{"condition": c, "seed": seed} for seed in range(arguments.seeds) for c in arguments.methods or every]
    console.print(table(keep(arguments.json, head, keys, run, lambda title: console.print(title, markup=False))))


if __name__ == "__main__":
    main()
