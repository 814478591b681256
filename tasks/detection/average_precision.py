"""Average precision, as COCO counts it, in a few lines: for validation while a model is trained.

What is reported comes from pycocotools (:mod:`.coco`), which this agrees with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .boxes import iou

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where precision is read off (COCO)."""


@dataclass(frozen=True)
class Found:
    """Boxes of one picture: ``box [K, 4]``, ``label`` int64 ``[K]``, and of predictions ``score [K]``."""

    box: Tensor
    label: Tensor
    score: Tensor | None = None


def average_precision(found: Sequence[Found], true: Sequence[Found], classes: int, overlap: float = 0.5) -> list[float]:
    """Average precision of every class; NaN for a class that no picture has.

    The predictions of all pictures are taken by falling score; each takes the object of its class, not yet taken,
    that it overlaps most, if that is at least ``overlap``. Precision is made non-increasing and averaged over
    :data:`RECALLS` (Lin et al., ECCV 2014; https://cocodataset.org/#detection-eval).

    Args:
        found: predictions, a picture each.
        true: objects of the same pictures.
        classes: how many there are.
        overlap: least intersection over union.
    """
    hits = [_hits(guess, objects, overlap) for guess, objects in zip(found, true, strict=True)]
    score, hit, guessed = (np.concatenate(parts) for parts in zip(*hits, strict=True)) if hits else _NOTHING
    wanted = np.concatenate([one.label.numpy() for one in true]) if true else np.zeros(0, int)
    out = []
    for label in range(classes):
        own, total = guessed == label, int((wanted == label).sum())
        order = np.argsort(-score[own], kind="mergesort")
        out.append(_area(hit[own][order], total) if total else float("nan"))
    return out


_NOTHING = (np.zeros(0), np.zeros(0, bool), np.zeros(0, int))


def _hits(guess: Found, objects: Found, overlap: float) -> tuple[NDArray, NDArray, NDArray]:
    """Scores, hits and labels of a picture's predictions, best first."""
    assert guess.score is not None
    order = guess.score.argsort(descending=True, stable=True)
    box, label, score = guess.box[order].double(), guess.label[order], guess.score[order]
    every = iou(box[:, None], objects.box[None].double())
    over = torch.where(label[:, None] == objects.label[None], every, -1.0).numpy()
    hit = np.zeros(len(order), bool)
    for i in range(len(order) if len(objects.label) else 0):
        best = int(over[i].argmax())
        if over[i, best] >= overlap:
            hit[i] = True
            over[:, best] = -1.0
    return score.double().numpy(), hit, label.numpy()


def _area(hit: NDArray[np.bool_], total: int) -> float:
    right = np.cumsum(hit)
    recall = right / total
    precision = right / np.arange(1, len(hit) + 1)
    # the best precision at this recall or beyond it
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(place, len(precision))].mean())


def mean_precision(values: Sequence[float]) -> float:
    """The mean over the classes that there are; 0 if there is none."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else 0.0
