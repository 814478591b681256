"""Training, answers and scores of detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import training
from ...errors import HetgraphError
from ...fusion import Fusion
from ...objectives import Objective
from ...sample import Sample
from ...schema import Schema
from ...training import TrainingSettings
from ..running import TaskSettings, changed
from .coco import Detected, coco_scores
from .data import DetectionData, Objects, prepared, regions_of
from .model import NodePredictor
from .objective import Detecting

SETTINGS = TaskSettings(
    layers=3,
    dropout=0.0,
    training=TrainingSettings(epochs=9, batch_size=32, lr=3e-3, patience=9, modality_dropout=0.0, average=0.98),
)
"""Chosen on the validation part of the crowded scenes, with the method ``graph``."""


def suggested(name: str = "scenes", **changes: Any) -> TaskSettings:
    """:data:`SETTINGS` with changes; of any name.

    Raises:
        HetgraphError: there is no such attribute of the settings, or a value is impossible.
    """
    return changed(SETTINGS, **changes)


def make(
    schema: Schema, objective: Objective, settings: TaskSettings, seed: int, node: str, joint: bool
) -> NodePredictor:
    """An untrained model.

    Raises:
        HetgraphError: settings that a model of nodes cannot have.
    """
    rate = settings.training.modality_dropout
    if rate.get(node, 0.0) if isinstance(rate, Mapping) else rate:
        raise HetgraphError(f"modality_dropout: what is predicted of {node!r} needs its nodes; got {rate!r}")
    if settings.training.modality_loss:
        raise HetgraphError("modality_loss: a node type alone has no answer for the nodes of another")
    if settings.norm:
        raise HetgraphError("norm: it is Z that is normalised, and what is read here are nodes")
    if settings.direct:
        raise HetgraphError("direct: it reads means over nodes, and what is scored here are nodes")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        s = settings
        fusion = Fusion(schema, s.width, layers=s.layers, heads=s.heads, method=s.method, dropout=s.dropout)
        return NodePredictor(fusion, objective, node, joint, s.dropout)


def train(
    data: DetectionData,
    settings: TaskSettings | None = None,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    objective: Detecting | None = None,
) -> NodePredictor:
    """A detector for the data, trained; its best epoch by mAP@0.5 of the validation part, if there is one.

    Args:
        data: what to train on.
        settings: default: :data:`SETTINGS`.
        seed: of weights and training.
        folder: keeps a checkpoint, from which an interrupted training goes on.
        progress: show a progress bar.
        objective: with other weights than the default ones.

    Raises:
        HetgraphError: impossible settings, bad samples or targets, or a loss that is not finite.
    """
    s = settings or SETTINGS
    chosen = objective or Detecting(data.classes)
    if chosen.classes != data.classes:
        raise HetgraphError(f"objective: expected the classes {data.classes}, got {chosen.classes}")
    model = make(data.schema, chosen, s, seed, data.node, joint=False)
    known, held = (
        None if part is None else prepared(part, data.classes, data.node) for part in (data.train, data.valid)
    )
    chosen_training = replace(s.training, seed=seed, standardize=data.standardize)
    training.fit(model, known or [], valid=held, settings=chosen_training, folder=folder, progress=progress)
    return model


def scores_of(model: NodePredictor, samples: Sequence[Sample], batch_size: int = 64) -> list[tuple[Tensor, Tensor]]:
    """Scores ``[N, outputs]`` and boxes ``[N, 4]`` of every sample's regions, on the CPU."""
    regions = [regions_of(sample, model.node).cpu() for sample in samples]
    if not samples:
        return []
    scores = training.predict(model, samples, batch_size=batch_size).scores
    return list(zip(scores.split([len(region) for region in regions]), regions, strict=True))


def predict(
    model: NodePredictor, data: DetectionData, samples: Sequence[Sample] | None = None, *, batch_size: int = 64
) -> list[Detected]:
    """What is in samples.

    Args:
        model: trained by :func:`train`.
        data: where the samples are from.
        samples: which; default: the test part. Their targets are not needed.
        batch_size: samples at once.

    Raises:
        HetgraphError: the model does not detect, or a sample has no regions.
    """
    objective = model.objective
    if not isinstance(objective, Detecting):
        raise HetgraphError(f"expected a model that detects, got one for {type(objective).__name__}")
    chosen = data.test if samples is None else samples
    found = []
    for i, (sample, (scores, region)) in enumerate(zip(chosen, scores_of(model, chosen, batch_size), strict=True)):
        answers = objective.answers(scores, region)
        assert answers.score is not None
        found.append(
            Detected(
                id=str(i) if sample.id is None else sample.id,
                box=answers.box,
                label=tuple(objective.classes[k] for k in answers.label.tolist()),
                score=answers.score,
                target=sample.target if isinstance(sample.target, Objects) else None,
                picture=data.about.get(str(sample.id), {}).get("picture"),
            )
        )
    return found


def evaluate(model: NodePredictor, data: DetectionData, samples: Sequence[Sample] | None = None) -> dict[str, float]:
    """:func:`.coco.coco_scores` of what is found in the test part, or in ``samples``."""
    return coco_scores(predict(model, data, samples), data.classes)
