"""How a model for retrieval is made and trained, and what suits each data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...errors import HetgraphError
from ...fusion import METHODS
from ...training import TrainingSettings
from ..running import TaskSettings, changed

LINEAR = "linear"
"""The method without a fusion network: the closed-form maps alone, a floor."""


@dataclass(frozen=True)
class RetrievalSettings(TaskSettings):
    """A :class:`~hetgraph.tasks.running.TaskSettings` with what retrieval needs besides.

    Of ``training`` the epochs, batch size, rate with warm-up and cosine, weight decay, clipping, patience, averaging,
    feature swap and seed are used.

    Attributes:
        dims: width of the shared space.
        ridge: of the closed-form maps, as a share of the mean eigenvalue.
        label_weight: of the classes as one more modality of the closed-form maps; 0: they are not looked at.
        penalty: of the closed-form classifiers.
        temperature: at the start; it is learnt.
        hardness: of negatives (:func:`.losses.contrastive`).
        queue: embeddings of earlier batches that are further negatives.
        classify: weight of the cross-entropy of the classes; 0: there is no classifier.
        agreement: share of the probability of having the same class in the score, from 0 to 1; the rest is the cosine.
        single: probability with which a side of a training pair has one modality only.
        anchor: whether the closed-form maps are there; without them the fusion network starts from nothing.
    """

    dims: int = 64
    ridge: float = 0.1
    label_weight: float = 0.0
    penalty: float = 1e-3
    temperature: float = 0.07
    hardness: float = 0.0
    queue: int = 0
    classify: float = 0.0
    agreement: float = 0.0
    single: float = 0.7
    anchor: bool = True
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            epochs=12, patience=12, batch_size=64, lr=1e-3, weight_decay=0.05, average=0.98
        )
    )

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, LINEAR):
            raise HetgraphError(f"unknown fusion method {self.method!r}; known: {', '.join((*METHODS, LINEAR))}")
        if self.dims < 1 or self.ridge <= 0 or self.penalty <= 0 or self.temperature <= 0 or self.queue < 0:
            raise HetgraphError(f"impossible settings for retrieval: {self}")
        if not 0 <= self.agreement <= 1 or not 0 <= self.single <= 1 or min(self.hardness, self.classify) < 0:
            raise HetgraphError(f"impossible settings for retrieval: {self}")
        if self.agreement and not self.classify:
            raise HetgraphError("agreement scores by classes, and needs a classifier: give classify a weight")
        if self.norm:
            raise HetgraphError("norm: embeddings are normalised in any case")
        if self.direct:
            raise HetgraphError("direct: scores can go past fusion, and embeddings have none")
        if self.method == LINEAR and not self.anchor:
            raise HetgraphError(f"the method {LINEAR!r} is nothing but the closed-form maps, and anchor is off")


SUGGESTED: dict[str, dict[str, Any]] = {
    "wikipedia": {
        "epochs": 3,
        "batch_size": 128,
        "lr": 3e-3,
        "dropout": 0.3,
        "label_weight": 1.0,
        "ridge": 0.3,
        "dims": 32,
        "penalty": 3e-4,
        "classify": 1.0,
        "agreement": 1.0,
    },
    # 653 items: closed-form maps find nearly all that is to be found, and what is learnt on top of them is little
    "tuxpaint": {"dims": 256, "ridge": 10.0, "width": 64, "epochs": 3, "lr": 2e-3, "dropout": 0.3},
}
"""Data set -> settings, the same for all fusion methods; found on validation parts with ``graph``."""


def suggested(name: str, **changes: Any) -> RetrievalSettings:
    """What suits a data set, with changes.

    Args:
        name: of the data set.
        changes: attributes of :class:`RetrievalSettings` or of :class:`~hetgraph.training.TrainingSettings`.

    Raises:
        HetgraphError: there is no such attribute, or a value is impossible.
    """
    return changed(RetrievalSettings(), **{**SUGGESTED.get(name, {}), **changes})
