"""The shape that tasks have: ``train``, ``evaluate`` and ``predict`` over a data set, and the summary over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..comparison_runs import Data, make_model
from ..errors import HetgraphError
from ..predictor import Predictor
from ..training import TrainingSettings, fit
from .datasets import Dataset
from .datasets.suggested import SUGGESTED


@dataclass(frozen=True)
class TaskSettings:
    """A model and how it is trained.

    Attributes:
        method: of fusion, see :data:`hetgraph.fusion.METHODS`.
        width, layers, heads, dropout: of the model.
        norm, direct: Z normalised in front of the head; width of a plain network past fusion, 0 for none. See
            :class:`~hetgraph.predictor.Predictor`.
        training: everything else. Whether features are standardised is the data set's to say.
    """

    method: str = "graph"
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1
    norm: bool = False
    direct: int = 0
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(epochs=40, patience=8, modality_dropout=0.1)
    )


S = TypeVar("S", bound=TaskSettings)


def suggested(name: str, **changes: Any) -> TaskSettings:
    """What suits a data set (:data:`.datasets.suggested.SUGGESTED`; of a grid the first value), with changes.

    Args:
        name: of the data set.
        changes: attributes of :class:`TaskSettings` or of :class:`~hetgraph.training.TrainingSettings`.

    Raises:
        HetgraphError: there is no such attribute, or a value is impossible.
    """
    grid = {key: value[0] for key, value in SUGGESTED.get(name, {}).items() if key in ("lr", "dropout")}
    return changed(TaskSettings(), **{**SUGGESTED.get(name, {}), **grid, **changes})


def changed(settings: S, **changes: Any) -> S:
    """Settings of a task with changes: attributes of their class or of their training; the own come first.

    Raises:
        HetgraphError: there is no such attribute, or a value is impossible.
    """
    own = {f.name for f in fields(settings)} - {"training"}
    known = own | {f.name for f in fields(TrainingSettings)}
    if unknown := sorted(set(changes) - known):
        raise HetgraphError(f"no setting {unknown[0]!r}; known: {', '.join(sorted(known))}")
    training = replace(settings.training, **{key: value for key, value in changes.items() if key not in own})
    return replace(settings, training=training, **{key: value for key, value in changes.items() if key in own})


def untrained(data: Data, settings: TaskSettings) -> Predictor:
    """A model for the data as the settings describe it, its weights drawn from torch's generator."""
    s = settings
    return make_model(data, s.method, s.width, s.layers, s.heads, s.dropout, norm=s.norm, direct=s.direct)


def train(
    data: Dataset,
    settings: TaskSettings | None = None,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Predictor:
    """A model for the data, trained; its best epoch by the validation part, if there is one.

    Args:
        data: what to train on.
        settings: default: what suits the data set.
        seed: of weights and training.
        folder: keeps a checkpoint, from which an interrupted training goes on.
        progress: show a progress bar.

    Raises:
        HetgraphError: impossible settings, bad samples, or a loss that is not finite.
    """
    s = settings or suggested(data.name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = untrained(data, s)
        training = replace(s.training, seed=seed, standardize=data.standardize)
        fit(model, data.train, valid=data.valid, settings=training, folder=folder, progress=progress)
    return model


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Metric -> mean and sample standard deviation (0 for one run) over the runs, for the metrics all runs have."""
    names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    values = {name: [run[name] for run in runs] for name in names}
    return {n: (statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0) for n, v in values.items()}
