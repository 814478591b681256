"""How well do the embeddings complete a knowledge graph, and how long do they train?

For every seed a model is trained on the train part and ranks both ends of the triples of the test part (valid, where
there is no test), filtered by all parts, ties at their mean. Beside it stands the floor: entities ranked by how often
they answer the relation in train. Where there is a test part, the epoch is chosen on valid; else all epochs run.

The result is written after every seed, and seeds that are in it already (with the same setting) are not trained again.

    python -m benchmarks.link_prediction --data FOLDER --name fb15k237 --seeds 0 1 2 --json FILE [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hetgraph.errors import HetgraphError
from hetgraph.files import write_atomically
from hetgraph.kg import EmbeddingConfig, Splits, fit_embeddings, frequency_scorer, load_splits, rank_triples

from .common import cpu, versions

SETTINGS: dict[str, EmbeddingConfig] = {
    "fb15k237": EmbeddingConfig("complex", dim=128, epochs=8, batch=1024, n3=0.05, candidates=2048),
    "wn18rr": EmbeddingConfig("complex", dim=256, epochs=4, batch=512, n3=0.1, candidates=2048),
}
OTHER = EmbeddingConfig("complex", dim=128, epochs=60, batch=256, n3=0.02)
"""For sets that are not named above."""


def measure(
    splits: Splits, config: EmbeddingConfig, *, check_every: int, save: Path | None, bar: bool
) -> dict[str, Any]:
    """Train once and rank: metrics of valid and test, seconds, the epoch that was kept."""
    look = check_every if len(splits.valid) else 0
    chosen = bool(look and len(splits.test))
    found = fit_embeddings(
        splits,
        config,
        check_every=look,
        patience=3 if chosen else None,
        keep="best" if chosen else "last",
        save=save,
        report=lambda seen: print(*(f"{name} {value:.4g}" for name, value in seen.items()), flush=True),
        progress=bar,
    )
    parts = {name: getattr(splits, name) for name in ("valid", "test") if len(getattr(splits, name))}
    scorer, n = found.predictor.scorer(), len(splits.entities)
    metrics = {name: rank_triples(scorer, part, n, known=splits.known).metrics() for name, part in parts.items()}
    spent = {"seconds": found.seconds, "cpu_seconds": found.cpu_seconds}
    return {"seed": config.seed, **spent, "epoch": found.epoch, "history": found.history, **metrics}


def floor(splits: Splits) -> dict[str, dict[str, float]]:
    """What the frequency of answers alone gives."""
    scorer, n = frequency_scorer(splits.train, len(splits.entities)), len(splits.entities)
    parts = {name: getattr(splits, name) for name in ("valid", "test") if len(getattr(splits, name))}
    return {name: rank_triples(scorer, part, n, known=splits.known).metrics() for name, part in parts.items()}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Part -> metric -> mean and standard deviation over seeds (none for a single seed)."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for part in ("valid", "test"):
        if part not in runs[0]:
            continue
        found[part] = {}
        for metric in runs[0][part]:
            values = [run[part][metric] for run in runs]
            found[part][metric] = {"mean": statistics.fmean(values)}
            if len(values) > 1:
                found[part][metric]["std"] = statistics.stdev(values)
    return found


def quick(splits: Splits) -> Splits:
    """A few triples of each part, for a trial."""
    parts = {"train": 2000, "valid": 50, "test": 50}
    return Splits(splits.entities, splits.relations, **{p: getattr(splits, p)[:n] for p, n in parts.items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of splits, see hetgraph.kg.load_splits")
    parser.add_argument("--name", help="of the set in it")
    parser.add_argument("--model", choices=["transe", "distmult", "complex", "rotate"])
    for name, kind in {
        "dim": int,
        "epochs": int,
        "batch": int,
        "lr": float,
        "n3": float,
        "negatives": int,
        "candidates": int,
    }.items():
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--loss", choices=["softmax", "negatives"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--check-every", type=int, default=4, help="epochs between two looks at valid")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path, help="a folder for the trained models")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help="a trial, not a measurement")
    found = parser.parse_args(argv)
    torch.set_num_threads(found.threads)
    splits = load_splits(found.data, found.name)
    names = ("model", "dim", "epochs", "batch", "lr", "n3", "negatives", "candidates", "loss")
    asked = {name: getattr(found, name) for name in names}
    config = replace(SETTINGS.get(found.name, OTHER), **{k: v for k, v in asked.items() if v is not None}).filled()
    if found.quick:
        splits, config = quick(splits), replace(config, epochs=2, dim=16)
    title = f"{found.name or found.data.name}, {config.model}"
    head = {
        "benchmark": "link_prediction",
        "set": found.name or found.data.name,
        "sizes": {"entities": len(splits.entities), "relations": len(splits.relations)}
        | {part: len(getattr(splits, part)) for part in ("train", "valid", "test")},
        "config": {name: value for name, value in asdict(config).items() if name != "seed"},
        "check_every": found.check_every,
        "threads": found.threads,
        "quick": found.quick,
    }
    runs = _before(found.json, head)
    console, least = Console(), floor(splits)
    for seed in found.seeds:
        if seed in [run["seed"] for run in runs]:
            continue
        save = found.save and found.save / f"{head['set']}_{config.model}_{seed}.safetensors"
        run = measure(
            splits, replace(config, seed=seed), check_every=found.check_every, save=save, bar=console.is_terminal
        )
        runs.append(run)
        part = "test" if "test" in run else "valid"
        console.print(
            f"{title}, seed {seed}: {part} MRR {run[part]['mrr']:.4f}, hits@10 {run[part]['hits@10']:.4f}"
            f" (frequencies alone: {least[part]['mrr']:.4f}), {run['seconds']:.0f} s"
            f" ({run['cpu_seconds']:.0f} s of the processor)",
            markup=False,
        )
        data = {**head, "versions": versions(), "cpu": cpu(), "floor": least, "summary": summary(runs), "runs": runs}
        if found.json:
            write_atomically(found.json, json.dumps(data, indent=2, allow_nan=False) + "\n")


def _before(path: Path | None, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of a result that is there already.

    Raises:
        HetgraphError: it was made with another setting.
    """
    if path is None or not path.exists():
        return []
    data = json.loads(path.read_text())
    other = [name for name, value in head.items() if data.get(name) != value]
    if other:
        raise HetgraphError(f"{path} was made with another {', '.join(other)}; remove it to measure anew")
    return list(data["runs"])


if __name__ == "__main__":
    main()
