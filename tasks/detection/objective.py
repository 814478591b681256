"""The loss of detection: regions and objects matched one to one, class and box of what is matched.

Shapes: R regions of several samples one after the other, C classes, M objects at most in a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import HetgraphError
from ...objectives import Objective
from ...sample import as_tensor
from .average_precision import Found, average_precision, mean_precision
from .boxes import decode, encode, giou, suppress


@dataclass(frozen=True)
class Detecting(Objective):
    """Set prediction (DETR, Carion et al., ECCV 2020, section 3.1), with regions in the place of learnt queries.

    Every object is matched with one region so that the sum of ``class_cost (1 - p(class)) + l1_cost |box - box'| +
    giou_cost (1 - GIoU)`` is least (Hungarian algorithm). A matched region is to say the object's class and box, any
    other one that there is no object: a model has to settle among the regions of an object which of them speaks.

    The loss of a region is cross-entropy over the classes and "no object", whose rows count ``background``; for
    matched ones also ``box_loss`` times (smooth L1 of the offsets + 1 - GIoU).

    Args:
        classes: their names.
        background: weight of "no object", of which there is much.
        box_loss: weight of the box.
        class_cost, l1_cost, giou_cost: of matching; L1 is the mean over a box's sides in units of the region's size.
        most_overlap: duplicates of a class that overlap more are left out of the answer; 1: none.
        most: answers of a sample at most, the best.
    """

    classes: tuple[str, ...] = ()
    background: float = 0.3
    box_loss: float = 1.0
    class_cost: float = 1.0
    l1_cost: float = 0.25
    giou_cost: float = 1.0
    most_overlap: float = 0.5
    most: int = 30
    main: ClassVar[str] = "map_50"
    larger: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        """A score per class, one for no object, four offsets."""
        return len(self.classes) + 5

    def encode(self, targets: Sequence[Any], ids: Sequence[str]) -> Tensor:
        """Targets are rows as :func:`.data.prepared` makes them."""
        rows = [as_tensor(t, f"sample {name!r}: target").float() for t, name in zip(targets, ids, strict=True)]
        for row, name in zip(rows, ids, strict=True):
            if row.dim() != 2 or row.shape[1] < 5 or row.shape[1] % 5:
                raise HetgraphError(f"sample {name!r}: expected prepared rows, got a target {list(row.shape)}")
        return torch.cat(rows)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        logits, box = self.split(scores, target[:, 1:5])
        label, wanted, matched = self.match(logits.detach(), box.detach(), target)
        weight = logits.new_ones(len(self.classes) + 1)
        weight[-1] = self.background
        loss = functional.cross_entropy(logits, label, weight, reduction="none")
        offset = functional.smooth_l1_loss(
            scores[matched, -4:], encode(wanted, target[matched, 1:5]), beta=0.5, reduction="none"
        )
        placed = offset.mean(-1) + 1 - giou(box[matched], wanted)
        return loss.index_add(0, matched, self.box_loss * placed)

    def split(self, scores: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[R, C + 1]``, no object last, and boxes ``[R, 4]``."""
        return scores[:, :-4], decode(scores[:, -4:], region)

    def match(self, logits: Tensor, box: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class of every region ``[R]`` (C: no object); boxes ``[P, 4]`` and places ``[P]`` of the matched ones."""
        from scipy.optimize import linear_sum_assignment

        objects = target[:, 5:].unflatten(1, (-1, 5)) if target.shape[1] > 5 else target.new_zeros(len(target), 0, 5)
        label = torch.full((len(target),), len(self.classes), device=target.device)
        if not objects.shape[1]:
            none = label[:0]
            return label, target.new_zeros(0, 4), none
        cost = self._cost(logits, box, target[:, 1:5], objects).double().cpu().numpy()
        starts = target[:, 0].nonzero().flatten().tolist()
        counts = (objects[:, :, 0] >= 0).sum(1).tolist()
        rows: list[int] = []
        columns: list[int] = []
        for start, end in zip(starts, [*starts[1:], len(target)], strict=True):
            some, which = linear_sum_assignment(cost[start:end, : counts[start]])
            rows += (some + start).tolist()
            columns += which.tolist()
        at, of = (torch.tensor(values, dtype=torch.long, device=target.device) for values in (rows, columns))
        label[at] = objects[at, of, 0].long()
        return label, objects[at, of, 1:], at

    def _cost(self, logits: Tensor, box: Tensor, region: Tensor, objects: Tensor) -> Tensor:
        """``[R, M]``; what stands for padding is never read."""
        kind = objects[:, :, 0].long().clamp(min=0)
        sure = logits.softmax(-1).gather(1, kind)
        size = (region[:, 2:] - region[:, :2]).repeat(1, 2)[:, None]
        apart = ((box[:, None] - objects[:, :, 1:]) / size).abs().mean(-1)
        overlap = giou(box[:, None], objects[:, :, 1:])
        cost = self.class_cost * (1 - sure) + self.l1_cost * apart + self.giou_cost * (1 - overlap)
        return cost.nan_to_num(1e6, 1e6, 1e6)

    def answers(self, scores: Tensor, region: Tensor) -> Found:
        """What is found in one sample, best first: every region's likeliest class, duplicates left out."""
        logits, box = self.split(scores, region)
        sure, label = logits.softmax(-1)[:, :-1].max(-1)
        stay = suppress(box, sure, label, self.most_overlap)[: self.most]
        return Found(box[stay], label[stay], sure[stay])

    def metrics(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        starts = target[:, 0].nonzero().flatten().tolist()
        found, true = [], []
        for start, end in zip(starts, [*starts[1:], len(target)], strict=True):
            found.append(self.answers(scores[start:end], target[start:end, 1:5]))
            objects = target[start, 5:].reshape(-1, 5)
            objects = objects[objects[:, 0] >= 0]
            true.append(Found(objects[:, 1:], objects[:, 0].long()))
        return {
            "map_50": mean_precision(average_precision(found, true, len(self.classes))),
            "loss": float(self.losses(scores, target).mean()),
        }

    def decode(self, scores: Tensor) -> list[Any]:
        """The likeliest class of every region, or None for no object."""
        names = [*self.classes, None]
        return [names[i] for i in scores[:, :-4].argmax(-1).tolist()]
