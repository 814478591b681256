"""Phrase grounding: which of a sample's regions does a phrase mean?

    from hetgraph.tasks.detection import grounding

    data = grounding.phrases()
    model = grounding.train(data)
    print(grounding.evaluate(model, data)["accuracy"])
    for one in grounding.predict(model, data)[:5]:
        print(one.phrase, one.box, one.right)

Any :class:`~.data.DetectionData` will do whose samples have the words of a phrase as nodes and the one object it means
as target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ... import training
from ...errors import HetgraphError
from ...sample import Sample
from ...training import TrainingSettings
from ..running import TaskSettings, changed
from .data import DetectionData, Objects, objects_of, regions_of
from .model import NodePredictor
from .phrases import overlaps, phrases
from .pointing import Pointing
from .running import make, scores_of

__all__ = ["SETTINGS", "Grounded", "evaluate", "floors", "phrases", "predict", "score", "suggested", "train"]

SETTINGS = TaskSettings(
    layers=3,
    dropout=0.1,
    training=TrainingSettings(epochs=10, batch_size=64, lr=3e-3, patience=10, modality_dropout=0.0, average=0.98),
)
"""Chosen on the validation part of the generated phrases, with the method ``graph``."""


def suggested(name: str = "grounding", **changes: Any) -> TaskSettings:
    """:data:`SETTINGS` with changes; of any name.

    Raises:
        HetgraphError: there is no such attribute of the settings, or a value is impossible.
    """
    return changed(SETTINGS, **changes)


@dataclass(frozen=True, eq=False)
class Grounded:
    """A phrase with the region that the model takes it to mean.

    Attributes:
        id: of the sample.
        phrase: its words, where at hand.
        place: of the region among the sample's.
        box: float32 ``[4]`` of the region.
        score: the model's probability of it.
        overlap: intersection over union of the region with what is meant; None where that is not known.
        target: float32 ``[4]``, what is meant; None where it is not known.
        kind: as which the phrase is scored apart; "" for none.
        picture: the file or the pixels, where at hand.
        least: overlap from which on the region counts as right.
    """

    id: str
    phrase: str
    place: int
    box: Tensor
    score: float
    overlap: float | None
    target: Tensor | None
    kind: str = ""
    picture: Any = None
    least: float = 0.5

    @property
    def right(self) -> bool | None:
        return None if self.overlap is None else self.overlap >= self.least

    def to_json(self) -> dict[str, Any]:
        """Without the picture."""
        said = {name: getattr(self, name) for name in ("id", "phrase", "place", "right")}
        return said | {"box": [round(v, 4) for v in self.box.tolist()], "score": round(self.score, 4)}


def prepared(samples: Sequence[Sample], node: str) -> list[Sample]:
    """The same samples with the targets of :class:`.pointing.Pointing`.

    Raises:
        HetgraphError: a sample whose target is not one object, or without regions.
    """
    out = []
    for sample in samples:
        region = regions_of(sample, node)
        first = torch.zeros(len(region))
        first[:1] = 1
        rows = torch.stack([first, overlaps(sample, _meant(sample), node).cpu()], 1)
        out.append(Sample(id=sample.id, nodes=sample.nodes, edges=sample.edges, target=rows))
    return out


def _meant(sample: Sample) -> Objects:
    objects = objects_of(sample)
    if len(objects.box) != 1:
        raise HetgraphError(f"{sample.label}: a phrase means one object, got {len(objects.box)}")
    return objects


def train(
    data: DetectionData,
    settings: TaskSettings | None = None,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> NodePredictor:
    """A model that points, trained; its best epoch by accuracy on the validation part, if there is one.

    The head reads a region's state and the Z of its sample, so that a method whose regions never hear the words still
    knows the phrase.

    Args:
        data: what to train on.
        settings: default: :data:`SETTINGS`.
        seed: of weights and training.
        folder: keeps a checkpoint, from which an interrupted training goes on.
        progress: show a progress bar.

    Raises:
        HetgraphError: impossible settings, bad samples or targets, or a loss that is not finite.
    """
    s = settings or SETTINGS
    model = make(data.schema, Pointing(), s, seed, data.node, joint=True)
    known, held = (None if part is None else prepared(part, data.node) for part in (data.train, data.valid))
    chosen = replace(s.training, seed=seed, standardize=data.standardize)
    training.fit(model, known or [], valid=held, settings=chosen, folder=folder, progress=progress)
    return model


def predict(
    model: NodePredictor, data: DetectionData, samples: Sequence[Sample] | None = None, *, batch_size: int = 64
) -> list[Grounded]:
    """The regions that phrases mean.

    Args:
        model: trained by :func:`train`.
        data: where the samples are from; it knows the words of the phrases.
        samples: which; default: the test part. Their targets are not needed.
        batch_size: samples at once.

    Raises:
        HetgraphError: the model does not point, or a sample has no regions.
    """
    objective = model.objective
    if not isinstance(objective, Pointing):
        raise HetgraphError(f"expected a model that points at regions, got one for {type(objective).__name__}")
    chosen = data.test if samples is None else samples
    found = []
    for i, (sample, (scores, region)) in enumerate(zip(chosen, scores_of(model, chosen, batch_size), strict=True)):
        chances = scores[:, 0].softmax(0)
        place = int(chances.argmax())
        objects = sample.target if isinstance(sample.target, Objects) else None
        about = data.about.get(str(sample.id), {})
        found.append(
            Grounded(
                id=str(i) if sample.id is None else sample.id,
                phrase=about.get("phrase", ""),
                place=place,
                box=region[place],
                score=float(chances[place]),
                overlap=None if objects is None else float(overlaps(sample, objects, model.node)[place]),
                target=None if objects is None else objects.box[0],
                kind=about.get("kind", ""),
                picture=about.get("picture"),
                least=objective.overlap,
            )
        )
    return found


def evaluate(model: NodePredictor, data: DetectionData, samples: Sequence[Sample] | None = None) -> dict[str, float]:
    """:func:`score` of the regions in the test part, or in ``samples``."""
    return score(predict(model, data, samples))


def score(grounded: Sequence[Grounded]) -> dict[str, float]:
    """Shares of phrases whose region overlaps what is meant by at least half: ``accuracy``, ``accuracy_KIND``.

    Raises:
        HetgraphError: no phrases, or what one means is not known.
    """
    unknown = [one.id for one in grounded if one.right is None]
    if unknown or not grounded:
        raise HetgraphError(f"phrase {unknown[0]!r}: what it means is not known" if unknown else "no phrases to score")
    out = {"accuracy": fmean(bool(one.right) for one in grounded)}
    for kind in sorted({one.kind for one in grounded} - {""}):
        out[f"accuracy_{kind}"] = fmean(bool(one.right) for one in grounded if one.kind == kind)
    return out


def floors(samples: Sequence[Sample], node: str = "region", least: float = 0.5) -> dict[str, float]:
    """What needs no model: ``random``, the accuracy of a region drawn at random, and ``best``, that of the best one.

    Raises:
        HetgraphError: a sample whose target is not one object, or none at all.
    """
    if not samples:
        raise HetgraphError("no phrases to score")
    over = [overlaps(sample, _meant(sample), node) >= least for sample in samples]
    return {"random": fmean(float(o.float().mean()) for o in over), "best": fmean(bool(o.any()) for o in over)}
