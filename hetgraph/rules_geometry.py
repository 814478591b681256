"""Edge rules about where nodes lie: boxes in a picture and intervals of time (see :mod:`hetgraph.rules`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .errors import HetgraphError
from .rules_base import NodeSet, Rule, axes_first, centre_of, not_self, rows_of


@dataclass(frozen=True)
class Direction(Rule):
    """The source lies mainly to one side of the destination: centres, y pointing down.

    ``left_of`` connects where the source's centre is to the left and the horizontal distance is at
    least the vertical one; the other three likewise.
    """

    side: str
    field: str = "box"

    def __post_init__(self) -> None:
        if self.side not in ("left", "right", "above", "below"):
            raise HetgraphError(f"direction: side must be left, right, above or below, got {self.side!r}")

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        a, b = (axes_first(centre_of(nodes, self.field)[..., :2]) for nodes in (src, dst))
        step = b[..., None, :] - a[..., :, None]
        if len(step) != 2:
            raise HetgraphError(f"node type {src.name!r}: field {self.field!r} has one number, a direction takes two")
        dx, dy = step
        if self.side == "left":
            return (dx > 0) & (dx >= dy.abs())
        if self.side == "right":
            return (dx < 0) & (-dx >= dy.abs())
        if self.side == "above":
            return (dy > 0) & (dy >= dx.abs())
        return (dy < 0) & (-dy >= dx.abs())


def _spans(nodes: NodeSet, field: str) -> tuple[Tensor, Tensor]:
    """Lower and upper corners ``[d, B, N]`` of boxes (width 4) or intervals (width 2)."""
    value = rows_of(nodes, field)
    if value.shape[-1] not in (2, 4):
        raise HetgraphError(
            f"node type {nodes.name!r}: field {field!r} must be an interval (2 numbers) or a box (4), "
            f"got {value.shape[-1]}"
        )
    low, high = axes_first(value).chunk(2)
    return low, high


@dataclass(frozen=True)
class Inside(Rule):
    """The source's box (or interval) lies within the destination's; equal ones count, itself does not."""

    field: str = "box"

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        (a1, a2), (b1, b2) = _spans(src, self.field), _spans(dst, self.field)
        inside = (a1[..., :, None] >= b1[..., None, :]) & (a2[..., :, None] <= b2[..., None, :])
        return not_self(reduce(torch.logical_and, inside), src, dst)


@dataclass(frozen=True)
class Overlapping(Rule):
    """The two boxes (or intervals) share an area (a duration) greater than zero; itself does not count."""

    field: str = "box"

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        (a1, a2), (b1, b2) = _spans(src, self.field), _spans(dst, self.field)
        low = torch.maximum(a1[..., :, None], b1[..., None, :])
        high = torch.minimum(a2[..., :, None], b2[..., None, :])
        return not_self(reduce(torch.logical_and, high > low), src, dst)


SPATIAL = (
    *("inside", "covers", "overlaps"),
    *("east_south", "south_east", "south_west", "west_south", "west_north", "north_west", "north_east", "east_north"),
)
"""The spatial relations of ReGAT in the order of their classes 1 .. 11; see :func:`spatial_classes`."""


def spatial_classes(a: Tensor, b: Tensor, diagonal: float = 2**0.5, aspect: float = 1.0) -> Tensor:
    """How source boxes lie to destination boxes: the 11 spatial relations of ReGAT, int64 ``[B, S, D]``, 0: none.

    1 inside: the source lies within the destination (they may share sides, but are not equal); 2 covers: the other
    way round; 3 overlaps: intersection over union of at least 0.5. Otherwise, if the centres are not more than half
    the picture's diagonal apart, 4 .. 11 by the angle of the step from the source's centre to the destination's:
    class 4 + k for angles from 45 k to below 45 (k + 1) degrees, counted from the right (east) over down (south, y
    points down). There is no relation between boxes with the same centre of which none of the others holds, nor
    where a box is not known (NaN).

    Args:
        a, b: ``[B, S, 4]`` and ``[B, D, 4]`` as x1, y1, x2, y2.
        diagonal: of the picture, in the unit of the boxes (after ``aspect``).
        aspect: width of the picture divided by its height, if the boxes are in 0..1 of both; angles and distances
            are then those of the picture.

    Source: Li et al., Relation-Aware Graph Attention Network for Visual Question Answering, ICCV 2019, section 3.2,
    after Yao et al., Exploring Visual Relationship for Image Captioning, ECCV 2018. There the class is the ceiling of
    the angle over 45 degrees, which differs at exact multiples alone and knows no class for an angle of 0.
    """
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = axes_first(a)[..., :, None], axes_first(b)[..., None, :]
    within = (ax1 >= bx1) & (ay1 >= by1) & (ax2 <= bx2) & (ay2 <= by2)
    around = (ax1 <= bx1) & (ay1 <= by1) & (ax2 >= bx2) & (ay2 >= by2)
    wide = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    high = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    shared = wide * high
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    overlaps = (shared >= 0.5 * union) & (union > 0)
    dx = ((bx1 + bx2) - (ax1 + ax2)) / 2 * aspect
    dy = ((by1 + by2) - (ay1 + ay2)) / 2
    near = (dx.square() + dy.square() <= (diagonal / 2) ** 2) & ((dx != 0) | (dy != 0))
    # the half, the quarter and the eighth of a turn in which a step lies, by comparisons alone
    half = (dy < 0) | ((dy == 0) & (dx < 0))
    u, v = torch.where(half, -dx, dx), torch.where(half, -dy, dy)  # 0 .. 180 degrees
    quarter = u <= 0
    p, q = torch.where(quarter, v, u), torch.where(quarter, -u, v)  # 0 .. 90 degrees
    octant = 4 * half.long() + 2 * quarter.long() + (q >= p).long()
    out = torch.where(near, 4 + octant, 0)
    for place, holds in ((3, overlaps), (2, around & ~within), (1, within & ~around)):
        out = torch.where(holds, place, out)
    return out


@dataclass(frozen=True)
class Spatial(Rule):
    """One of the 11 spatial relations of ReGAT between boxes; see :func:`spatial_classes`.

    Args:
        relation: one of :data:`SPATIAL`.
        aspect: width of the pictures over their height, for boxes in 0..1.
        field: boxes in 0..1 of the picture.
    """

    relation: str
    aspect: float = 1.0
    field: str = "box"

    def __post_init__(self) -> None:
        if self.relation not in SPATIAL:
            raise HetgraphError(f"spatial: relation must be one of {', '.join(SPATIAL)}, got {self.relation!r}")
        if isinstance(self.aspect, bool) or not isinstance(self.aspect, int | float) or not self.aspect > 0:
            raise HetgraphError(f"spatial: aspect must be a positive number, got {self.aspect!r}")

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        for nodes in (src, dst):
            if nodes[self.field].shape[-1:] != (4,):
                raise HetgraphError(f"node type {nodes.name!r}: field {self.field!r} must be a box (4 numbers)")
        diagonal = (self.aspect**2 + 1) ** 0.5
        found = spatial_classes(src[self.field].float(), dst[self.field].float(), diagonal, self.aspect)
        return not_self(found == 1 + SPATIAL.index(self.relation), src, dst)


@dataclass(frozen=True)
class Before(Rule):
    """The source ends before the destination begins (or just then), at most ``within`` seconds earlier.

    Args:
        within: the longest pause between them; None: any.
        field: intervals ``[N, 2]``, start and end.
    """

    within: float | None = None
    field: str = "time"

    def __post_init__(self) -> None:
        good = self.within is None or (isinstance(self.within, int | float) and self.within >= 0)
        if not good or isinstance(self.within, bool):
            raise HetgraphError(f"before: within must be a number of seconds from 0, or None, got {self.within!r}")

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        (_, end), (start, _) = _interval(src, self.field), _interval(dst, self.field)
        # compared as they are: the difference of two floats may round a pause away
        mask = end[..., :, None] <= start[..., None, :]
        if self.within is not None:
            mask = mask & (start[..., None, :] - end[..., :, None] <= self.within)
        return not_self(mask, src, dst)


@dataclass(frozen=True)
class After(Rule):
    """The source begins after the destination ends (or just then), at most ``within`` seconds later; see Before."""

    within: float | None = None
    field: str = "time"

    def __post_init__(self) -> None:
        Before(self.within, self.field)

    def __call__(self, src: NodeSet, dst: NodeSet) -> Tensor:
        return Before(self.within, self.field)(dst, src).transpose(-1, -2)


def _interval(nodes: NodeSet, field: str) -> tuple[Tensor, Tensor]:
    value = nodes[field].float()
    if value.shape[-1:] != (2,) or value.dim() == nodes.valid.dim():
        raise HetgraphError(f"node type {nodes.name!r}: field {field!r} must be an interval (2 numbers)")
    return value[..., 0], value[..., 1]
