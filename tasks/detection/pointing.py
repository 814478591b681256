"""The loss of phrase grounding: which of a sample's regions is meant.

Shapes: R regions of several samples one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import HetgraphError
from ...objectives import Objective
from ...sample import as_tensor


@dataclass(frozen=True)
class Pointing(Objective):
    """A score per region, a softmax over the regions of a sample, cross-entropy with the share of each that is right.

    A target has a row per region: 1 for the first region of a sample, else 0; and its intersection over union with
    what is meant. Right are the regions with at least ``overlap``, in equal shares; where none is, the best one.

    Args:
        overlap: from which on a region counts as right.
    """

    overlap: float = 0.5
    main: ClassVar[str] = "accuracy"
    larger: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return 1

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        rows = [as_tensor(t, f"sample {name!r}: target").float() for t, name in zip(targets, ids, strict=True)]
        for row, name in zip(rows, ids, strict=True):
            if row.dim() != 2 or row.shape[1] != 2:
                raise HetgraphError(f"sample {name!r}: expected rows of two numbers, got a target {list(row.shape)}")
        return torch.cat(rows)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """``[R]``; a sample's rows sum up to its cross-entropy times the number of its regions."""
        segment = target[:, 0].long().cumsum(0) - 1
        count = torch.bincount(segment)
        right = (target[:, 1] >= self.overlap).float()
        best = target.new_zeros(len(count)).scatter_reduce(0, segment, target[:, 1], "amax")[segment]
        right = torch.where(best >= self.overlap, right, (target[:, 1] == best).float())
        share = right / torch.zeros_like(best[: len(count)]).index_add(0, segment, right)[segment]
        return -share * log_softmax(scores.squeeze(-1), segment) * count[segment]

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        starts = target[:, 0].nonzero().flatten().tolist()
        hits = [
            bool(target[start + int(scores[start:end, 0].argmax()), 1] >= self.overlap)
            for start, end in zip(starts, [*starts[1:], len(target)], strict=True)
        ]
        return {"accuracy": sum(hits) / len(hits), "loss": float(self.losses(scores, target).mean())}

    def decode(self, scores: Tensor) -> list[float]:
        return scores.squeeze(-1).tolist()


def log_softmax(score: Tensor, segment: Tensor) -> Tensor:
    """Within each segment, ``[R], int64 [R] -> [R]``; the segments are 0 .. n-1."""
    count = int(segment[-1]) + 1 if len(segment) else 0
    top = torch.full((count,), -torch.inf, device=score.device, dtype=score.dtype)
    top = top.scatter_reduce(0, segment, score.detach(), "amax")
    moved = score - top[segment]
    total = torch.zeros(count, device=score.device, dtype=score.dtype).index_add(0, segment, moved.exp())
    return moved - total.log()[segment]
