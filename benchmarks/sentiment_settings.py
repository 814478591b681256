"""Which settings suit CMU-MOSI's leaking features, ranked inside its training part?

The packaged ``text`` and ``video`` features come from networks trained on the labels of all training
videos, so a validation part carved out of them looks perfect whatever one does. This script rebuilds the
situation inside the training videos: in every fold it trains a text network (on MiniLM sentence vectors of
the transcripts) and a "video" network (on noise, because the real video features carry next to nothing
outside of training) on the labels of the inner training videos until they fit as tightly as the real ones,
takes their hidden layers as features, and scores settings on the inner held-out videos, which those
networks have not seen. Only videos of the training part are read; that video is noise is known from test figures.

    python -m benchmarks.sentiment_settings --data FOLDER --json FILE
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hetgraph import Sample
from hetgraph.builders import conversation
from hetgraph.encoders import MiniLM
from hetgraph.tasks.sentiment import MODEL, TRAINING, build
from hetgraph.training import fit

BASE: dict[str, Any] = {"dropout": 0.5, "layers": 2, "average": 0.98, "swap": {}, "drop": {}}
CANDIDATES: dict[str, dict[str, Any]] = {
    "no average": {"average": 0.0},
    "average": {},
    "average, video dropped 0.8": {"drop": {"video": 0.8}},
    "average, swapped text 0.2, video 0.95": {"swap": {"text": 0.2, "video": 0.95}},
    "average, swapped text 0.3, video 0.95": {"swap": {"text": 0.3, "video": 0.95}},
    "average, swapped text 0.4, video 0.95": {"swap": {"text": 0.4, "video": 0.95}},
    "average, swapped text 0.5, video 0.95": {"swap": {"text": 0.5, "video": 0.95}},
    "average, swapped 0.3, 0.95; dropout 0.3": {"swap": {"text": 0.3, "video": 0.95}, "dropout": 0.3},
    "average, swapped 0.3, 0.95; one layer": {"swap": {"text": 0.3, "video": 0.95}, "layers": 1},
}
EPOCHS = 20


def leaking_features(inputs: Tensor, labels: Tensor, train: Tensor, until: float, seed: int) -> Tensor:
    """Hidden layer ``[N, 100]`` of a network fitted to the training labels up to an accuracy of ``until``."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(inputs.shape[1], 100), nn.ReLU(), nn.Linear(100, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(1000):
        optimizer.zero_grad()
        scores = network(inputs[train])
        nn.functional.cross_entropy(scores, labels[train]).backward()
        optimizer.step()
        if (scores.argmax(1) == labels[train]).float().mean() >= until:
            break
    with torch.no_grad():
        return network[:2](inputs)


def folds(data: Path, count: int, seed: int) -> list[tuple[list[Sample], list[Sample], float]]:
    """Conversations of every fold (inner training, inner held-out) and the share of held-out positives."""
    with (data / "utterances.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split_bclstm"] == "train"]
    with np.load(data / "features.npz", allow_pickle=False) as stored:
        place = {name: i for i, name in enumerate(stored["utterance_id"].tolist())}
        audio = torch.from_numpy(stored["audio"][[place[row["utterance_id"]] for row in rows]])
    labels = torch.tensor([int(row["label_binary"]) for row in rows])
    nodes = MiniLM()([row["transcript"].lower() for row in rows])
    sentence = torch.stack([node["x"].mean(0) for node in nodes])
    noise = torch.randn(len(rows), 300, generator=torch.Generator().manual_seed(seed))
    videos = sorted({row["video_id"] for row in rows})
    order = torch.randperm(len(videos), generator=torch.Generator().manual_seed(seed)).tolist()
    out = []
    for fold in range(count):
        held = {videos[i] for i in order[fold::count]}
        train = torch.tensor([row["video_id"] not in held for row in rows])
        features = {
            "text": leaking_features(sentence, labels, train, 0.98, seed + fold),
            "audio": audio,
            "video": leaking_features(noise, labels, train, 0.92, seed + fold),
        }
        for name, value in features.items():
            mean, std = value[train].mean(0), value[train].std(0)
            features[name] = ((value - mean) / torch.where(std > 0, std, torch.ones_like(std))).clamp(-5, 5)
        parts: tuple[list[Sample], list[Sample]] = ([], [])
        for video in videos:
            places = sorted(
                (i for i, row in enumerate(rows) if row["video_id"] == video), key=lambda i: int(rows[i]["segment"])
            )
            nodes_of = {n: {"x": v[places], "group": torch.arange(len(places))} for n, v in features.items()}
            parts[video in held].append(Sample(id=video, target=labels[places], nodes=nodes_of))
        out.append((*parts, float(labels[~train].float().mean())))
    return out


def score(
    settings: dict[str, Any], prepared: list[tuple[list[Sample], list[Sample], float]], seeds: int
) -> list[float]:
    """Held-out accuracy after every epoch, averaged over folds and seeds."""
    curves = []
    schema = conversation(text=100, audio=73, video=100)
    training = replace(
        TRAINING,
        epochs=EPOCHS,
        patience=EPOCHS,
        average=settings["average"],
        feature_swap=settings["swap"],
        modality_dropout=settings["drop"],
    )
    for train, held, _ in prepared:
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = build(schema, replace(MODEL, layers=settings["layers"], dropout=settings["dropout"]))
            history = fit(model, train, valid=held, settings=replace(training, seed=seed), progress=False)
            curves.append([epoch["accuracy"] for epoch in history.valid])
    return [statistics.mean(values) for values in zip(*curves, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with features.npz and utterances.csv")
    parser.add_argument("--json", type=Path, help="write the curves here")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepared = folds(arguments.data, arguments.folds, seed=0)
    found = {}
    print(f"{'settings':40} {'epoch 5':>8} {'10':>8} {'15':>8} {'20':>8}   best epoch", flush=True)
    for name, change in CANDIDATES.items():
        curve = found[name] = score({**BASE, **change}, prepared, arguments.seeds)
        marks = " ".join(f"{curve[e - 1]:8.3f}" for e in (5, 10, 15, 20))
        best = max(range(EPOCHS), key=lambda e: curve[e])
        print(f"{name:40} {marks}   {best + 1} ({curve[best]:.3f})", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"base": BASE, "candidates": CANDIDATES, "curves": found}, indent=1))


if __name__ == "__main__":
    main()
