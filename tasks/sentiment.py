"""Sentiment of utterances: negative or positive, or how strong it is from -3 to 3.

    from hetgraph.tasks import sentiment
    from hetgraph.tasks.datasets import load

    data = load("mosi_bclstm", "CMU_MOSI")
    model = sentiment.train(data)
    print(sentiment.evaluate(model, data))
    for answered in sentiment.predict(model, data)[:5]:
        print(answered.id, answered.answer, answered.target)

``mosi_bclstm`` is one heterogeneous graph per video: nodes are utterance x modality, edges join neighbours in time
within a modality and the same utterance across modalities, and Z and the answer are given per utterance.
``mosi_standard`` has a graph per utterance, of its words and its voice. ``docs/tasks/sentiment.md`` says more.

The table of the README, over the modalities of ``mosi_bclstm``:

    python -m hetgraph.tasks.sentiment --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..files import write_atomically
from ..fusion import Fusion
from ..objectives import Classification
from ..predictor import Predictor
from ..schema import Schema
from ..training import TrainingSettings, fit
from ..training import evaluate as scored
from .classification import Answered, evaluate, predict
from .datasets import mosi
from .running import TaskSettings, suggested, summary, train

__all__ = [
    "CLASSES",
    "DATA",
    "MODEL",
    "TRAINING",
    "Answered",
    "SentimentResult",
    "SentimentSettings",
    "TaskSettings",
    "build",
    "evaluate",
    "predict",
    "run",
    "suggested",
    "summary",
    "train",
]

DATA = ("mosi_bclstm", "mosi_standard")
CLASSES = ("negative", "positive")


@dataclass(frozen=True)
class SentimentSettings:
    """Size of the model; suggested by ``benchmarks/sentiment_settings.py``; the README says how far."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.5


MODEL = SentimentSettings()
TRAINING = TrainingSettings(
    epochs=20,
    batch_size=16,
    lr=5e-4,
    weight_decay=1e-4,
    warmup=0.0,
    schedule="constant",
    clip=5.0,
    # in training text and video know the labels, later text knows less and video next to nothing
    feature_swap={"text": 0.3, "video": 0.95},
    average=0.98,
    standardize=False,  # the data set standardises on its training part and clips
)


@dataclass(frozen=True)
class SentimentResult:
    """Test accuracy of every seed after the fixed number of epochs, and the size of the model."""

    accuracy: list[float]
    parameters: int
    seconds_per_epoch: float

    @property
    def mean(self) -> float:
        return statistics.mean(self.accuracy)

    @property
    def std(self) -> float:
        """Sample standard deviation over the seeds; 0 for one seed."""
        return statistics.stdev(self.accuracy) if len(self.accuracy) > 1 else 0.0


def build(schema: Schema, settings: SentimentSettings = MODEL) -> Predictor:
    """A predictor with one Z per utterance."""
    fusion = Fusion(
        schema,
        settings.width,
        layers=settings.layers,
        heads=settings.heads,
        dropout=settings.dropout,
        group="group",
    )
    return Predictor(fusion, Classification(CLASSES), settings.dropout)


def run(
    data: mosi.Conversations,
    seeds: Sequence[int] = range(5),
    *,
    settings: SentimentSettings = MODEL,
    training: TrainingSettings = TRAINING,
    progress: bool = False,
) -> SentimentResult:
    """Train once per seed for a fixed number of epochs and score the test part.

    There is no validation: the features leak the labels of the whole training part (see
    :mod:`hetgraph.tasks.datasets.mosi`), so nothing carved out of it can choose an epoch.
    """
    accuracy, seconds, size = [], [], 0
    for seed in seeds:
        torch.manual_seed(seed)
        model = build(data.schema, settings)
        size = sum(p.numel() for p in model.parameters())
        history = fit(model, data.train, settings=replace(training, seed=seed), progress=progress)
        accuracy.append(scored(model, data.test)["accuracy"])
        seconds += history.seconds
    return SentimentResult(accuracy, size, statistics.mean(seconds))


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of CMU-MOSI; default $HETGRAPH_DATA/cmu_mosi")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ablate", action="store_true", help="also every single modality")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    wanted: list[tuple[str, ...]] = [mosi.MODALITIES]
    if arguments.ablate:
        wanted += [(name,) for name in mosi.MODALITIES]
    table = Table(title=f"CMU-MOSI split_bclstm, {TRAINING.epochs} epochs, {arguments.seeds} seeds")
    for name in ("modalities", "accuracy", "std", "parameters", "s/epoch"):
        table.add_column(name, justify="left" if name == "modalities" else "right")
    found = {}
    for names in wanted:
        data = mosi.load(arguments.data, modalities=names)
        result = run(data, range(arguments.seeds), progress=True)
        title = " + ".join(names)
        found[title] = {"accuracy": result.accuracy, "mean": result.mean, "std": result.std}
        table.add_row(
            title,
            f"{result.mean:.4f}",
            f"{result.std:.4f}",
            f"{result.parameters:,}",
            f"{result.seconds_per_epoch:.2f}",
        )
    test = torch.cat([sample.target for sample in data.test])
    majority = max(float(test.float().mean()), 1 - float(test.float().mean()))
    table.add_row("majority class", f"{majority:.4f}", "", "", "")
    Console().print(table)
    if arguments.json:
        write_atomically(arguments.json, json.dumps({"majority": majority, "results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
