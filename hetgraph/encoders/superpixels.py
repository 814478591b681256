"""Pictures to nodes that follow their contents: patches of similar neighbouring pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .base import Nodes, number, whole
from .image import ImageEncoder
from .media import Item

if TYPE_CHECKING:
    from PIL.Image import Image


class Superpixels(ImageEncoder):
    """One node per superpixel (SLIC); no weights, ``dim = 9``.

    The picture is made smaller until its longer side has ``side`` pixels (a smaller one stays as it is), its pixels
    are grouped by :func:`slic`, and each group is a node: mean colour (R, G, B), spread of the colour (standard
    deviations), centre (x, y) and share of the picture. Colours and spreads are scaled to 0..1, the centre to -1..1;
    the share is 1 for a group as large as all the others on average. ``box`` encloses the group.

    Args:
        count: about how many superpixels; a small or uniform picture has fewer.
        compactness: weight of the distance in the picture against that in colour, both in the units of SLIC.
        side: longer side of what the pixels are grouped in.
        iterations: how often the centres move.

    Raises:
        HetgraphError: a setting out of range.

    Source: Achanta et al., SLIC Superpixels Compared to State-of-the-Art Superpixel Methods, IEEE Transactions on
    Pattern Analysis and Machine Intelligence, 2012.
    """

    dim = 9

    def __init__(self, count: int = 49, compactness: float = 10.0, side: int = 128, iterations: int = 10) -> None:
        super().__init__()
        self.count = whole("Superpixels", "count", count, 1, 4096)
        self.compactness = number("Superpixels", "compactness", compactness, 0, 1000)
        self.side = whole("Superpixels", "side", side, 8, 1024)
        self.iterations = whole("Superpixels", "iterations", iterations, 1, 100)

    def settings(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "compactness": self.compactness,
            "side": self.side,
            "iterations": self.iterations,
        }

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        return [self._nodes(self.read(item)) for item in items]

    def _nodes(self, image: Image) -> Nodes:
        from PIL import Image as Pillow

        scale = self.side / max(image.size)
        if scale < 1:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Pillow.Resampling.BOX)
        rgb = np.asarray(image, dtype=np.float64) / 255.0
        groups = slic(rgb, self.count, self.compactness, self.iterations).ravel()
        height, width = rgb.shape[:2]
        y, x = (axis.ravel() for axis in np.mgrid[0:height, 0:width])
        sizes = np.bincount(groups)

        def mean(values: np.ndarray) -> np.ndarray:
            return np.bincount(groups, values) / sizes

        colours = rgb.reshape(-1, 3).T
        means = [mean(channel) for channel in colours]
        spreads = [np.sqrt(mean((c - m[groups]) ** 2)) for c, m in zip(colours, means, strict=True)]
        places = [2 * (mean(x) + 0.5) / width - 1, 2 * (mean(y) + 0.5) / height - 1]
        features = np.stack([*means, *spreads, *places, sizes / sizes.mean()], axis=1)
        box = np.full((len(sizes), 4), np.inf)
        box[:, 2:] = 0
        for side, axis, length in ((0, x, width), (1, y, height)):
            np.minimum.at(box[:, side], groups, axis / length)
            np.maximum.at(box[:, side + 2], groups, (axis + 1) / length)
        return {"x": torch.from_numpy(features), "box": torch.from_numpy(box)}


def slic(rgb: np.ndarray, count: int, compactness: float = 10.0, iterations: int = 10) -> np.ndarray:
    """Group the pixels of a picture: ``[H, W, 3]`` in 0..1 to group numbers ``[H, W]`` from 0 on, all in use.

    The centres begin as the middle pixels of the cells of a regular grid. Every pixel joins the nearest of the nine
    centres around it, those of its own and the neighbouring cells, by ``colour² + (compactness / spacing)² * place²``
    in CIELAB; then the centres move to the means of their pixels. Pieces of a group that lie apart are then groups
    of their own, so that every group hangs together, and what is smaller than a quarter of a cell joins the
    neighbour most like it in colour.
    """
    height, width = rgb.shape[:2]
    spacing = max(1.0, (height * width / count) ** 0.5)
    rows, columns = max(1, round(height / spacing)), max(1, round(width / spacing))
    y, x = (axis.ravel() for axis in np.mgrid[0:height, 0:width])
    weight = compactness / spacing
    points = np.concatenate([_lab(rgb).reshape(-1, 3), weight * np.stack([y, x], axis=1)], axis=1)
    row, column = y * rows // height, x * columns // width
    near = [
        (row + i).clip(0, rows - 1) * columns + (column + j).clip(0, columns - 1)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    middle_y, middle_x = ((2 * np.arange(n) + 1) * side // (2 * n) for n, side in ((rows, height), (columns, width)))
    centres = points[(middle_y[:, None] * width + middle_x).ravel()]
    for _ in range(iterations):
        distances = np.stack([((points - centres[who]) ** 2).sum(axis=1) for who in near])
        groups = np.stack(near)[distances.argmin(axis=0), np.arange(len(points))]
        sizes = np.bincount(groups, minlength=len(centres))
        sums = np.stack([np.bincount(groups, axis, minlength=len(centres)) for axis in points.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return _hanging_together(groups.reshape(height, width), points[:, :3], spacing**2 / 4)


def _hanging_together(groups: np.ndarray, colours: np.ndarray, least: float) -> np.ndarray:
    """Join pieces smaller than ``least`` pixels to a neighbouring piece, the smallest first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers = np.arange(groups.size).reshape(groups.shape)
    ends = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]
    a, b = (np.concatenate([pair[i].ravel() for pair in ends]) for i in (0, 1))
    same = groups.ravel()[a] == groups.ravel()[b]
    edges = coo_array((np.ones(int(same.sum()), dtype=bool), (a[same], b[same])), shape=(groups.size, groups.size))
    count, pieces = connected_components(edges, directed=False)
    sizes = np.bincount(pieces).astype(np.float64)
    sums = np.stack([np.bincount(pieces, axis) for axis in colours.T], axis=1)
    touching: list[set[int]] = [set() for _ in range(count)]
    for one, other in np.unique(np.stack([pieces[a[~same]], pieces[b[~same]]], axis=1), axis=0).tolist():
        touching[one].add(other)
        touching[other].add(one)
    into = np.arange(count)
    for small in np.argsort(sizes, kind="stable").tolist():
        if sizes[small] >= least or not touching[small]:
            continue
        own = sums[small] / sizes[small]
        best = min(sorted(touching[small]), key=lambda piece: float(((sums[piece] / sizes[piece] - own) ** 2).sum()))
        into[small] = best
        sizes[best] += sizes[small]
        sums[best] += sums[small]
        for piece in touching[small]:
            touching[piece].discard(small)
            if piece != best:
                touching[piece].add(best)
                touching[best].add(piece)
    while (into != into[into]).any():
        into = into[into]
    return np.unique(into[pieces], return_inverse=True)[1].reshape(groups.shape)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 to CIELAB (D65), ``[..., 3]``; Source: CIE 15:2004 and IEC 61966-2-1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
