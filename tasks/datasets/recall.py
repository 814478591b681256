"""What training says of pictures and questions that are like a given one, as nodes.

Two things that 6,000 questions about 800 pictures teach better when they are said than when a network has to find them:

* which things and properties a picture is likely to have (attributes: Wu et al., CVPR 2016), from the words that
  training questions and answers about other pictures have;
* what was answered to like questions about like pictures (nearest neighbours: Agrawal et al., ICCV 2015).

What is said of a training question is of other pictures than its own, as it is for a question that comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from ...encoders.text import words as split
from ...errors import HetgraphError
from ..ridge import ridge
from .official.parts import Question

SHRINKAGE = 1e4
"""Of the ridge regression, for features whose mean square over all pictures is one (no answer is read for that)."""
FOLDS = 8
"""A training picture's attributes are predicted from the others' of as many parts."""
SHARPNESS = {"words": 10.0, "tokens": 10.0, "picture": 6.0, "objects": 4.0}
"""How much a cosine counts in the logarithm of a neighbour's weight."""
ROWS = 512
LEAST = 2e-3
"""Rarer attributes are scaled as if they were as frequent."""


class Recall:
    """Attributes of pictures and answers of neighbours, by the training part.

    Args:
        questions, answers: of the training part.
        classes: the known answers, in order; they are the attributes, too.
        phrases: question -> its words as a row, float32 ``[1, W]``.
        tokens: question -> its tokens ``[N, D]``, at least one.
        regions: picture -> its regions ``[R, F]``, the last of the whole picture.
        objects: picture -> how many objects of each class it has, ``[1, C]``.

    Raises:
        HetgraphError: training has questions about fewer than two pictures: of one nothing can be said by the others.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        answers: Sequence[str],
        classes: Sequence[str],
        phrases: Callable[[str], np.ndarray],
        tokens: Mapping[str, np.ndarray],
        regions: Mapping[str, np.ndarray],
        objects: Mapping[str, np.ndarray],
    ) -> None:
        pictures = {question.image for question in questions}
        if len(pictures) < 2:
            raise HetgraphError(f"recall: expected training questions about two pictures at least, got {len(pictures)}")
        self._classes = {name: i for i, name in enumerate(classes)}
        self._phrases, self._tokens, self._regions, self._objects = phrases, tokens, regions, objects
        self._known = self._rows(questions)
        self._images = np.array([question.image for question in questions])
        self._said = np.array([self._classes[answer] for answer in answers])
        self._attributes = self._predicted(questions, answers)

    def attributes(self, image: str) -> np.ndarray:
        """How much likelier than in other pictures every attribute is, float32 ``[1, classes]``.

        ``(p - f) / sqrt(f)`` with the predicted p and the frequency f.
        """
        return self._attributes[image][None]

    def answers(self, questions: Sequence[Question]) -> np.ndarray:
        """The root of every answer's share among the neighbours, float32 ``[questions, classes]``.

        A training question about another picture weighs ``exp(sum_i s_i cos_i)``, over its words, the mean of its
        tokens, its picture and the picture's objects (:data:`SHARPNESS`).
        """
        return np.concatenate([self._vote(questions[i : i + ROWS]) for i in range(0, len(questions), ROWS)])

    def _vote(self, questions: Sequence[Question]) -> np.ndarray:
        own = self._rows(questions)
        likeness = sum(weight * own[name] @ self._known[name].T for name, weight in SHARPNESS.items())
        likeness[np.array([question.image for question in questions])[:, None] == self._images] = -np.inf
        weight = np.exp(likeness - likeness.max(1, keepdims=True))
        share = np.zeros((len(questions), len(self._classes)), np.float32)
        for column in np.unique(self._said):
            share[:, column] = weight[:, self._said == column].sum(1)
        return np.sqrt(share / share.sum(1, keepdims=True))

    def _rows(self, questions: Sequence[Question]) -> dict[str, np.ndarray]:
        """By what questions are compared, each a unit vector (or zero) per question."""
        return {
            "words": _unit([self._phrases(question.question)[0] for question in questions]),
            "tokens": _unit([self._tokens[question.question].mean(0) for question in questions]),
            "picture": _unit([self._regions[question.image][-1] for question in questions]),
            "objects": _unit([self._objects[question.image][0] for question in questions]),
        }

    def _predicted(self, questions: Sequence[Question], answers: Sequence[str]) -> dict[str, np.ndarray]:
        images = sorted(self._regions)
        place = {image: i for i, image in enumerate(images)}
        said = torch.zeros(len(images), len(self._classes), dtype=torch.float64)
        for question, answer in zip(questions, answers, strict=True):
            mentioned = {word for word, _, _ in split(question.question)} | {answer}
            for word in mentioned | {word.rstrip("s") for word in mentioned}:
                if word in self._classes:
                    said[place[question.image], self._classes[word]] = 1
        cells = [self._regions[image] for image in images]
        looks = np.array([np.concatenate([c[-1], c[:-1].mean(0), c[:-1].max(0)]) for c in cells], np.float64)
        found = np.array([self._objects[image][0] for image in images], np.float64)
        x = torch.from_numpy(np.concatenate([looks / _root(looks), found / _root(found)], 1))
        train = np.array(sorted({place[question.image] for question in questions}))
        others = np.setdiff1d(np.arange(len(images)), train)
        predicted = torch.zeros_like(said)
        for part in (others, *np.array_split(np.random.default_rng(0).permutation(train), FOLDS)):
            rest = np.setdiff1d(train, part)
            weights, shift = ridge(x[rest], said[rest], SHRINKAGE)
            predicted[part] = x[part] @ weights + shift
        frequency = said[train].mean(0).clamp(min=LEAST)
        return dict(zip(images, ((predicted - frequency) / frequency.sqrt()).float().numpy(), strict=True))


def _unit(rows: Sequence[np.ndarray]) -> np.ndarray:
    x = np.stack(rows).astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _root(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x).mean())) or 1.0
