"""What detection learns from: samples whose regions have boxes, and objects with boxes and names as targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import HetgraphError
from ...rules import SPATIAL, given, spatial_classes
from ...sample import Sample, as_tensor
from ...schema import EdgeKey, EdgeType, Schema


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a sample, its target.

    Attributes:
        box: float32 ``[M, 4]``, x1, y1, x2, y2 in the unit of the regions' boxes; M may be 0.
        label: M names of classes.

    Raises:
        HetgraphError: other shapes, numbers that are not finite, or sides in the wrong order.
    """

    box: Tensor
    label: tuple[str, ...]

    def __post_init__(self) -> None:
        box = as_tensor(self.box, "objects: box").float().reshape(-1, 4)
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "label", tuple(self.label))
        if len(box) != len(self.label):
            raise HetgraphError(f"objects: expected a label for each of {len(box)} boxes, got {len(self.label)}")
        if not bool(box.isfinite().all() & (box[:, 2:] > box[:, :2]).all()):
            raise HetgraphError(f"objects: expected boxes x1, y1, x2, y2 with x2 > x1 and y2 > y1, got {box.tolist()}")


@dataclass(frozen=True, eq=False)
class DetectionData:
    """Samples in three parts, and what is to be detected.

    Attributes:
        name: of the data.
        schema: of the samples; the node type ``node`` has a field ``box``.
        train, valid, test: samples with :class:`Objects` as targets; ``valid`` None: nothing is validated on. They may
            have nodes of other types too (words, sound, entities).
        classes: names of the classes.
        node: the node type whose nodes are candidates for objects.
        standardize: whether training sets the scale of the features.
        notes: what to know before numbers are compared.
        about: sample id -> what else there is, such as ``picture`` (a file, or uint8 ``[height, width, 3]``). No model
            sees it.

    Raises:
        HetgraphError: no classes, or regions without boxes.
    """

    name: str
    schema: Schema
    train: Sequence[Sample]
    valid: Sequence[Sample] | None
    test: Sequence[Sample]
    classes: tuple[str, ...]
    node: str = "region"
    standardize: bool = True
    notes: str = ""
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise HetgraphError(f"{self.name}: expected names of classes, all different, got {self.classes}")
        node = self.schema.nodes.get(self.node)
        if node is None or node.fields.get("box") != 4:
            raise HetgraphError(f"{self.name}: expected a node type {self.node!r} with a field 'box' of width 4")


def regions_of(sample: Sample, node: str) -> Tensor:
    """Boxes of a sample's regions, float32 ``[N, 4]``.

    Raises:
        HetgraphError: the sample has none, or one without an area.
    """
    if node not in sample.nodes or "box" not in sample.nodes[node]:
        raise HetgraphError(f"{sample.label}: expected nodes {node!r} with a field 'box', got {sorted(sample.nodes)}")
    box = sample.nodes[node]["box"].float()
    if box.dim() != 2 or box.shape[1] != 4 or not bool((box[:, 2:] > box[:, :2]).all()):
        raise HetgraphError(
            f"{sample.label}: {node!r} field 'box': expected x1, y1, x2, y2 with x2 > x1 and y2 > y1, "
            f"got {list(box.shape)}, first {box[:1].tolist()}"
        )
    return box


def prepared(samples: Sequence[Sample], classes: Sequence[str], node: str) -> list[Sample]:
    """The same samples with targets as numbers, a row for each region.

    A row is: 1 for the first region of a sample, else 0; the region's box; and five numbers for each of the M objects
    of the sample, class and box, filled up with -1 to the largest M of all. The loss, which sees rows alone, finds in
    them what it matches.

    Raises:
        HetgraphError: no target, a class that is not known, or regions without boxes.
    """
    place = {name: i for i, name in enumerate(classes)}
    found = [objects_of(sample) for sample in samples]
    most = max((len(one.label) for one in found), default=0)
    out = []
    for sample, objects in zip(samples, found, strict=True):
        if unknown := sorted(set(objects.label) - set(place)):
            raise HetgraphError(f"{sample.label}: class {unknown[0]!r} is not one of {', '.join(classes)}")
        region = regions_of(sample, node)
        table = torch.full((most, 5), -1.0)
        table[: len(objects.label), 0] = torch.tensor([float(place[name]) for name in objects.label])
        table[: len(objects.label), 1:] = objects.box
        first = torch.zeros(len(region), 1)
        first[:1] = 1
        rows = torch.cat([first, region.cpu(), table.flatten().expand(len(region), -1)], 1)
        out.append(Sample(id=sample.id, nodes=sample.nodes, edges=sample.edges, target=rows))
    return out


def objects_of(sample: Sample) -> Objects:
    """The target of a sample.

    Raises:
        HetgraphError: it is none.
    """
    if not isinstance(sample.target, Objects):
        raise HetgraphError(f"{sample.label}: expected Objects as target, got {type(sample.target).__name__}")
    return sample.target


def neighbour_types(node: str = "region", relations: Sequence[str] = SPATIAL) -> list[EdgeType]:
    """An edge type for each spatial relation of :data:`hetgraph.rules.SPATIAL`, or some; samples bring the edges."""
    return [EdgeType(node, name, node, rule=given) for name in relations]


def neighbours(box: Tensor, nearest: int = 8, node: str = "region") -> dict[EdgeKey, Tensor]:
    """Edges between regions that overlap or are near, by how they lie to each other: edge type -> int64 ``[2, E]``.

    Every region hears the ``nearest`` others by the distance of centres (all of equals) and those it overlaps, through
    the edge type of their relation (:func:`hetgraph.rules.spatial_classes`; there is none between regions more than
    half the picture's diagonal apart).

    Args:
        box: ``[N, 4]`` in 0..1 of the picture.
        nearest: how many.
        node: the regions' type.
    """
    box = torch.as_tensor(box, dtype=torch.float32)
    classes = spatial_classes(box[None], box[None])[0]
    centre = (box[:, :2] + box[:, 2:]) / 2
    # rounded, so that what is equally far on a grid stays equal
    apart = torch.cdist(centre[None].double(), centre[None].double())[0].round(decimals=6).fill_diagonal_(torch.inf)
    low = torch.maximum(box[:, None, :2], box[None, :, :2])
    high = torch.minimum(box[:, None, 2:], box[None, :, 2:])
    keep = (high - low > 1e-6).all(-1)
    if len(box) > 1:
        keep |= apart <= apart.kthvalue(min(nearest, len(box) - 1), dim=0).values
    classes = classes.masked_fill(~keep, 0).fill_diagonal_(0)
    return {(node, name, node): (classes == i + 1).nonzero().T for i, name in enumerate(SPATIAL)}
