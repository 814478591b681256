"""What is made of one modality from another: method x seed, with floors, ceilings and baselines.

* digits: a spoken digit -> its picture; judged by a classifier trained on real pictures, by diversity and by the
  Frechet distance. Floor: the mean picture of the digit that is heard; ceiling: a training picture of it.
* tuxpaint, tuxpaint_back: a caption -> features of its picture, and back; judged by retrieval with what is made among
  the test part's own, one item per group. Baseline: ridge regression; floor: a random order.
* imputation: what is made stands in for an absent modality; the score of a classifier of all modalities that hears
  it, beside that with nothing, with the training mean and with the modality itself.

    python -m benchmarks.generation --name digits --data FOLDER --json FILE [--methods graph concat] [--seeds 5]
    python -m benchmarks.generation --name digits --data FOLDER --json OTHER --edges

With --edges, into a file of its own, the method graph with all edges between what is heard, none, and shuffled ones.
An interrupted run goes on with what FILE holds. The settings are the same for all methods.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hetgraph.comparison_runs import parameters
from hetgraph.fusion import METHODS
from hetgraph.tasks import generation
from hetgraph.tasks.ablations import ablate
from hetgraph.tasks.generation import imputation, scoring
from hetgraph.tasks.generation.settings import GenerationSettings
from hetgraph.tasks.running import suggested, train

from .runs import Key, keep, spread

NAMES = (*generation.NAMES, "imputation", *imputation.CASES)
EDGES = ("all edges", "shuffled edges", "no edges")
COLUMNS = {
    "digits": ("accuracy", "accuracy_heard", "diversity", "diversity_features", "frechet", "precision", "recall"),
    "tuxpaint": ("recall@1", "recall@5", "recall@10", "median_rank", "cosine"),
}
COLUMNS["tuxpaint_back"] = COLUMNS["tuxpaint"]
SHORT = {"accuracy_heard": "heard", "diversity_features": "div. feat.", "median_rank": "rank", "diversity": "div."}
Settings = Callable[[str], GenerationSettings]


def outcome(source: generation.Translation, settings: GenerationSettings, seed: int, **also: Any) -> dict[str, Any]:
    """Train and score once; ``also`` goes into the outcome."""
    started = time.perf_counter()
    model = generation.train(source, settings, seed=seed, progress=False)
    seconds = time.perf_counter() - started
    out: dict[str, Any] = {"test": generation.evaluate(model, source, seed=seed), "seconds": round(seconds, 1)}
    out["valid"] = generation.evaluate(model, source, "valid", seed=seed)
    out["parameters"] = parameters(model.predictor) + sum(p.numel() for p in model.generator.parameters())
    if source.exchange:
        out["beside"] = scoring.bounds(model, source, seed=seed)
    else:
        out["beside"] = {"ridge regression": scoring.regression(source), "random order": scoring.chances(source)}
    return {**out, **also}


def translate(name: str, folder: Path | None, cache: Path | None, settings: Settings, key: Key) -> dict[str, Any]:
    """A run of a translation; the key has a method and a seed, and maybe edges."""
    source = _source(name, folder, cache, key["seed"] if name == "digits" else 0)
    if "edges" in key:
        source = replace(source, data=ablate(source.data, key["edges"], seed=key["seed"]))
    return outcome(source, settings(key["method"]), key["seed"])


def impute(name: str, folder: Path | None, cache: Path | None, epochs: int | None, key: Key) -> dict[str, Any]:
    """A run of a case of imputation: classifier and translator are of the same method."""
    method, seed = key["method"], key["seed"]
    started = time.perf_counter()
    data = _case(name, folder, cache, seed)
    changes = {} if epochs is None else {"epochs": epochs}
    classifier = train(data, suggested(data.name, method=method, **changes), seed=seed, progress=False)
    source = imputation.absent_from(name, data)
    settings = imputation.settings_of(name, method)
    if epochs is not None:
        settings = replace(settings, training=replace(settings.training, epochs=epochs), steps=4 * epochs)
    model = generation.train(source, settings, seed=seed, progress=False)
    found = {part: imputation.measure(classifier, model, source, getattr(data, part)) for part in ("valid", "test")}
    return {**found, "metric": data.objective.main, "seconds": round(time.perf_counter() - started, 1)}


@lru_cache(maxsize=1)
def _source(name: str, folder: Path | None, cache: Path | None, seed: int) -> generation.Translation:
    return generation.load(name, folder, seed=seed, cache=cache)


@lru_cache(maxsize=1)
def _case(name: str, folder: Path | None, cache: Path | None, seed: int) -> Any:
    return imputation.case(name, folder, seed=seed, cache=cache)


def table(name: str, result: Mapping[str, Any]) -> Table:
    """A row per method (or per kind of edges): mean and spread over the seeds; below, what it is held against."""
    runs = result["runs"]
    by = "edges" if "edges" in runs[0] else "method"
    rows = list(dict.fromkeys(run[by] for run in runs))
    shown = Table(title=f"{name}: test part, mean ± std of {len({run['seed'] for run in runs})} seeds")
    shown.add_column(by)
    columns = imputation.CONDITIONS if name in imputation.CASES else COLUMNS[name]
    for column in columns:
        shown.add_column(SHORT.get(column, column), justify="right")
    for row in rows:
        own = [run for run in runs if run[by] == row]
        cells = [[_cell(name, run, column) for run in own] for column in columns]
        shown.add_row(row, *(_short(values) for values in cells))
    for beside in runs[0].get("beside", {}):
        shown.add_section()
        found = [run["beside"][beside] for run in runs]
        cells = [[scores[column] for scores in found if column in scores] for column in columns]
        shown.add_row(beside, *(f"{statistics.fmean(values):.3f}" if values else "" for values in cells))
    return shown


def _cell(name: str, run: Mapping[str, Any], column: str) -> float:
    return run["test"][column][run["metric"]] if name in imputation.CASES else run["test"][column]


def _short(values: Sequence[float]) -> str:
    """:func:`spread`; the deviation below the mean, so that seven of them fit side by side."""
    return spread(values, 2 if statistics.fmean(values) >= 10 else 3).replace(" ± ", "\n± ")


def measure(
    name: str,
    path: Path,
    folder: Path | None = None,
    *,
    methods: Sequence[str] = tuple(METHODS),
    seeds: int = 5,
    edges: bool = False,
    cache: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    watch: Callable[[str], object] = lambda title: None,
) -> dict[str, Any]:
    """Run whatever the file does not hold yet.

    Raises:
        HetgraphError: the file is of other settings, or as the data set's reader.
    """
    changes = dict(changes or {})
    run: Callable[[Key], dict[str, Any]]
    if name in imputation.CASES:
        epochs = changes.get("epochs")
        run = partial(impute, name, folder, cache, epochs)
        head = {"name": name, "epochs": epochs, "settings": asdict(imputation.settings_of(name))}
    else:
        settings = lambda method: generation.suggested(name, method=method, **changes)  # noqa: E731
        run = partial(translate, name, folder, cache, settings)
        head = {"name": name, "settings": asdict(settings("graph")), **({"edges": True} if edges else {})}
    kinds = [{"edges": kind} for kind in EDGES] if edges else [{}]
    chosen = ["graph"] if edges else methods
    keys = [{"method": method, **kind, "seed": seed} for seed in range(seeds) for method in chosen for kind in kinds]
    return keep(path, head, keys, run, watch)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=NAMES, required=True, help="imputation: all of its cases, a file each")
    parser.add_argument("--data", type=Path, help="folder of the data set; default: its folder in $HETGRAPH_DATA")
    parser.add_argument(
        "--json", type=Path, required=True, help="what was measured; an interrupted run goes on with it"
    )
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--edges", action="store_true", help="the method graph with other edges, instead of methods")
    parser.add_argument("--epochs", type=int, help="other than what suits")
    parser.add_argument("--steps", type=int, help="of the generator, other than what suits")
    parser.add_argument("--cache", type=Path, help="keeps what encoders compute")
    arguments = parser.parse_args(given)
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    console = Console(highlight=False)
    given_changes = {"epochs": arguments.epochs, "steps": arguments.steps}
    for name in imputation.CASES if arguments.name == "imputation" else (arguments.name,):
        several = arguments.name == "imputation"
        path = arguments.json.with_stem(f"{arguments.json.stem}_{name}") if several else arguments.json
        result = measure(
            name,
            path,
            None if several else arguments.data,
            methods=arguments.methods,
            seeds=arguments.seeds,
            edges=arguments.edges and name in generation.NAMES,
            cache=arguments.cache,
            changes={key: value for key, value in given_changes.items() if value is not None},
            watch=lambda title: console.print(title, markup=False),
        )
        console.print(table(name, result))


if __name__ == "__main__":
    main()
