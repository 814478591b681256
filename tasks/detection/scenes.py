"""The crowded scenes as detection data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...rules import SPATIAL
from ...sample import Sample
from ...schema import EdgeKey, NodeType, Schema
from ..datasets.scenes_media import SHAPES
from .crowded import SIZE, WINDOW, Picture, pictures, windows
from .data import DetectionData, Objects, neighbour_types, neighbours

SIZES = {"train": 1200, "valid": 150, "test": 300}


def scenes(*, seed: int = 0) -> DetectionData:
    """Pictures of three to five overlapping shapes behind a grid of 64 windows (:mod:`.crowded`), the same for a seed.

    A window knows its pixels and its place. It is connected with the eight around it, by an edge type per direction.

    Args:
        seed: of the pictures.
    """
    schema = Schema([NodeType("region", 3 * WINDOW**2, fields={"box": 4})], neighbour_types(relations=SPATIAL[3:]))
    drawn = {part: pictures(part, count, seed) for part, count in SIZES.items()}
    _, box = windows(drawn["train"][0].pixels)
    # on a grid none overlaps or lies within another
    edges = {key: index for key, index in neighbours(torch.from_numpy(box)).items() if key in schema.edges}
    parts = {part: [_sample(one, edges) for one in some] for part, some in drawn.items()}
    return DetectionData(
        "scenes",
        schema,
        parts["train"],
        parts["valid"],
        parts["test"],
        SHAPES,
        notes=f"generated: {SIZE} x {SIZE} pixels, overlapping shapes two to four times as wide as the windows that "
        "are the regions",
        about={one.id: {"picture": one.pixels} for part in ("valid", "test") for one in drawn[part]},
    )


def _sample(picture: Picture, edges: Mapping[EdgeKey, Tensor]) -> Sample:
    x, box = windows(picture.pixels)
    target = Objects(torch.from_numpy(picture.boxes), picture.kinds)
    return Sample(id=picture.id, region={"x": x, "box": box}, edges=edges, target=target)
