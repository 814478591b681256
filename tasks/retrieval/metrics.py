"""How good a ranking is. Shapes: Q queries, N candidates; ``scores`` and ``right`` are ``[Q, N]``.

Ties are broken against the model: of equal scores what is wrong comes first. A model that scores everything alike gets
the worst ranking and not a lucky one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import HetgraphError

RECALL = (1, 5, 10)


def ranked(scores: Tensor, right: Tensor) -> Tensor:
    """What is right in the order of the scores, bool ``[Q, N]``.

    Raises:
        HetgraphError: shapes that do not fit, scores that are not finite, or a query without anything right.
    """
    if scores.dim() != 2 or scores.shape != right.shape or right.dtype != torch.bool:
        raise HetgraphError(
            f"expected scores and bool [queries, candidates], got {list(scores.shape)} and {right.dtype} "
            f"{list(right.shape)}"
        )
    if not bool(scores.isfinite().all()):
        raise HetgraphError("scores must be finite")
    if not scores.numel() or not bool(right.any(1).all()):
        raise HetgraphError("a query has no right candidate")
    # two stable sorts: what is wrong first, then by score
    first = right.to(torch.int8).argsort(dim=1, stable=True)
    order = first.gather(1, scores.gather(1, first).argsort(dim=1, descending=True, stable=True))
    return right.gather(1, order)


def average_precision(scores: Tensor, right: Tensor) -> Tensor:
    """Mean of the precision at every right candidate, over the whole ranking, float64 ``[Q]``."""
    hits = ranked(scores, right).double()
    precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    return (precision * hits).sum(1) / hits.sum(1)


def first_rank(scores: Tensor, right: Tensor) -> Tensor:
    """Place of the best right candidate, from 1, int64 ``[Q]``."""
    return ranked(scores, right).to(torch.int8).argmax(1) + 1


def ranking(scores: Tensor, right: Tensor, recall: Sequence[int] = RECALL) -> dict[str, float]:
    """``map``, ``recall@k`` (share of queries with something right among the first k), ``median_rank``, ``queries``,
    ``candidates``."""
    rank = first_rank(scores, right)
    out = {"map": float(average_precision(scores, right).mean())}
    out |= {f"recall@{k}": float((rank <= k).double().mean()) for k in recall}
    # the mean of the middle two, as numpy does
    out["median_rank"] = float(rank.double().quantile(0.5))
    return out | {"queries": float(len(scores)), "candidates": float(scores.shape[1])}
