"""Does fusing picture, caption, spoken caption and sound effect beat the best single one on Tux Paint?

Writes raw PNG and OGG files and a manifest, then fits `top_category` on the grouped split, as
`hetgraph fit manifest.jsonl --target top_category` does, for all media together and each alone. The settings
are the command line's defaults; the epoch is chosen on the validation split.

    python -m benchmarks.tuxpaint --data FOLDER --work outputs/tuxpaint --json FILE
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hetgraph.files import write_atomically
from hetgraph.manifest import read_manifest
from hetgraph.tasks.datasets.tuxpaint import write_manifest
from hetgraph.training import TrainingSettings
from hetgraph.workflow import fit_manifest

TRAINING = TrainingSettings(epochs=40, patience=8, modality_dropout=0.1)
RUNS: dict[str, list[str]] = {
    "all four": [],
    "picture": ["image"],
    "caption": ["text"],
    "spoken caption": ["audio:speech"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data set; default $HETGRAPH_DATA/tuxpaint_stamps")
    parser.add_argument("--work", type=Path, default=Path("outputs/tuxpaint"), help="raw files and the cache go here")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = arguments.work / "manifest.jsonl"
    if not path.is_file():
        write_manifest(arguments.work, arguments.data)
    manifest = read_manifest(path, target="top_category")
    found: dict[str, list[float]] = {}
    for name, columns in RUNS.items():
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                done = fit_manifest(
                    manifest,
                    folder,
                    columns=columns,
                    cache=arguments.work / "cache",
                    training=replace(TRAINING, seed=seed),
                )
            found.setdefault(name, []).append(done.scores["test"]["accuracy"])
            print(f"{name}, seed {seed}: {found[name][-1]:.4f}", flush=True)
    test = Counter(row.label for row in manifest.split("test"))
    majority = Counter(row.label for row in manifest.split("train")).most_common(1)[0][0]
    table = Table(title=f"Tux Paint top_category, test accuracy, {arguments.seeds} seeds")
    for column in ("media", "mean", "std"):
        table.add_column(column, justify="left" if column == "media" else "right")
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        table.add_row(name, f"{statistics.mean(values):.4f}", f"{spread:.4f}")
    table.add_row("most frequent class", f"{test[majority] / test.total():.4f}", "")
    Console().print(table)
    if arguments.json:
        write_atomically(arguments.json, json.dumps({"accuracy": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
