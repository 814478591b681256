"""Retrieval across modalities: any modalities as the query, any others to be found, one space for all.

    from hetgraph.tasks import retrieval

    data = retrieval.load("tuxpaint", "TUXPAINT")
    model = retrieval.train(data)
    print(retrieval.evaluate(model, data)["recall@10 picture > english"])
    for found in retrieval.predict(model, data, query=("picture", "speech"), candidate=("english",))[:5]:
        print(found.title, found.found[0])

``docs/tasks/retrieval.md`` says how it is trained and what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ...errors import HetgraphError
from ...progress import TrainingBar
from ...sample import Sample
from ..datasets.retrieval import READERS, RetrievalData, load
from ..running import TaskSettings, summary
from .index import Index
from .learning import Training, make
from .linear import ordered
from .metrics import ranking
from .model import RetrievalModel
from .settings import LINEAR, RetrievalSettings, suggested

__all__ = [
    "DATA",
    "LINEAR",
    "Index",
    "RetrievalData",
    "RetrievalModel",
    "RetrievalSettings",
    "Retrieved",
    "TaskSettings",
    "evaluate",
    "load",
    "predict",
    "score",
    "suggested",
    "summary",
    "train",
]

DATA = tuple(READERS)
FEWEST = 20
"""Validation queries that a pair of modalities needs to count for the choice of an epoch."""
MOST = 10
Views = Sequence[str]


def train(
    data: RetrievalData,
    settings: RetrievalSettings | None = None,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> RetrievalModel:
    """A model for the data; its best epoch by the validation part, if there is one.

    What counts there is the mean average precision over all ordered pairs of modalities. The start, which is the
    closed-form maps alone, is a candidate too: training that helps nothing changes nothing.

    Args:
        data: what to train on.
        settings: default: what suits the data set.
        seed: of weights and training.
        folder: the model is saved here.
        progress: show a progress bar.

    Returns:
        The model; ``model.history`` has the loss and validation score of every epoch, that of the start, and which
        epoch was best (-1: the start).

    Raises:
        HetgraphError: impossible settings, bad samples, or a loss that is not finite.
    """
    s = settings or suggested(data.name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make(data, s)
        if model.fusion is not None:
            training = Training(model, data, s, seed)
            valid = data.valid

            def validation(now: RetrievalModel) -> float:
                return _mean_map(now, data, valid or ())

            with TrainingBar(progress, s.training.epochs, training.steps) as bar:
                model.history = training.run(bar, validation if valid else None)
    if folder is not None:
        model.save_pretrained(folder)
    return model.eval()


@dataclass(frozen=True)
class Retrieved:
    """A query with what was found.

    Attributes:
        id, title: of the sample that asks.
        query, candidate: by which modalities it asks, and is found.
        found: the best candidates: id, title, score, and whether it is right.
        rank: place of the best right candidate, from 1; 0 if there is none among all.
    """

    id: str
    title: str
    query: tuple[str, ...]
    candidate: tuple[str, ...]
    found: tuple[tuple[str, str, float, bool], ...]
    rank: int

    def to_json(self) -> dict[str, Any]:
        rows = [{"id": i, "title": t, "score": round(s, 5), "right": r} for i, t, s, r in self.found]
        return {
            "id": self.id,
            "title": self.title,
            "query": list(self.query),
            "candidate": list(self.candidate),
            "rank": self.rank,
            "found": rows,
        }


def predict(
    model: RetrievalModel,
    data: RetrievalData,
    samples: Sequence[Sample] | None = None,
    *,
    query: Views | None = None,
    candidate: Views | None = None,
    most: int = MOST,
) -> list[Retrieved]:
    """Ask by some modalities of the samples for some modalities of the same samples.

    Args:
        model: trained by :func:`train`.
        data: where the samples are from.
        samples: which; default: the test part. One of every group is taken.
        query, candidate: modalities; default: the first, and the second.
        most: candidates to give.

    Raises:
        HetgraphError: an unknown modality, the same one on both sides, or nobody has it.
    """
    names = list(data.views)
    query, candidate = tuple(query or names[:1]), tuple(candidate or names[1:2])
    asking, offered = _both(data, data.test if samples is None else samples, query, candidate)
    scores, right = _compared(model, data, asking, offered, query, candidate)
    out = []
    for sample, row, fits in zip(asking, scores, right, strict=True):
        order = row.argsort(descending=True, stable=True).tolist()
        hits = [place for place, i in enumerate(order) if bool(fits[i])]
        best = [(str(offered[i].id), _title(data, offered[i]), float(row[i]), bool(fits[i])) for i in order[:most]]
        rank = hits[0] + 1 if hits else 0
        out.append(Retrieved(str(sample.id), _title(data, sample), query, candidate, tuple(best), rank))
    return out


def evaluate(
    model: RetrievalModel,
    data: RetrievalData,
    samples: Sequence[Sample] | None = None,
    *,
    pairs: Sequence[tuple[Views, Views]] | None = None,
) -> dict[str, float]:
    """Scores of every pair of query and candidate modalities over the test part, or ``samples``.

    Args:
        pairs: which; default: :func:`all_pairs`.

    Returns:
        ``map``, ``recall@1``, ``recall@5``, ``recall@10``, ``median_rank`` and ``queries`` of each pair, as
        ``"recall@10 picture + speech > english"``, and ``map``: the mean over pairs of single modalities with at
        least :data:`FEWEST` queries.

    Raises:
        HetgraphError: as for :func:`predict`.
    """
    chosen = data.test if samples is None else samples
    cache: dict[tuple[str, ...], tuple[list[Sample], Tensor]] = {}

    def compare(query: Views, candidate: Views) -> dict[str, float] | None:
        asking, offered = _both(data, chosen, query, candidate, strict=pairs is not None)
        right = _right(data, asking, offered)
        if not bool(right.any()):
            return None
        for views, some in ((tuple(query), asking), (tuple(candidate), offered)):
            if views not in cache:
                cache[views] = (some, model.vectors(some, views))
        scores = cache[tuple(query)][1] @ cache[tuple(candidate)][1].T
        return score(scores, right)

    out: dict[str, float] = {}
    singles = []
    for query, candidate in all_pairs(data) if pairs is None else pairs:
        found = compare(query, candidate)
        if found is None:
            continue
        out |= {f"{metric} {pair_name(query, candidate)}": value for metric, value in found.items()}
        if len(query) == len(candidate) == 1 and found["queries"] >= FEWEST:
            singles.append(found["map"])
    return ({"map": fmean(singles)} if singles else {}) | out


def score(scores: Tensor, right: Tensor) -> dict[str, float]:
    """:func:`.metrics.ranking` over the queries that have anything right among the candidates."""
    able = right.any(1)
    return ranking(scores[able], right[able])


def all_pairs(data: RetrievalData) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """All ordered pairs of two modalities; then all pairs of modalities as the query for each other one."""
    names = list(data.views)
    out: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((a,), (b,)) for a, b in ordered(names)]
    for one in names:
        out += [(pair, (one,)) for pair in combinations([name for name in names if name != one], 2)]
    return out


def pair_name(query: Views, candidate: Views) -> str:
    """``picture + speech > english``."""
    return f"{' + '.join(query)} > {' + '.join(candidate)}"


def _mean_map(model: RetrievalModel, data: RetrievalData, samples: Sequence[Sample]) -> float:
    found = evaluate(model, data, samples, pairs=_answerable(data, samples))
    if "map" not in found:
        raise HetgraphError(f"{data.name}: the validation part has fewer than {FEWEST} samples of any two modalities")
    return found["map"]


def _answerable(data: RetrievalData, samples: Sequence[Sample]) -> list[tuple[Views, Views]]:
    """The ordered pairs of modalities that enough samples have."""
    asked = data.asked(samples)
    count = {view: sum(data.has(sample, view) for sample in asked) for view in data.views}
    return [((a,), (b,)) for a, b in ordered(list(data.views)) if min(count[a], count[b]) >= FEWEST]


def _both(
    data: RetrievalData, samples: Sequence[Sample], query: Views, candidate: Views, strict: bool = True
) -> tuple[list[Sample], list[Sample]]:
    """Who asks, and who is there to be found."""
    if unknown := [view for view in (*query, *candidate) if view not in data.views]:
        raise HetgraphError(f"{data.name}: no modality {unknown[0]!r}; known: {', '.join(data.views)}")
    if shared := sorted(set(query) & set(candidate)):
        raise HetgraphError(f"{data.name}: {shared[0]!r} is on both sides; query and candidate must differ")
    asked = data.asked(samples)
    asking, offered = ([s for s in asked if all(data.has(s, v) for v in views)] for views in (query, candidate))
    if strict and (not asking or not offered):
        raise HetgraphError(f"{data.name}: no sample for {pair_name(query, candidate)}")
    return asking, offered


def _compared(
    model: RetrievalModel,
    data: RetrievalData,
    asking: Sequence[Sample],
    offered: Sequence[Sample],
    query: Views,
    candidate: Views,
) -> tuple[Tensor, Tensor]:
    scores = model.vectors(asking, query) @ model.vectors(offered, candidate).T
    return scores, _right(data, asking, offered)


def _right(data: RetrievalData, asking: Sequence[Sample], offered: Sequence[Sample]) -> Tensor:
    """What has the same key, bool ``[Q, N]``."""
    keys, others = data.keys(asking), data.keys(offered)
    place: Mapping[str, int] = {key: i for i, key in enumerate(dict.fromkeys([*keys, *others]))}
    one = torch.tensor([place[key] for key in keys])
    return one[:, None] == torch.tensor([place[key] for key in others])


def _title(data: RetrievalData, sample: Sample) -> str:
    return str(data.about.get(str(sample.id), {}).get("title", sample.id))
