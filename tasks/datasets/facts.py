"""What training says of a picture, as nodes: the other questions about it, with their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .official.parts import Question


class Facts:
    """The training questions about a picture with their answers, for the other questions about it.

    A fact is one node: the words of its question, the mean of its tokens, and a one for its answer, side by side, each
    scaled to a mean square of about one over the training part. What answers a question by a fact is the likeness of
    the two questions, which attention between them can learn; pooling each type apart cannot (memory networks:
    Sukhbaatar et al., NeurIPS 2015). Whatever part a question is in, facts are of the training part only, and never
    itself.

    Args:
        questions: of the training part.
        answers: the answer of each.
        words: question -> its words as a row, float32 ``[1, W]``.
        tokens: question -> its tokens ``[N, D]``, at least one.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        answers: Sequence[str],
        words: Callable[[str], np.ndarray],
        tokens: Mapping[str, np.ndarray],
    ) -> None:
        column = {answer: i for i, answer in enumerate(sorted(set(answers)))}
        said = np.eye(len(column), dtype=np.float32)[[column[answer] for answer in answers]]
        word = np.concatenate([words(question.question) for question in questions])
        token = np.stack([tokens[question.question].mean(0) for question in questions])
        deviation = token.std(0)
        token = (token - token.mean(0)) / np.where(deviation > 0, deviation, 1)
        root = np.sqrt(np.square(word).mean()) or 1
        self._rows = np.concatenate([word / root, token, said * len(column) ** 0.5], 1).astype(np.float32)
        self._at: dict[str, dict[str, int]] = {}
        for i, question in enumerate(questions):
            self._at.setdefault(question.image, {})[question.id] = i

    @property
    def width(self) -> int:
        return self._rows.shape[1]

    def of(self, question: Question) -> np.ndarray | None:
        """The facts about its picture but itself, float32 ``[N, width]``; None: there are none."""
        others = [i for name, i in self._at.get(question.image, {}).items() if name != question.id]
        return self._rows[others] if others else None
