"""What embeddings of a knowledge graph are trained with, made for one or two CPU cores.

"softmax": cross entropy of the true answer against all entities, for every triple in both directions. Triples that
share a question share its row of scores: with k answers their losses add up to ``k logsumexp(s) - sum of s at the
answers``, which is the same sum at a fraction of the cost (FB15k-237: 150k rows in place of 544k). That a plain model
trained so is as good as newer ones: Ruffinelli et al. 2020, "You CAN Teach an Old Dog New Tricks!"; the cubic
regulariser N3 and reciprocal relations: Lacroix et al. 2018.

"negatives": self-adversarial negative sampling (Sun et al. 2019, RotatE, equation 5), with negatives shared by a step.

Shapes: N entities, D width, Q questions, T triples; in a step B questions with A answers, or B triples and K negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .embeddings import COMPLEX, DISTANCES, LinkPredictor
from .splits import Splits

SAFE = 60.0
"""Exponentials of scores up to here, on either side of zero, are far from the ends of both number formats."""


class Softmax:
    """Steps of cross entropy against all entities.

    Args:
        predictor: trained in place.
        splits: its train part is learned, in both directions.
        generator: draws the order.
    """

    def __init__(self, predictor: LinkPredictor, splits: Splits, generator: torch.Generator) -> None:
        self.predictor, self.config, self.generator = predictor, predictor.config, generator
        triples = both_directions(splits.train, len(splits.relations))
        n = len(splits.entities)
        order = np.lexsort((triples[:, 2], triples[:, 0], triples[:, 1]))
        key = triples[order, 1] * n + triples[order, 0]
        first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        self.offsets = torch.from_numpy(np.append(first, len(key)))
        self.heads, self.kinds = (torch.from_numpy(triples[order, i][first]) for i in (0, 1))
        self.places = candidates_of(predictor)
        self.answers = torch.from_numpy(triples[order, 2])
        self.buffer: Tensor | None = None
        # every triple weighs the same, however many share its step
        self.share = len(triples) * min(1.0, self.config.batch / len(self.heads))

    def __len__(self) -> int:
        return -(-len(self.heads) // self.config.batch)

    def losses(self) -> Iterator[Tensor]:
        """The loss of every step of one epoch."""
        order = torch.randperm(len(self.heads), generator=self.generator)
        for chosen in order.split(self.config.batch):
            yield self.loss(chosen)

    def loss(self, chosen: Tensor) -> Tensor:
        """The loss of some questions ``[B]``: the mean over their triples, up to what batches differ in size."""
        predictor, config = self.predictor, self.config
        begin, end = self.offsets[chosen], self.offsets[chosen + 1]
        count = end - begin
        rows = torch.repeat_interleave(torch.arange(len(chosen)), count)
        steps = torch.arange(len(rows)) - torch.repeat_interleave(count.cumsum(0) - count, count)
        answers = self.answers[torch.repeat_interleave(begin, count) + steps]
        heads, candidates, answers = self._vectors(self.heads[chosen], answers)
        kinds = self.kinds[chosen]
        questions = predictor.questions(heads, kinds)
        scale = config.scale or 1.0
        if config.model in DISTANCES:
            scores = scale * predictor.against(questions, candidates)
            loss = (scores.logsumexp(1) * count).sum() - scores[rows, answers].sum()
        else:
            questions = questions if scale == 1 else scale * questions
            loss = _Products.apply(
                questions, candidates, rows, answers, count, self._buffer(len(chosen), len(candidates))
            )
        if config.n3:
            relation = predictor.model.rel_emb(kinds)  # type: ignore[operator]
            if config.model in COMPLEX:
                relation = torch.cat([relation, predictor.model.rel_emb_im(kinds)], dim=1)  # type: ignore[operator]
            shared = (count * (self._cubes(heads) + self._cubes(relation))).sum()
            loss = loss + config.n3 * (shared + self._cubes(F.embedding(answers, candidates)).sum())
        return loss / self.share

    def _vectors(self, heads: Tensor, answers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of heads ``[B, D]`` and candidates ``[M, D]``, and the places of answers among the latter ``[A]``."""
        keep = dropped(self.predictor, self.generator)
        if self.config.candidates is None:
            table = self.predictor.table(keep)
            if self.places is None:
                return F.embedding(heads, table), table, answers
            return F.embedding(heads, table), table[self.places], torch.searchsorted(self.places, answers)
        pool = len(self.predictor.entities) if self.places is None else len(self.places)
        drawn = torch.randint(pool, (self.config.candidates,), generator=self.generator)
        against = torch.cat([drawn if self.places is None else self.places[drawn], answers]).unique()
        needed, place = torch.cat([against, heads]).unique(return_inverse=True)
        rows = self.predictor.table(keep, needed)
        candidates, ours = (F.embedding(some, rows) for some in (place[: len(against)], place[len(against) :]))
        return ours, candidates, torch.searchsorted(against, answers)

    def _buffer(self, questions: int, candidates: int) -> Tensor:
        dtype = torch.bfloat16 if self.config.bfloat16 else torch.float32
        if self.config.candidates is not None:
            return torch.empty(questions, candidates, dtype=dtype)
        if self.buffer is None:
            self.buffer = torch.empty(min(self.config.batch, len(self.heads)), candidates, dtype=dtype)
        return self.buffer

    def _cubes(self, x: Tensor) -> Tensor:
        """Sum of the cubes of the moduli, ``[B, D] -> [B]``."""
        if self.config.model not in COMPLEX:
            return x.abs().pow(3).sum(1)
        re, im = x.chunk(2, dim=1)
        squared = re * re + im * im
        return squared.pow(1.5).sum(1)


class _Products(torch.autograd.Function):
    """``sum_b (k_b logsumexp(s_b)) - sum of s at the answers`` for ``s = questions @ candidates.T``.

    Its gradient by the scores is ``k softmax(s) - answers``. Only the exponentials are made as a matrix ``[B, N]``, in
    a buffer that all steps share (new memory would cost more than the products); the rest is scaling of rows.
    """

    @staticmethod
    def forward(
        ctx: Any, questions: Tensor, candidates: Tensor, rows: Tensor, answers: Tensor, count: Tensor, buffer: Tensor
    ) -> Tensor:
        q, c = questions.to(buffer.dtype), candidates.to(buffer.dtype)
        scores = torch.mm(q, c.T, out=buffer[: len(q)])
        peak = scores.amax(1).float()
        if not (peak.abs() < SAFE).all():
            scores -= peak[:, None].to(scores.dtype)
        else:
            peak = torch.zeros_like(peak)
        total = scores.exp_().sum(1, dtype=torch.float32)
        true = (questions[rows] * candidates[answers]).sum(1)
        loss = (count * (total.log() + peak)).sum() - true.sum()
        share = count / total
        by_question = share[:, None] * (scores @ c).float()
        by_question.index_add_(0, rows, candidates[answers], alpha=-1)
        by_candidate = (scores.T @ (share[:, None] * questions).to(scores.dtype)).float()
        by_candidate.index_add_(0, answers, questions[rows], alpha=-1)
        ctx.save_for_backward(by_question, by_candidate)
        return loss

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        by_question, by_candidate = ctx.saved_tensors
        return outer * by_question, outer * by_candidate, None, None, None, None


class Negatives:
    """Steps of self-adversarial negative sampling; arguments as for :class:`Softmax`."""

    def __init__(self, predictor: LinkPredictor, splits: Splits, generator: torch.Generator) -> None:
        self.predictor, self.config, self.generator = predictor, predictor.config, generator
        self.triples = torch.from_numpy(both_directions(splits.train, len(splits.relations)))
        places = candidates_of(predictor)
        self.places = torch.arange(len(splits.entities)) if places is None else places

    def __len__(self) -> int:
        return -(-len(self.triples) // self.config.batch)

    def losses(self) -> Iterator[Tensor]:
        """The loss of every step of one epoch."""
        order = torch.randperm(len(self.triples), generator=self.generator)
        for chosen in order.split(self.config.batch):
            yield self.loss(chosen)

    def loss(self, chosen: Tensor) -> Tensor:
        """The loss of some triples ``[B]``, with new negatives ``[K]``."""
        predictor, config = self.predictor, self.config
        heads, kinds, tails = self.triples[chosen].T
        drawn = self.places[torch.randint(len(self.places), (config.negatives,), generator=self.generator)]
        table = predictor.table(dropped(predictor, self.generator))
        questions = predictor.questions(F.embedding(heads, table), kinds)
        true = F.embedding(tails, table)
        scale, margin = config.scale or 1.0, config.margin or 0.0
        if config.model in DISTANCES:
            positive = margin - scale * (questions - true).norm(dim=1)
        else:
            positive = margin + scale * (questions * true).sum(1)
        negative = margin + scale * predictor.against(questions, F.embedding(drawn, table))
        weight = (config.temperature * negative.detach()).softmax(1)
        return -(F.logsigmoid(positive) + (weight * F.logsigmoid(-negative)).sum(1)).mean() / 2


def both_directions(triples: NDArray[np.int64], relations: int) -> NDArray[np.int64]:
    """Triples and, after them, the same from tail to head with the reciprocal relation ``[2 T, 3]``."""
    turned = triples[:, ::-1] + np.array([0, relations, 0])
    return np.concatenate([triples, turned])


def candidates_of(predictor: LinkPredictor) -> Tensor | None:
    """Sorted places of the entities to tell the true one from; ``None`` for all.

    An entity that no triple of train holds is never the answer there. As a wrong candidate it would only be pushed
    away, and its features, which are all that is known of it, would learn to say so.
    """
    return None if predictor.seen is None else predictor.seen.nonzero()[:, 0]


def dropped(predictor: LinkPredictor, generator: torch.Generator) -> Tensor | None:
    """Which entities have their learned part in this step ``[N]``; ``None`` for all."""
    rate = predictor.config.feature_dropout
    if predictor.features is None or not rate:
        return None
    return (torch.rand(len(predictor.features), generator=generator) >= rate).float()
