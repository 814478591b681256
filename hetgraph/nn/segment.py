"""Operations over rows that share a number."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_softmax(score: Tensor, segment: Tensor, count: int) -> Tensor:
    """Softmax of ``score [N, H]`` over the rows that share a ``segment`` (int64 ``[N]``, below ``count``)."""
    at = segment[:, None].expand_as(score)
    top = score.detach().new_full((count, score.shape[1]), -torch.inf).scatter_reduce(0, at, score.detach(), "amax")
    raised = (score - top[segment]).exp()
    total = raised.new_zeros(count, score.shape[1]).index_add(0, segment, raised)
    return raised / total[segment]
