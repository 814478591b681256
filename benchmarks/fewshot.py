"""Little data: does learning to learn beat plain fine-tuning, and what do labels cost after pretraining without them?

``speakers``: av_digits of speakers that training has not heard, ten ways. ``digits``: nor the digits, four ways.
Learners of all regimes have the same fusion model, gradient steps, samples per step, invented voices and test episodes;
rates and steps of adaptation are chosen on the validation speaker, as many candidates for each.

``pretraining``: a fusion model is pretrained on the training part of av_digits without its labels, then has 1, 5 or 20
labels of every digit. Beside it the same model with random weights.

    python -m benchmarks.fewshot --name speakers --data FOLDER --json FILE [--methods graph sum] [--plot PNG]

``--edges`` takes the graph's edges away or deals them out anew. An interrupted run goes on with what FILE holds.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hetgraph import Fusion
from hetgraph.compare import paired
from hetgraph.errors import HetgraphError
from hetgraph.fusion import METHODS
from hetgraph.objectives import Classification
from hetgraph.tasks.ablations import EDGES, ablate
from hetgraph.tasks.datasets import Dataset
from hetgraph.tasks.datasets import load as load_data
from hetgraph.tasks.fewshot import (
    OBJECTIVES,
    FewShot,
    MetaSettings,
    PretrainingSettings,
    invent_voices,
    load,
    pretrain,
    train,
)
from hetgraph.tasks.fewshot.adapting import accuracy, candidates, choose, episodes_of, scores
from hetgraph.tasks.fewshot.probing import k_shot
from hetgraph.tasks.fewshot.training import means_of

from .fewshot_plot import draw
from .runs import Key, difference, keep, spread

NAMES = ("speakers", "digits", "pretraining")
SHOTS = (1, 5, 20)
APPROACHES: dict[str, tuple[str, str]] = {
    "from scratch": ("untrained", "all"),
    "no adaptation": ("conventional", "none"),
    "class means": ("conventional", "prototypes"),
    "fine-tuned head": ("conventional", "head"),
    "fine-tuned": ("conventional", "all"),
    "class means, fine-tuned": ("conventional", "all from prototypes"),
    "prior and class means, fine-tuned": ("conventional", "all from prototypes"),
    "prototypes": ("prototypes", "prototypes"),
    "prototypes, fine-tuned": ("prototypes", "all from prototypes"),
    "prior and prototypes": ("prior_prototypes", "prototypes"),
    "prior and prototypes, fine-tuned": ("prior_prototypes", "all from prototypes"),
    "ANIL": ("anil", "head"),
    "ANIL, fine-tuned": ("anil", "all"),
    "MAML": ("maml", "all"),
}
"""Approach -> how the learner is trained, and how it uses the support."""
META = tuple(name for name, (regime, _) in APPROACHES.items() if regime not in ("conventional", "untrained"))
PLAIN = tuple(
    name for name, way in APPROACHES.items() if way[0] == "conventional" and way[1] not in ("none", "prototypes")
)
PRETRAINED: dict[str, tuple[str, ...]] = {"none": (), **{name: (name,) for name in OBJECTIVES}, "all": OBJECTIVES}
SETTINGS = MetaSettings()
PRETRAINING = PretrainingSettings()


def learn(data: FewShot, settings: MetaSettings) -> dict[str, Any]:
    """Train one learner, and score every approach that uses it on the test episodes.

    Returns:
        ``scores``: approach -> shots -> test accuracy; ``valid`` likewise; ``chosen``; and ``seconds``.
    """
    started = time.perf_counter()
    learner = train(data, settings, vary=invent_voices, progress=False)
    valid, test = (episodes_of(data, part, seed=settings.seed) for part in ("valid", "test"))
    out: dict[str, Any] = {"scores": {}, "valid": {}, "chosen": {}}
    for name, (regime, kind) in APPROACHES.items():
        prior = name.startswith("prior")
        if regime != settings.regime or ((kind == "none" or prior) and not data.same_classes):
            continue
        own = learner
        if prior and learner.prior is None:
            # the same prior without having learnt to use it
            own = copy.deepcopy(learner)
            own.set_prior(means_of(learner, data.samples))
        out["scores"][name], out["valid"][name], out["chosen"][name] = {}, {}, {}
        for shots in SHOTS:
            how, at_best = choose(own, valid, shots, candidates(kind, settings))
            found = [accuracy(scores(own, one.fewer(shots), how), one) for one in test]
            out["scores"][name][str(shots)] = sum(found) / len(found)
            out["valid"][name][str(shots)] = at_best
            out["chosen"][name][str(shots)] = [how.optimizer, how.lr, how.steps]
    return out | {"seconds": time.perf_counter() - started}


def teach(
    data: Dataset, settings: MetaSettings, objectives: Sequence[str], pretraining: PretrainingSettings
) -> dict[str, Any]:
    """Pretrain on the training part without labels, then learn from few of them."""
    started = time.perf_counter()
    assert isinstance(data.objective, Classification)
    assert data.valid is not None
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        fusion = Fusion(
            data.schema, settings.width, layers=settings.layers, heads=settings.heads, method=settings.method
        )
        chosen = replace(pretraining, seed=settings.seed)
        history: list[dict[str, float]] = []
        if objectives:
            history = pretrain(fusion, data.train, objectives, settings=chosen, progress=False)
        else:
            from hetgraph import GraphBuilder

            builder = GraphBuilder(data.schema)
            fusion.standardize(builder(data.train[i : i + 256]) for i in range(0, len(data.train), 256))
        parts = {"train": data.train, "valid": data.valid, "test": data.test}
        found = k_shot(fusion, data.objective, parts, SHOTS, seed=settings.seed)
    return {"scores": found, "loss": history[-1] if history else {}, "seconds": time.perf_counter() - started}


def with_edges(data: FewShot, kind: str, seed: int) -> FewShot:
    """The domains with other edges: :func:`hetgraph.tasks.ablations.ablate`; the samples bring none of their own."""
    shell = Dataset(data.name, data.schema, [], None, [], Classification(data.train_classes))
    return replace(data, schema=ablate(shell, kind, seed=seed).schema)


def measure(
    name: str,
    folder: Path | None,
    path: Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    edges: Sequence[str] = ("all edges",),
    watch: Callable[[str], object] = lambda title: None,
    settings: MetaSettings = SETTINGS,
    pretraining: PretrainingSettings = PRETRAINING,
    training: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Run whatever the file does not hold yet; it is written after every run.

    Raises:
        HetgraphError: the file is of other settings, or the data are not there.
    """
    head = {"data": name, "shots": list(SHOTS), "settings": asdict(settings)}
    ways: Sequence[str] = list(dict.fromkeys(regime for regime, _ in APPROACHES.values()))
    if name == "digits":
        ways = [way for way in ways if way != "prior_prototypes"]  # there is no prior of new classes
    if name == "pretraining":
        head["pretraining"] = asdict(pretraining)
        ways = list(PRETRAINED)
    if unknown := [way for way in training or () if way not in ways]:
        raise HetgraphError(f"no training {unknown[0]!r}; known: {', '.join(ways)}")

    @lru_cache(maxsize=1)
    def read(seed: int) -> Any:
        return load_data("av_digits", folder, seed=seed) if name == "pretraining" else load(name, folder, seed=seed)

    def run(key: Key) -> Mapping[str, Any]:
        seed = key["seed"]
        own = replace(settings, method=key["method"], seed=seed)
        if name == "pretraining":
            data = ablate(read(seed), key["edges"], seed=seed)
            return teach(data, own, PRETRAINED[key["training"]], pretraining)
        return learn(with_edges(read(seed), key["edges"], seed), replace(own, regime=key["training"]))

    keys = [
        {"method": method, "edges": kind, "training": way, "seed": seed}
        for seed in seeds
        for method in methods
        for kind in (edges if method == "graph" else ("all edges",))
        for way in training or ways
    ]
    return keep(path, head, keys, run, watch)


def label(run: Mapping[str, Any], approach: str) -> str:
    """What a line of the table is called, without its method."""
    named = approach if approach in APPROACHES else f"{run['training']}: {approach}"
    return named if run["edges"] == "all edges" else f"{named}, {run['edges']}"


def values(result: Mapping[str, Any], method: str, line: str, shots: int) -> dict[str, float]:
    """Seed -> test accuracy."""
    return {
        str(run["seed"]): found[str(shots)]
        for run in result["runs"]
        if run["method"] == method
        for approach, found in run["scores"].items()
        if label(run, approach) == line
    }


def lines(result: Mapping[str, Any], method: str) -> list[str]:
    """The lines that a method has, in the order they were run."""
    return list(dict.fromkeys(label(r, a) for r in result["runs"] if r["method"] == method for a in r["scores"]))


def gains(result: Mapping[str, Any], method: str, shots: int = 5) -> list[tuple[str, str, dict[str, Any]]]:
    """Meta-learnt, plain, and the paired gain (:func:`hetgraph.compare.paired`) for what was run of one method."""
    out = []
    for meta in META:
        for plain in PLAIN:
            found = paired(values(result, method, meta, shots), values(result, method, plain, shots))
            if found["n"]:
                out.append((meta, plain, found))
    return out


def table(result: Mapping[str, Any]) -> Table:
    """Test accuracy by shots, a row per method and approach."""
    shown = Table(title=f"{result['data']}: test accuracy")
    shown.add_column("method")
    shown.add_column("approach")
    shown.add_column("seeds", justify="right")
    for shots in result["shots"]:
        shown.add_column(f"{shots} shot{'s' if shots > 1 else ''}", justify="right")
    for method in dict.fromkeys(run["method"] for run in result["runs"]):
        for line in lines(result, method):
            found = [list(values(result, method, line, shots).values()) for shots in result["shots"]]
            shown.add_row(method, line, str(len(found[0])), *[spread(one) for one in found])
    return shown


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=NAMES, required=True)
    parser.add_argument("--data", type=Path, help="folder of av_digits; default: its folder in $HETGRAPH_DATA")
    parser.add_argument(
        "--json", type=Path, required=True, help="what was measured; an interrupted run goes on with it"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="of fusion; default: all")
    parser.add_argument("--training", nargs="+", help="regimes, or objectives of pretraining; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--edges", nargs="+", default=["all edges"], choices=EDGES, help="of the method graph")
    parser.add_argument("--plot", type=Path, help="draw accuracy against shots into this .png")
    arguments = parser.parse_args(given)
    unknown = [name for name in arguments.methods if name not in METHODS]
    if unknown:
        raise HetgraphError(f"unknown fusion method {unknown[0]!r}; known: {', '.join(METHODS)}")
    # on models this small one thread is fastest, and repeats exactly
    torch.set_num_threads(1)
    console = Console(highlight=False)
    result = measure(
        arguments.name,
        arguments.data,
        arguments.json,
        arguments.methods,
        range(arguments.seeds),
        arguments.edges,
        watch=lambda title: console.print(title, markup=False),
        training=arguments.training,
    )
    console.print(table(result))
    for method in arguments.methods:
        for meta, plain, found in gains(result, method):
            told = f"{difference(found['mean'], found['standard_error'])}, {found['n']} seeds"
            console.print(f"{method}, 5 shots: {meta} against {plain} {told}", markup=False)
    if arguments.plot:
        draw(result, arguments.plot)


if __name__ == "__main__":
    main()
