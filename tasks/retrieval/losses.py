"""Contrastive losses. Shapes: B anchors, M others, D width of the shared space; rows have length one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import HetgraphError


def contrastive(
    anchors: Tensor, others: Tensor, positive: Tensor, scale: Tensor | float, hardness: float = 0.0
) -> Tensor:
    """InfoNCE with any number of positives, ``[B]``.

    ::

        s_ij = scale * a_i . o_j
        l_i  = mean over p in P(i) of  log( sum_P exp(s_ip) + sum_N w_ij exp(s_ij) ) - s_ip

    One positive is InfoNCE (van den Oord et al., 2018); several are supervised contrastive learning (Khosla et al.,
    NeurIPS 2020, the sum outside of the logarithm). With ``hardness`` b the negatives N are weighted by
    ``w_ij ~ exp(b a_i . o_j)``, their mean being 1 (Robinson et al., ICLR 2021, equation 4 without the correction for
    false negatives); the weights have no gradient.

    Args:
        anchors, others: ``[B, D]``, ``[M, D]``.
        positive: bool ``[B, M]``.
        scale: inverse temperature.
        hardness: 0: all negatives count alike.

    Raises:
        HetgraphError: an anchor without a positive.
    """
    if not bool(positive.any(1).all()):
        raise HetgraphError("an anchor has no positive")
    cosine = anchors @ others.T
    logits = cosine * scale
    weighted = logits
    if hardness:
        negative = ~positive
        weight = (hardness * cosine.detach()).masked_fill(positive, -torch.inf).log_softmax(1)
        weight = weight + negative.sum(1, keepdim=True).clamp(min=1).log()
        weighted = torch.where(negative, logits + weight, logits)
    total = weighted.logsumexp(1, keepdim=True)
    return ((total - logits) * positive).sum(1) / positive.sum(1)


def symmetric(
    a: Tensor,
    b: Tensor,
    positive: Tensor,
    scale: Tensor | float,
    hardness: float = 0.0,
    more: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean of :func:`contrastive` from a to b and back.

    Args:
        a, b: two sides of the same B items.
        positive: bool ``[B, B]``, symmetric.
        more: further others, ``[M, D]``, with bool ``[B, M]``: which of them are positives.
    """
    forth, back, right = b, a, positive
    if more is not None:
        forth, back = torch.cat([b, more[0]]), torch.cat([a, more[0]])
        right = torch.cat([positive, more[1]], 1)
    one = contrastive(a, forth, right, scale, hardness)
    return (one + contrastive(b, back, right, scale, hardness)).mean() / 2


@dataclass
class Queue:
    """The last embeddings of earlier batches, as further negatives for small ones.

    The memory of MoCo (He et al., CVPR 2020) with embeddings of the model itself, as in XBM (Wang et al., CVPR 2020).

    Args:
        size: embeddings kept, 0: none.
    """

    size: int
    rows: Tensor | None = field(default=None, repr=False)
    keys: Tensor | None = field(default=None, repr=False)

    def add(self, rows: Tensor, keys: Tensor) -> None:
        """Take in ``[B, D]`` with their keys, int64 ``[B]``; the oldest go."""
        if not self.size:
            return
        rows = rows.detach()
        self.rows = (rows if self.rows is None else torch.cat([self.rows, rows]))[-self.size :]
        self.keys = (keys if self.keys is None else torch.cat([self.keys, keys]))[-self.size :]

    def others(self, keys: Tensor) -> tuple[Tensor, Tensor] | None:
        """What is kept, and which of it has the keys ``[B]`` (positives); None while it is empty."""
        if self.rows is None or self.keys is None:
            return None
        return self.rows, keys[:, None] == self.keys
