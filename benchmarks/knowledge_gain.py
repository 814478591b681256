"""Does a knowledge graph help? The same model with it, without it, and with graphs that say nothing.

The entities that a sample's words and objects name, and what lies around them in the graph, become nodes. Compared,
with the same schema, parameters, settings and seeds, are samples

* none: without entities;
* graph: with them;
* relations permuted: with the same arcs, whose relations are dealt out anew;
* tails permuted: with the tails of each relation dealt out anew;
* random: with as many arcs of each relation between entities drawn at random.

The last three have nodes and edges of the same kinds and say nothing: a gain that they have too does not come from
knowledge. Permuted relations still say who is connected, which in a taxonomy is nearly everything.

    python -m benchmarks.knowledge_gain NAME --data FOLDER --json FILE [--plot FILE] [--seeds 5] [--cache FOLDER]

An interrupted run goes on with what FILE holds. NAME: see ``benchmarks.knowledge_data``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hetgraph.compare import SMALLER_IS_BETTER, paired
from hetgraph.comparison_runs import parameters
from hetgraph.kg import KnowledgeGraph, permute_relations, permute_tails, random_arcs
from hetgraph.tasks.running import TaskSettings, suggested, untrained
from hetgraph.training import evaluate, fit

from .knowledge_data import NAMES, Linked
from .knowledge_plot import draw
from .runs import Key, difference, keep, spread

Control = Callable[[KnowledgeGraph, int], KnowledgeGraph]
CONDITIONS: dict[str, Control | None] = {
    "none": None,
    "graph": lambda graph, seed: graph,
    "relations permuted": permute_relations,
    "tails permuted": permute_tails,
    "random": random_arcs,
}
"""Condition -> the graph that samples get, from the true one and the seed; None: no entities."""
ALL = "all"
"""The name of the whole test part among the kinds of its samples."""


def outcome(source: Linked, condition: str, seed: int, settings: TaskSettings) -> dict[str, Any]:
    """Train under one condition and score the test part: kind -> metrics."""
    control = CONDITIONS[condition]
    data = source.data(None if control is None else control(source.graph, seed))
    torch.manual_seed(seed)
    model = untrained(data, settings)
    training = replace(settings.training, seed=seed, standardize=data.standardize)
    history = fit(model, data.train, valid=data.valid or None, settings=training, progress=False)
    scores = {ALL: evaluate(model, data.test)}
    for kind, names in source.kinds.items():
        scores[kind] = evaluate(model, [sample for sample in data.test if sample.id in names])
    entities = [len(sample.nodes["entity"]["x"]) if "entity" in sample.nodes else 0 for sample in data.test]
    return {
        "scores": scores,
        "valid": evaluate(model, data.valid) if data.valid else None,
        "epochs": len(history.loss),
        "parameters": parameters(model),
        "entities": statistics.fmean(entities),
        "linked": statistics.fmean(count > 0 for count in entities),
    }


def measure(
    source: Callable[[int], Linked],
    seeds: Sequence[int],
    settings: TaskSettings,
    path: Path,
    conditions: Sequence[str] = tuple(CONDITIONS),
    watch: Callable[[str], object] = lambda title: None,
) -> dict[str, Any]:
    """Run whatever the file does not hold yet; it is written after every run.

    Raises:
        HetgraphError: the file is of other settings.
    """
    held = lru_cache(maxsize=1)(source)
    first = held(seeds[0])
    head = {
        "data": first.name,
        "metric": first.base.objective.main,
        "larger_is_better": first.base.objective.main not in SMALLER_IS_BETTER,
        "graph": repr(first.graph),
        "notes": first.notes,
        "settings": asdict(settings),
    }

    def run(key: Key) -> dict[str, Any]:
        return outcome(held(key["seed"]), key["condition"], key["seed"], settings)

    keys = [{"condition": condition, "seed": seed} for seed in seeds for condition in conditions]
    return keep(path, head, keys, run, watch)


def values(result: Mapping[str, Any], condition: str, kind: str = ALL) -> dict[str, float]:
    """Seed -> test score."""
    runs = [run for run in result["runs"] if run["condition"] == condition]
    return {str(run["seed"]): run["scores"][kind][result["metric"]] for run in runs}


def gain(result: Mapping[str, Any], condition: str, kind: str = ALL) -> tuple[float, float | None]:
    """Mean paired improvement over no graph, and its standard error."""
    found = paired(values(result, condition, kind), values(result, "none", kind))
    sign = 1 if result["larger_is_better"] else -1
    return sign * found["mean"], found["standard_error"]


def table(result: Mapping[str, Any]) -> Table:
    """A row per condition: mean and spread, and the gain over no graph, for all test samples and for each kind."""
    shown = Table(title=f"{result['data']}: test {result['metric']}, {result['graph']}")
    shown.add_column("condition")
    kinds = list(result["runs"][0]["scores"])
    for kind in kinds:
        shown.add_column(kind, justify="right")
        shown.add_column("gain", justify="right")
    for condition in CONDITIONS:
        if not values(result, condition):
            continue
        cells = []
        for kind in kinds:
            own = list(values(result, condition, kind).values())
            cells.append(spread(own))
            cells.append("" if condition == "none" else difference(*gain(result, condition, kind)))
        shown.add_row(condition, *cells)
    return shown


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--data", type=Path, help="folder of the data set; default: its folder in $HETGRAPH_DATA")
    parser.add_argument(
        "--json", type=Path, required=True, help="what was measured; an interrupted run goes on with it"
    )
    parser.add_argument("--plot", type=Path, help="draw the scores of every seed into this .png")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), help="default: all")
    parser.add_argument("--epochs", type=int, help="other than what suits the data set in a comparison")
    parser.add_argument("--cache", type=Path, help="keeps what encoders compute")
    arguments = parser.parse_args(given)
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    source = NAMES[arguments.name](arguments.data, arguments.cache)
    more = {} if arguments.epochs is None else {"epochs": arguments.epochs}
    own = getattr(source, "settings", {})
    settings = suggested(source.suggested, **{**own, **more})
    console = Console(highlight=False)
    seeds, path = range(arguments.seeds), arguments.json
    result = measure(
        source, seeds, settings, path, arguments.conditions, lambda title: console.print(title, markup=False)
    )
    console.print(table(result))
    if arguments.plot:
        draw(result, arguments.plot)


if __name__ == "__main__":
    main()
