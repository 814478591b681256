"""Pictures to nodes: the cells of a regular grid, as raw pixels or as a network's feature map."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hetgraph.errors import HetgraphError

from .base import Encoder, Nodes, whole
from .media import Item
from .read_image import read_image

if TYPE_CHECKING:
    from typing import Self

    from PIL.Image import Image


def grid_boxes(rows: int, columns: int) -> torch.Tensor:
    """Boxes of a regular grid: ``[rows * columns, 4]`` as x1, y1, x2, y2 in 0..1 of the picture, row by row,
    y downwards."""
    y1, x1 = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    y2, x2 = torch.meshgrid(torch.arange(1, rows + 1) / rows, torch.arange(1, columns + 1) / columns, indexing="ij")
    return torch.stack([x1, y1, x2, y2], dim=-1).reshape(-1, 4)


class ImageEncoder(Encoder):
    """Base of the encoders of pictures.

    Items are paths (str or Path), bytes of an encoded picture, arrays ``[H, W]`` or ``[H, W, 1 | 3 | 4]`` (uint8,
    or floats from 0 to 1), or PIL images; see :func:`hetgraph.encoders.read_image.read_image`. The field
    ``box [N, 4]`` is x1, y1, x2, y2 in 0..1, y downwards, of the whole upright picture.
    """

    fields: dict[str, int]

    def __init__(self) -> None:
        self.fields = {"box": 4}

    def read(self, item: Item) -> Image:
        return read_image(item, self.path_of(item.value))

    def digest(self, item: Item) -> str:
        from PIL import Image

        if isinstance(item.value, Image.Image):
            # The object carries more than pixels (palette, orientation); what counts is what is read of it.
            return super().digest(Item(np.asarray(self.read(item)), item.name))
        return super().digest(item)


class ImagePatches(ImageEncoder):
    """The pixels themselves; no weights.

    The picture is resized as a whole (bicubic, aspect not kept) to ``rows * size`` by ``columns * size``
    pixels, and every square of ``size`` by ``size`` is a node: ``x`` is its RGB in -1..1, row by row, channel
    last, ``dim = size * size * 3``.

    Args:
        grid: (rows, columns), or one number for both.
        size: side of a cell in pixels.

    Raises:
        HetgraphError: a grid or size that is not positive.
    """

    def __init__(self, grid: tuple[int, int] | int = (7, 7), size: int = 8) -> None:
        super().__init__()
        pair = (grid, grid) if isinstance(grid, int) else grid
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise HetgraphError(f"ImagePatches: grid must be (rows, columns) or one number, got {grid!r}")
        self.rows = whole("ImagePatches", "grid", pair[0], 1, 1024)
        self.columns = whole("ImagePatches", "grid", pair[1], 1, 1024)
        self.size = whole("ImagePatches", "size", size, 1, 1024)
        self.dim = self.size * self.size * 3

    def settings(self) -> dict[str, Any]:
        return {"grid": [self.rows, self.columns], "size": self.size}

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        return [{"x": self._cells(self.read(item)), "box": grid_boxes(self.rows, self.columns)} for item in items]

    def _cells(self, image: Image) -> torch.Tensor:
        from PIL import Image

        rows, columns, size = self.rows, self.columns, self.size
        small = image.resize((columns * size, rows * size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(small)).float() / 127.5 - 1.0
        cells = pixels.reshape(rows, size, columns, size, 3).permute(0, 2, 1, 3, 4)
        return cells.reshape(rows * columns, self.dim)


class FeatureMapEncoder(ImageEncoder):
    """Base of the networks that give a feature map: one node per cell.

    Args:
        batch_size: how many pictures go through the network at once; no influence on the result.
    """

    neutral = frozenset({"batch_size"})
    network: Any

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = whole(type(self).__name__, "batch_size", batch_size, 1)
        self.device = torch.device("cpu")

    def to(self, device: str | torch.device) -> Self:
        """Move the network; the nodes still come out on the CPU. Gives the encoder itself."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    @abstractmethod
    def _pixels(self, image: Image) -> torch.Tensor:
        """What the network reads: float32 ``[3, height, width]``, the same size for every picture."""

    @abstractmethod
    def _map(self, pixels: torch.Tensor) -> torch.Tensor:
        """Feature maps ``[B, dim, h, w]`` of pixels ``[B, 3, height, width]``."""

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        nodes: list[Nodes] = []
        for start in range(0, len(items), self.batch_size):
            batch = [self._pixels(self.read(item)) for item in items[start : start + self.batch_size]]
            with torch.inference_mode():
                maps = self._map(torch.stack(batch).to(self.device))
            boxes = grid_boxes(*maps.shape[2:])
            nodes += [{"x": cells.T, "box": boxes.clone()} for cells in maps.flatten(2).cpu()]
        return nodes
