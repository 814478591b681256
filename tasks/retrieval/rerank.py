"""Second stage: query and candidate in one graph, with edges between them, and a score for how they fit.

Shapes: Q queries, k candidates of each, N candidates in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ...fusion import Fusion
from ...graph import Graph
from ...pretrained import Pretrained, Rules, schema_of
from ...progress import TrainingBar
from ...sample import Sample
from ...schema import Schema
from ...thinning import mix
from ..datasets.retrieval import RetrievalData
from . import _both, _compared, _right, score
from .model import RetrievalModel, restricted
from .settings import LINEAR, RetrievalSettings, suggested

WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Of the second stage beside the first, to choose from on the validation part; 0: it is not used."""


class Reranker(Pretrained, library_name="hetgraph", tags=["multimodal", "graph", "retrieval"]):
    """``log-odds = w . gelu(W Z)`` with the Z of the joint graph of a query and a candidate.

    Args:
        schema: of the samples; its edges between node types connect query and candidate.
        fusion: settings of :class:`~hetgraph.fusion.Fusion`.
        weight: of the log-odds beside the score of the first stage.
    """

    def __init__(self, schema: Schema, fusion: Mapping[str, Any], weight: float = 0.0) -> None:
        super().__init__()
        self.schema, self.weight = schema, weight
        self.fusion = Fusion(schema, **fusion)
        width = self.fusion.width
        drop = float(self.fusion.settings["dropout"])
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(drop), nn.Linear(width, 1))

    def forward(self, graph: Graph, backend: str = "auto") -> Tensor:
        """Log-odds ``[B]`` of B joint graphs."""
        return self.head(self.fusion(graph, backend).z).squeeze(1)

    @torch.inference_mode()
    def scores(self, queries: Sequence[Sample], candidates: Sequence[Sample], *, batch_size: int = 128) -> Tensor:
        """Log-odds of pairs, ``[P]``, on the CPU; both sides restricted to their modalities already."""
        builder, device, training = GraphBuilder(self.schema), next(self.parameters()).device, self.training
        self.eval()
        pairs = [joint(q, c) for q, c in zip(queries, candidates, strict=True)]
        parts = [
            self(builder(pairs[i : i + batch_size]).to(device)).float().cpu() for i in range(0, len(pairs), batch_size)
        ]
        self.train(training)
        return torch.cat(parts) if parts else torch.zeros(0)

    def to_config(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_json(),
            "fingerprint": self.schema.fingerprint,
            "fusion": self.fusion.settings,
            "weight": self.weight,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> Reranker:
        return cls(schema_of(config, rules), config["fusion"], config["weight"])


def joint(query: Sample, candidate: Sample) -> Sample:
    """One sample with the nodes of both.

    Raises:
        HetgraphError: both have nodes of one type.
    """
    if shared := sorted(set(query.nodes) & set(candidate.nodes)):
        raise HetgraphError(f"query {query.id!r} and candidate {candidate.id!r} both have the node type {shared[0]!r}")
    out = Sample(id=f"{query.id} > {candidate.id}")
    out.nodes = {**query.nodes, **candidate.nodes}
    out.edges = {**query.edges, **candidate.edges}
    return out


@dataclass
class Reranked:
    """A re-ranker with what it changed on the validation part: the metrics of the first stage and of both."""

    model: Reranker
    first: dict[str, float]
    both: dict[str, float]
    loss: list[float] = field(default_factory=list)


def train_reranker(
    first: RetrievalModel,
    data: RetrievalData,
    query: Sequence[str],
    candidate: Sequence[str],
    settings: RetrievalSettings | None = None,
    *,
    seed: int = 0,
    negatives: int = 7,
    top: int = 20,
    progress: bool = True,
) -> Reranked:
    """Train on the mistakes of the first stage: each query, one right candidate, and wrong ones it ranks high.

    The loss is the cross-entropy of the right one among them. The first stage knows its training part better than
    others, so the negatives are drawn from its first ``4 * top`` and not only from the very first ones. The weight
    beside the first stage is the best of :data:`WEIGHTS` by the mean average precision on the validation part.

    Args:
        first: the first stage, trained.
        data: what to train on; it needs a validation part.
        query, candidate: modalities.
        settings: of the fusion and its training; default: what suits the data set.
        seed: of weights and training.
        negatives: wrong candidates for each query.
        top: candidates that are ranked again.
        progress: show a progress bar.

    Raises:
        HetgraphError: no validation part, or impossible settings.
    """
    s = settings or suggested(data.name)
    if not data.valid or s.method == LINEAR or min(negatives, top) < 1:
        raise HetgraphError("a re-ranker needs a validation part, a fusion method, and at least one negative")
    asking, offered = _both(data, data.train, query, candidate)
    scores, right = _compared(first, data, asking, offered, query, candidate)
    order = scores.masked_fill(right, -torch.inf).argsort(descending=True, stable=True, dim=1)
    hard = order[:, : min(4 * top, len(offered) - int(right.sum(1).max()))]
    able = right.any(1).nonzero().squeeze(1)
    if not hard.shape[1] or not len(able):
        raise HetgraphError(f"{data.name}: no wrong candidates to learn from")
    ask = [restricted(sample, data.views, query) for sample in asking]
    offer = [restricted(sample, data.views, candidate) for sample in offered]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        options = {"width": s.width, "layers": s.layers, "heads": s.heads, "method": s.method, "dropout": s.dropout}
        model = Reranker(data.schema, options)
        if data.standardize:
            model.fusion.standardize([GraphBuilder(data.schema)([*ask, *offer])])
        out = Reranked(model, {}, {})
        _learn(out, s, seed, ask, offer, right, hard, able, negatives, progress)
    model.eval()
    _weigh(out, first, data, query, candidate, top)
    return out


def _learn(
    out: Reranked,
    s: RetrievalSettings,
    seed: int,
    ask: Sequence[Sample],
    offer: Sequence[Sample],
    right: Tensor,
    hard: Tensor,
    able: Tensor,
    negatives: int,
    progress: bool,
) -> None:
    t, model = s.training, out.model
    builder, device = GraphBuilder(model.schema), next(model.parameters()).device
    size = max(1, t.batch_size // 4)
    steps = math.ceil(len(able) / size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=t.lr, weight_decay=t.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, t.lr, total_steps=t.epochs * steps + 1)
    with TrainingBar(progress, t.epochs, steps) as bar:
        for epoch in range(t.epochs):
            draw = torch.Generator().manual_seed(mix(seed, epoch, 2))
            order = able[torch.randperm(len(able), generator=draw)]
            total = 0.0
            for step, chosen in enumerate(order.split(size)):
                pairs = []
                for i in chosen.tolist():
                    fits = right[i].nonzero().squeeze(1)
                    best = int(fits[int(torch.randint(len(fits), (), generator=draw))])
                    wrong = hard[i][torch.randint(hard.shape[1], (negatives,), generator=draw)].tolist()
                    pairs += [joint(ask[i], offer[j]) for j in (best, *wrong)]
                logits = model(builder(pairs).to(device)).view(len(chosen), negatives + 1)
                loss = nn.functional.cross_entropy(logits, torch.zeros(len(chosen), dtype=torch.long, device=device))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), t.clip or math.inf)
                optimizer.step()
                schedule.step()
                total += loss.item()
                bar.step(epoch, total / (step + 1), {})
            out.loss.append(total / steps)


def rerank(
    model: Reranker,
    queries: Sequence[Sample],
    candidates: Sequence[Sample],
    scores: Tensor,
    top: int,
    weight: float | None = None,
) -> Tensor:
    """Scores ``[Q, N]`` in which the first ``top`` of every query are put in a new order; nothing else changes.

    The log-odds are centred over the ``top`` of a query, weighed and added to their scores; the new order of these
    takes the places of the old one.

    Args:
        model: the second stage.
        queries, candidates: restricted to their modalities.
        scores: of the first stage, ``[Q, N]``.
        top: how many are looked at again.
        weight: other than the model's.
    """
    share = model.weight if weight is None else weight
    count = min(top, scores.shape[1])
    if not share or not count:
        return scores
    best = scores.topk(count, dim=1)
    asked = [query for query in queries for _ in range(count)]
    found = [candidates[j] for row in best.indices.tolist() for j in row]
    return _placed(scores, best.values, best.indices, model.scores(asked, found).view(-1, count), share)


def _placed(scores: Tensor, values: Tensor, places: Tensor, odds: Tensor, share: float) -> Tensor:
    """The old scores of the first few dealt out in the order of the new ones."""
    new = values + share * (odds - odds.mean(1, keepdim=True))
    order = new.argsort(descending=True, stable=True, dim=1)
    return scores.scatter(1, places.gather(1, order), values)


def _weigh(
    out: Reranked,
    first: RetrievalModel,
    data: RetrievalData,
    query: Sequence[str],
    candidate: Sequence[str],
    top: int,
) -> None:
    """Choose the weight on the validation part, and note what it gains there."""
    asking, offered = _both(data, data.valid or (), query, candidate)
    scores, right = _compared(first, data, asking, offered, query, candidate)
    ask, offer = (
        [restricted(sample, data.views, views) for sample in some]
        for some, views in ((asking, query), (offered, candidate))
    )
    count = min(top, scores.shape[1])
    best = scores.topk(count, dim=1)
    odds = out.model.scores(
        [one for one in ask for _ in range(count)], [offer[j] for row in best.indices.tolist() for j in row]
    ).view(-1, count)
    tried = {w: score(_placed(scores, best.values, best.indices, odds, w) if w else scores, right) for w in WEIGHTS}
    out.model.weight = max(WEIGHTS, key=lambda w: (tried[w]["map"], -w))
    out.first, out.both = tried[0.0], tried[out.model.weight]


def evaluate_reranked(
    model: Reranker,
    first: RetrievalModel,
    data: RetrievalData,
    query: Sequence[str],
    candidate: Sequence[str],
    samples: Sequence[Sample] | None = None,
    *,
    top: int = 20,
) -> dict[str, float]:
    """Metrics of both stages over the test part, or ``samples``."""
    asking, offered = _both(data, data.test if samples is None else samples, query, candidate)
    scores, _ = _compared(first, data, asking, offered, query, candidate)
    ask = [restricted(sample, data.views, query) for sample in asking]
    offer = [restricted(sample, data.views, candidate) for sample in offered]
    return score(rerank(model, ask, offer, scores, top), _right(data, asking, offered))
