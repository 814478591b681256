"""How well a model completes triples: filtered ranks on both sides, ties at their mean.

For a triple (h, r, t) the model scores every entity in the place of t, and every entity in the place of h. The rank of
the true one is 1 + those above + half of those level with it: what a random order of the level ones gives in the
mean, so that a model that scores everything alike is no better than chance (Sun et al. 2020, "A Re-evaluation of
Knowledge Graph Completion Methods"). Filtered: other answers known to be true do not count (Bordes et al. 2013).

Shapes: N entities, R relations, T triples, B triples of one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import KnowledgeError

Scorer = Callable[[Tensor, Tensor, str], Tensor]
"""Entities ``[B]``, relations ``[B]`` and the side asked for -> scores of every entity ``[B, N]``. With ``"tail"`` the
given entities are heads, with ``"head"`` they are tails."""

SIDES = ("tail", "head")
HITS = (1, 3, 10)


@dataclass(frozen=True)
class Ranks:
    """The rank of the true entity, for every triple and side.

    Args:
        tail, head: float64 ``[T]``, from 1 (best); halves where there are ties.
    """

    tail: NDArray[np.float64]
    head: NDArray[np.float64]

    def metrics(self) -> dict[str, float]:
        """Mean reciprocal rank ``mrr``, ``hits@1``, ``hits@3``, ``hits@10`` and ``mean_rank``, over both sides.

        A rank counts as a hit at k if it is at most k.
        """
        both = np.concatenate([self.tail, self.head])
        hits = {f"hits@{k}": float((both <= k).mean()) for k in HITS}
        return {"mrr": float((1 / both).mean()), **hits, "mean_rank": float(both.mean())}


class Answers:
    """The entities known to complete a pair of an entity and a relation.

    Args:
        triples: integers ``[T, 3]``.
        num_entities: N.
    """

    def __init__(self, triples: NDArray[np.int64], num_entities: int) -> None:
        self._n = num_entities
        self._keys: dict[str, NDArray[np.int64]] = {}
        self._found: dict[str, NDArray[np.int64]] = {}
        for side, given, asked in (("tail", 0, 2), ("head", 2, 0)):
            key = triples[:, 1] * num_entities + triples[:, given]
            both = np.unique(np.stack([key, triples[:, asked]], axis=1), axis=0)
            self._keys[side], self._found[side] = both[:, 0].copy(), both[:, 1].copy()

    def __call__(
        self, given: NDArray[np.int64], relations: NDArray[np.int64], side: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All answers to B questions: rows int64 ``[A]`` (which question) and entities int64 ``[A]``."""
        key = relations * self._n + given
        first, last = (np.searchsorted(self._keys[side], key, side=end) for end in ("left", "right"))
        count = last - first
        rows = np.repeat(np.arange(len(key)), count)
        # the places first .. last of every question, one after the other
        steps = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        return rows, self._found[side][np.repeat(first, count) + steps]


def rank_triples(
    scorer: Scorer,
    triples: NDArray[np.int64],
    num_entities: int,
    *,
    known: NDArray[np.int64] | None = None,
    memory: int = 1 << 26,
) -> Ranks:
    """Rank the true entity among all, on both sides of every triple.

    Args:
        scorer: the model.
        triples: integers ``[T, 3]``.
        num_entities: N.
        known: integers ``[K, 3]``, answers that are left out beside the true one; ``None`` ranks without a filter.
        memory: bytes that the scores of one step may take (at least one triple is scored at a time).

    Raises:
        KnowledgeError: no triples, scores of another shape, or scores that are not numbers.
    """
    triples = np.asarray(triples, np.int64)
    if triples.ndim != 2 or triples.shape[1] != 3 or not len(triples):
        raise KnowledgeError(f"triples to rank: expected integers [T, 3] with T > 0, got {list(triples.shape)}")
    answers = None if known is None else Answers(np.asarray(known, np.int64).reshape(-1, 3), num_entities)
    step = max(1, memory // (4 * num_entities))
    found: dict[str, list[NDArray[np.float64]]] = {side: [] for side in SIDES}
    for first in range(0, len(triples), step):
        heads, relations, tails = triples[first : first + step].T
        for side, given, true in (("tail", heads, tails), ("head", tails, heads)):
            scores = scorer(torch.from_numpy(given.copy()), torch.from_numpy(relations.copy()), side).detach()
            if scores.shape != (len(given), num_entities):
                raise KnowledgeError(f"scores: expected [{len(given)}, {num_entities}], got {list(scores.shape)}")
            if scores.isnan().any():
                raise KnowledgeError(f"scores of {side}s are not numbers; the model has diverged")
            place = torch.from_numpy(true.copy()).to(scores.device)
            others = None if answers is None else answers(given, relations, side)
            found[side].append(_ranks(scores, place, others))
    return Ranks(**{side: np.concatenate(parts) for side, parts in found.items()})


def _ranks(
    scores: Tensor, true: Tensor, others: tuple[NDArray[np.int64], NDArray[np.int64]] | None
) -> NDArray[np.float64]:
    """Ranks ``[B]`` of entities ``true [B]`` in ``scores [B, N]``, without the answers ``others``.

    Counts among all entities less the counts among the others: nothing is written into the scores, and a score of
    minus infinity is a score like any other.
    """
    own = scores.gather(1, true[:, None])
    above = (scores > own).sum(1)
    level = (scores == own).sum(1) - 1
    if others is not None:
        rows, entities = (torch.from_numpy(part).to(scores.device) for part in others)
        other = entities != true[rows]
        rows, entities = rows[other], entities[other]
        theirs, mine = scores[rows, entities], own[rows, 0]
        above -= torch.bincount(rows[theirs > mine], minlength=len(true))
        level -= torch.bincount(rows[theirs == mine], minlength=len(true))
    return (1 + above + level / 2).double().cpu().numpy()


def frequency_scorer(train: NDArray[np.int64], num_entities: int) -> Scorer:
    """The floor under every model: how often an entity is the answer to this relation in the train part.

    Args:
        train: integers ``[T, 3]``.
        num_entities: N.
    """
    relations = int(train[:, 1].max()) + 1
    counts = {}
    for side, asked in (("tail", 2), ("head", 0)):
        places = np.unique(train[:, 1] * num_entities + train[:, asked], return_counts=True)
        counts[side] = places

    def score(given: Tensor, asked: Tensor, side: str) -> Tensor:
        keys, values = counts[side]
        kinds, row = torch.unique(asked, return_inverse=True)
        table = torch.zeros(len(kinds), num_entities)
        for i, kind in enumerate(kinds.tolist()):
            if kind < relations:
                first, last = np.searchsorted(keys, [kind * num_entities, (kind + 1) * num_entities])
                table[i, keys[first:last] - kind * num_entities] = torch.from_numpy(values[first:last]).float()
        return table[row]

    return score
