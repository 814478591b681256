"""Classes and numbers of samples: whatever a data set's objective asks of Z.

    from hetgraph.tasks import classification
    from hetgraph.tasks.datasets import load

    data = load("av_digits", "AV_DIGITS")
    model = classification.train(data)
    print(classification.evaluate(model, data))
    for answered in classification.predict(model, data)[:5]:
        print(answered.id, answered.answer, answered.confidence, answered.target)

With :class:`~hetgraph.objectives.Classification` an answer is a class, with ``MultiLabel`` a list of labels, with
``Regression`` a number. Where the data set asks for a Z per group, there is an answer for every group.
``docs/tasks/classification.md`` says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import training
from ..errors import HetgraphError
from ..objectives import Classification, MultiLabel, Objective
from ..predictor import Predictor
from ..sample import Sample
from . import vqa
from .datasets import DATASETS, Dataset
from .running import TaskSettings, suggested, summary, train

__all__ = ["DATA", "Answered", "TaskSettings", "evaluate", "predict", "suggested", "summary", "train"]

DATA = tuple(name for name in DATASETS if name not in vqa.DATA)
"""Data sets of samples without questions."""


@dataclass(frozen=True)
class Answered:
    """What the model says of a sample, or of one of its groups.

    Attributes:
        id: of the sample; of a group with its number behind it, ``clip_3``.
        sample: id of the sample.
        group: number of the group; None where Z is per sample.
        answer: a class, a list of labels, or a number (several: a list) in the unit of the targets.
        confidence: probability of the class, or of the least certain label's being as answered; None for numbers.
        target: the right answer, written likewise; None where it is not known.
    """

    id: str
    sample: str
    group: int | None
    answer: Any
    confidence: float | None
    target: Any

    @property
    def right(self) -> bool:
        return bool(self.answer == self.target)

    def to_json(self) -> dict[str, Any]:
        said = {"id": self.id, "sample": self.sample, "group": self.group, "answer": self.answer, "target": self.target}
        if self.confidence is None:
            return said
        return said | {"right": self.right, "confidence": round(self.confidence, 4)}


def predict(
    model: Predictor, data: Dataset, samples: Sequence[Sample] | None = None, *, batch_size: int = 64
) -> list[Answered]:
    """An answer for every row of Z, in the order of the samples and of their groups.

    Args:
        model: trained by :func:`train`.
        data: where the samples are from.
        samples: which; default: the test part. They need no targets.
        batch_size: samples at once.

    Raises:
        HetgraphError: bad samples, or a target that does not fit the model's objective or the number of groups.
    """
    chosen = data.test if samples is None else samples
    found = training.predict(model, chosen, batch_size=batch_size)
    certain = confidence(model.objective, found.scores)
    group = model.fusion.settings["group"]
    out: list[Answered] = []
    for i, sample in enumerate(chosen):
        name = str(i) if sample.id is None else sample.id
        for number, target in enumerate(targets(model.objective, sample, rows_of(sample, group))):
            row = len(out)
            out.append(
                Answered(
                    id=name if group is None else f"{name}_{number}",
                    sample=name,
                    group=None if group is None else number,
                    answer=found.answers[row],
                    confidence=None if certain is None else certain[row],
                    target=target,
                )
            )
    return out


def evaluate(model: Predictor, data: Dataset, samples: Sequence[Sample] | None = None) -> dict[str, float]:
    """Metrics of the model's objective (``docs/metrics.md``) on the test part, or on ``samples``."""
    return training.evaluate(model, data.test if samples is None else samples)


def confidence(objective: Objective, scores: Tensor) -> list[float] | None:
    """Of answers with scores ``[S, C]``; None where the objective has no probabilities."""
    if isinstance(objective, Classification):
        return list(scores.softmax(-1).amax(-1).tolist())
    if isinstance(objective, MultiLabel):
        return list(scores.abs().sigmoid().amin(-1).tolist())
    return None


def rows_of(sample: Sample, group: str | None) -> int:
    """Rows of Z of a sample: as many as the field ``group`` has values, which are 0 .. n-1; one without it."""
    if group is None:
        return 1
    return 1 + max(int(v[group].max()) for v in sample.nodes.values() if group in v and len(v[group]))


def targets(objective: Objective, sample: Sample, rows: int) -> list[Any]:
    """The right answers of a sample, written as the objective's answers are; None where they are not known.

    Raises:
        HetgraphError: the target does not fit the objective, or is not of so many rows.
    """
    if sample.target is None:
        return [None] * rows
    value = objective.encode([sample.target], [str(sample.id)])
    if len(value) != rows:
        raise HetgraphError(f"{sample.label}: field 'target' has {len(value)} rows, expected {rows}")
    if isinstance(objective, Classification):
        # a right answer that training does not have is one beyond the classes
        known = [*objective.classes, str(sample.target)]
        return [known[i] for i in value.tolist()]
    if isinstance(objective, MultiLabel):
        return list(objective.decode(2 * value - 1))
    numbers = torch.as_tensor(value).reshape(rows, -1).tolist()
    return [row[0] if len(row) == 1 else row for row in numbers]
