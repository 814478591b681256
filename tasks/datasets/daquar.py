"""DAQUAR: questions about photographs of rooms, as a graph of words, picture regions and detected objects.

Reads the official questions (:mod:`.official.daquar`) and two files of features, which are not part of DAQUAR:
``effnet_lite0_regions_pca256.npz`` (``image``, ``regions [N, 10, width]``: a 3 x 3 grid row by row, then the whole
picture) and ``coco_detections.npz`` (``image``, ``boxes [N, M, 4]`` in 0..1, ``score [N, M]``, ``cls [N, M]``, classes
of COCO by number) with their names in ``coco_classes.txt``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...encoders import Encoder
from ...errors import HetgraphError
from ...schema import NodeType
from . import Dataset, data_folder
from .official import daquar as official
from .official.parts import Question
from .questions import dataset, held_out, regions
from .reading import read_arrays

TITLE = "DAQUAR"
REGIONS, DETECTIONS, CLASSES = "effnet_lite0_regions_pca256.npz", "coco_detections.npz", "coco_classes.txt"
VALIDATION = 10
"""One picture of so many validates."""
LEAST_SCORE = 0.2
"""Detections below it are mostly wrong."""


@dataclass(frozen=True)
class Detections:
    """The objects found in one picture.

    Attributes:
        x: a 1 for the class, then the score, float32 ``[N, classes + 1]``.
        box: x1, y1, x2, y2 in 0..1, float32 ``[N, 4]``.
        count: ``log(1 + n)`` of the objects of every class, float32 ``[1, classes]``.
    """

    x: np.ndarray
    box: np.ndarray
    count: np.ndarray


def single_word(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    encoder: Encoder | None = None,
) -> Dataset:
    """The answer to a question about a room; only questions whose answer is a single word.

    Args:
        folder: default ``$HETGRAPH_DATA/daquar``.
        seed: nothing is random.
        cache: keeps the encoded questions.
        encoder: another text encoder than the packaged one.

    Raises:
        HetgraphError: a file or array is missing, or they do not fit together.
    """
    return _load("daquar", folder, cache, encoder, every=False)


def all_questions(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    encoder: Encoder | None = None,
) -> Dataset:
    """As :func:`single_word` with all questions; several words that are right together are an answer of its own."""
    return _load("daquar_all", folder, cache, encoder, every=True)


def recall(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    encoder: Encoder | None = None,
) -> Dataset:
    """As :func:`single_word`, and what training says of like pictures and questions as two more nodes.

    ``attribute``: which answers and words of questions fit such a picture; ``neighbour``: what was answered to such
    questions about such pictures (:class:`.recall.Recall`).
    """
    return _load("daquar_recall", folder, cache, encoder, every=False, recalling=True)


def _load(
    name: str,
    folder: str | Path | None,
    cache: str | Path | None,
    encoder: Encoder | None,
    *,
    every: bool,
    recalling: bool = False,
) -> Dataset:
    source = data_folder("daquar", folder)
    found = official.read(source)
    train, test = (
        [q for q in found.part(part) if q.answers and (every or len(q.answers) == 1)] for part in official.PARTS
    )
    train, valid = held_out(train, lambda question: question.image, VALIDATION)
    pictures = regions(TITLE, source / REGIONS, {question.image for question in train})
    objects = detections(source)

    def more(question: Question) -> dict[str, Any]:
        seen = objects[question.image]
        return {"object": {"x": seen.x, "box": seen.box} if len(seen.x) else None, "count": seen.count}

    kinds = len(next(iter(objects.values())).count[0])
    return dataset(
        name,
        TITLE,
        (train, valid, test),
        {picture: own for picture, own in pictures.items() if picture in objects},
        encoder,
        cache,
        answer=lambda question: ", ".join(question.answers),
        notes=lambda used: (
            f"official split; tokens by {used}. "
            f"{'All questions' if every else 'Questions with one word as answer'}; "
            "answers that training does not have count as wrong. A tenth of the training pictures validates."
            f"{' What training says of like pictures and questions is there as two nodes.' if recalling else ''}"
        ),
        types=(NodeType("object", kinds + 1, fields={"box": 4}), NodeType("count", kinds)),
        more=more,
        objects={picture: seen.count for picture, seen in objects.items()} if recalling else None,
    )


def detections(source: Path) -> dict[str, Detections]:
    """Picture -> what was found in it with a score of at least ``LEAST_SCORE``.

    Raises:
        HetgraphError: a file is missing, or its arrays do not fit.
    """
    arrays = read_arrays(TITLE, source / DETECTIONS, ("image", "boxes", "score", "cls"))
    count = len(class_names(source))
    boxes, score, cls = (arrays[name] for name in ("boxes", "score", "cls"))
    shape = score.shape
    if len(shape) != 2 or len(arrays["image"]) != shape[0] or boxes.shape != (*shape, 4) or cls.shape != shape:
        raise HetgraphError(
            f"{TITLE}: {DETECTIONS}: expected boxes [N, M, 4], score and cls [N, M], got {list(boxes.shape)}, "
            f"{list(score.shape)} and {list(cls.shape)} of {len(arrays['image'])} pictures"
        )
    kept = score >= LEAST_SCORE
    if kept.any() and not 0 <= cls[kept].min() <= cls[kept].max() < count:
        raise HetgraphError(f"{TITLE}: {DETECTIONS}: cls must lie in 0 .. {count - 1} ({CLASSES})")
    found = {}
    for i, name in enumerate(arrays["image"]):
        own = cls[i][kept[i]].astype(np.int64)
        x = np.concatenate([np.eye(count, dtype=np.float32)[own], score[i][kept[i], None].astype(np.float32)], 1)
        found[str(name)] = Detections(
            x,
            boxes[i][kept[i]].astype(np.float32),
            np.log1p(np.bincount(own, minlength=count))[None].astype(np.float32),
        )
    return found


def class_names(source: Path) -> list[str]:
    """The names of the detected classes, by number.

    Raises:
        HetgraphError: there is no such file.
    """
    path = source / CLASSES
    if not path.is_file():
        raise HetgraphError(f"{TITLE}: no file {path}")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
