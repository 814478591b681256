"""Pictures with given boxes to nodes: what lies in each box, by any encoder of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hetgraph.errors import HetgraphError

from .around import AroundPictures
from .base import Encoder, Nodes, whole
from .image import ImageEncoder
from .media import Item, is_array

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 64
"""Crops that are held and encoded at once."""


class ImageCrops(AroundPictures, ImageEncoder):
    """One node per box of a picture: the mean of what an encoder of pictures makes of the crop.

    Items are pairs ``(picture, boxes)``: any picture (see :class:`ImageEncoder`) and numbers ``[N, 4]`` with N >= 1,
    each x1, y1, x2, y2, y downwards, x1 < x2 and y1 < y2. They are pixels of the upright picture if any of them is
    above 1, else shares of its width and height. What lies beyond the picture is cut away. The field ``box``
    holds the boxes as shares.

    Args:
        image: encoder of pictures (it gets PIL images).
        max_boxes: only the first boxes of a picture are used; the attribute ``truncated`` counts how many pictures
            had more, since the encoder was made.

    Raises:
        HetgraphError: a setting out of range, or ``image`` is no encoder of pictures.
    """

    def __init__(self, image: Encoder, max_boxes: int = 300) -> None:
        super().__init__()
        if not isinstance(image, Encoder) or {"time", "span"} & set(image.fields) or isinstance(image, ImageCrops):
            raise HetgraphError(f"ImageCrops: expected an encoder of pictures as image, got {image!r}")
        self.image = image
        self.max_boxes = whole("ImageCrops", "max_boxes", max_boxes, 1)
        self.truncated = 0
        self.dim = image.dim

    def settings(self) -> dict[str, Any]:
        return {"image": self.image.config(), "max_boxes": self.max_boxes}

    def path_of(self, value: Any) -> Path | None:
        """The file of the picture."""
        return super().path_of(value[0] if isinstance(value, tuple) and len(value) == 2 else value)

    def digest(self, item: Item) -> str:
        picture, boxes = self._pair(item)
        return hashlib.sha256(f"{super().digest(picture)} {boxes.tolist()}".encode()).hexdigest()

    def _nodes(self, item: Item) -> Nodes:
        picture, boxes = self._pair(item)
        image = self.read(picture)
        size = np.array([image.width, image.height] * 2)
        shares = np.clip(boxes / size if (boxes > 1).any() else boxes, 0.0, 1.0)
        empty = np.flatnonzero((shares[:, 2:] <= shares[:, :2]).any(axis=1))
        if len(empty):
            raise item.error(f"box {empty[0]}: {boxes[empty[0]].tolist()} lies outside of the picture")
        self.truncated += len(boxes) > self.max_boxes
        shares = shares[: self.max_boxes]
        found = []
        for start in range(0, len(shares), BATCH):
            crops = [
                Item(_crop(image, box), f"{item.name}: box {i}")
                for i, box in enumerate(shares[start : start + BATCH], start)
            ]
            found += [nodes["x"].mean(dim=0) for nodes in self.image.run(crops)]
        return {"x": torch.stack(found), "box": torch.from_numpy(shares)}

    def _pair(self, item: Item) -> tuple[Item, np.ndarray]:
        value = item.value
        if not isinstance(value, tuple) or len(value) != 2:
            raise item.error(f"expected a pair (picture, boxes), got {type(value).__name__}")
        picture, given = value
        if not isinstance(given, Sequence) and not is_array(given):
            raise item.error(f"expected boxes [N, 4], got {type(given).__name__}")
        try:
            boxes = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise item.error(f"expected boxes [N, 4] of numbers, got something else: {error}") from error
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
            raise item.error(f"expected boxes [N >= 1, 4], got shape {list(boxes.shape)}")
        wrong = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        if len(wrong):
            raise item.error(f"box {wrong[0]}: expected x1 < x2 and y1 < y2, got {boxes[wrong[0]].tolist()}")
        return Item(picture, item.name), boxes


def _crop(image: Image, box: np.ndarray) -> Image:
    """The pixels that a box touches, at least one each way."""
    left, top = (min(int(share * side), side - 1) for share, side in zip(box[:2], image.size, strict=True))
    right = max(left + 1, int(np.ceil(box[2] * image.width - 1e-6)))
    bottom = max(top + 1, int(np.ceil(box[3] * image.height - 1e-6)))
    return image.crop((left, top, right, bottom))
