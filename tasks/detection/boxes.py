"""Boxes: overlap, generalised overlap, offsets from a region, suppression of duplicates.

A box is x1, y1, x2, y2 with y pointing down, in any unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 4.0
"""Largest predicted logarithm of a size ratio; beyond it the exponential says nothing and may overflow."""


def areas(box: Tensor) -> Tensor:
    """``[..., 4] -> [...]``; a box whose sides are in the wrong order has none."""
    return (box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, ``[..., 4], [..., 4] -> [...]`` (broadcasting); 0 where neither has an area."""
    shared = _shared(a, b)
    union = areas(a) + areas(b) - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def _shared(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union, from -1 to 1: ``[..., 4], [..., 4] -> [...]`` (broadcasting).

    ``IoU - (|C| - |A u B|) / |C|`` with C the smallest box around both (Rezatofighi et al., CVPR 2019, algorithm 1):
    it still has a gradient where boxes do not touch.
    """
    shared = _shared(a, b)
    least = torch.finfo(shared.dtype).eps
    union = (areas(a) + areas(b) - shared).clamp(min=least)
    around = torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1)
    hull = areas(around).clamp(min=least)
    return shared / union - (hull - union) / hull


def encode(box: Tensor, region: Tensor) -> Tensor:
    """Boxes as offsets from regions (R-CNN, Girshick et al., CVPR 2014, appendix C), all ``[..., 4]``.

    ``(x - x_r) / w_r, (y - y_r) / h_r, log(w / w_r), log(h / h_r)``, with x and y of the centres.
    """
    (centre, size), (own, wide) = _centred(box), _centred(region)
    return torch.cat([(centre - own) / wide, (size / wide).log()], -1)


def decode(offset: Tensor, region: Tensor) -> Tensor:
    """The inverse of :func:`encode`, but for sizes beyond ``exp(LARGEST)`` times the region's."""
    own, wide = _centred(region)
    centre, half = own + offset[..., :2] * wide, wide * offset[..., 2:].clamp(max=LARGEST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def _centred(box: Tensor) -> tuple[Tensor, Tensor]:
    return (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]


def suppress(box: Tensor, score: Tensor, label: Tensor, most_overlap: float) -> Tensor:
    """Greedy non-maximum suppression within each class: the places that stay, best first, int64 ``[K]``.

    A box goes if a better one of its class, that stays, overlaps it by more than ``most_overlap``; of equal scores
    the first is the better.

    Args:
        box: ``[N, 4]``.
        score: ``[N]``.
        label: int64 ``[N]``.
        most_overlap: intersection over union from 0 to 1; at 1 all stay.
    """
    order = score.argsort(descending=True, stable=True)
    box, label = box[order], label[order]
    close = (iou(box[:, None], box[None]) > most_overlap) & (label[:, None] == label[None])
    near = close.triu(1).numpy()
    gone = torch.zeros(len(order), dtype=torch.bool).numpy()
    for i in range(len(order)):
        if not gone[i]:
            gone |= near[i]
    return order[~torch.from_numpy(gone)]
