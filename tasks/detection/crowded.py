"""Crowded scenes: overlapping shapes of all sizes, seen through windows that are smaller than the shapes.

The pictures of the data set ``scenes`` have a shape in a cell each, and the cells are the regions: nothing is left to
detect. Here three to five of the same coloured shapes lie anywhere, turned, two to four windows wide, over one another,
among loose strokes and noise, and the regions are the squares of a fixed grid. A window alone sees a corner, an edge or
plain colour: how large the thing is, where its middle is, and often what it is, only its neighbours say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..datasets.scenes_media import _POLYGONS, COLOURS, SHAPES

SIZE = 64  # pixels, height and width
WINDOW = 8  # pixels, height and width
RADIUS = (8.0, 15.0)  # pixels
COUNTS = (3, 4, 5)
MOST_OVERLAP = 0.3  # share of the smaller box of a pair
NOISE = 10.0  # standard deviation, of 255
STROKES = (0, 1, 2)
_ZOOM = 4


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn scene.

    Attributes:
        id: such as ``"test-00017"``.
        pixels: uint8 ``[64, 64, 3]``.
        kinds, colours: of the shapes, the ones behind first.
        boxes: float32 ``[M, 4]`` in 0..1, of the whole shapes, also where they are covered.
    """

    id: str
    pixels: NDArray[np.uint8] = field(repr=False)
    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    boxes: NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """What is drawn: ``centre`` and ``radius`` in pixels, ``turn`` in radians."""

    kind: str
    colour: str
    centre: tuple[float, float]
    radius: float
    turn: float

    @property
    def corners(self) -> NDArray[np.float64]:
        """``[P, 2]`` in pixels."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        return _POLYGONS[self.kind] * self.radius @ np.array([[c, s], [-s, c]]) + np.array(self.centre)

    @property
    def box(self) -> NDArray[np.float64]:
        corners = self.corners
        return np.concatenate([corners.min(0), corners.max(0)])


def crowd(rng: np.random.Generator, count: int) -> list[Shape]:
    """Shapes drawn one by one, drawn again where they would leave the picture or cover one another too much."""
    shapes: list[Shape] = []
    boxes: list[NDArray[np.float64]] = []
    for _ in range(200):
        if len(shapes) == count:
            break
        shape = Shape(
            SHAPES[rng.integers(len(SHAPES))],
            tuple(COLOURS)[rng.integers(len(COLOURS))],
            (float(rng.uniform(0, SIZE)), float(rng.uniform(0, SIZE))),
            float(rng.uniform(*RADIUS)),
            float(rng.uniform(-0.3, 0.3)),
        )
        box = shape.box
        if box.min() >= 0 and box.max() <= SIZE and all(_covered(box, other) <= MOST_OVERLAP for other in boxes):
            shapes.append(shape)
            boxes.append(box)
    return shapes


def _covered(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Shared area as a share of the smaller box."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    smaller = min(float(np.prod(box[2:] - box[:2])) for box in (a, b))
    return float(np.prod(np.maximum(sides, 0))) / smaller


def draw(shapes: list[Shape], rng: np.random.Generator, strokes: int = 0) -> NDArray[np.uint8]:
    """uint8 ``[64, 64, 3]``: the shapes over paper of a random tint, the last on top; then strokes and noise."""
    paper = rng.integers(200, 245, 3)
    pixels = np.broadcast_to(paper, (SIZE, SIZE, 3)).astype(np.float64)
    for shape in shapes:
        ink = np.array(COLOURS[shape.colour]) + rng.integers(-20, 21, 3)
        cover = _cover(
            [shape.corners], [0.55 * _POLYGONS["ring"] * shape.radius + shape.centre][: shape.kind == "ring"]
        )
        pixels = pixels + cover * (ink - pixels)
    for _ in range(strokes):
        start, angle, length = rng.uniform(0, SIZE, 2), rng.uniform(0, np.pi), rng.uniform(6, 16)
        step = np.array([math.cos(angle), math.sin(angle)]) * length / 2
        side = np.array([-step[1], step[0]]) / length * 3
        ink = np.array(list(COLOURS.values())[rng.integers(len(COLOURS))])
        pixels = pixels + _cover([start + np.array([step + side, step - side, -step - side, side - step])], []) * (
            ink - pixels
        )
    return np.clip(np.rint(pixels + rng.normal(0, NOISE, pixels.shape)), 0, 255).astype(np.uint8)


def _cover(filled: list[NDArray[np.float64]], holes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Share of every pixel that polygons cover, ``[64, 64, 1]``."""
    mask = Image.new("L", (SIZE * _ZOOM, SIZE * _ZOOM), 0)
    pen = ImageDraw.Draw(mask)
    for value, corners in [(255, c) for c in filled] + [(0, c) for c in holes]:
        pen.polygon([tuple(p) for p in (corners * _ZOOM).tolist()], fill=value)
    return np.asarray(mask.reduce(_ZOOM), np.float64)[..., None] / 255


def pictures(part: str, count: int, seed: int) -> list[Picture]:
    """Pictures of a part ("train", "valid" or "test"); the same arguments give the same bits."""
    place = ("train", "valid", "test").index(part)
    out = []
    for i in range(count):
        rng = np.random.default_rng((seed, 31, place, i))
        shapes = crowd(rng, int(rng.choice(COUNTS)))
        pixels = draw(shapes, rng, int(rng.choice(STROKES)))
        boxes = (np.stack([shape.box for shape in shapes]) / SIZE).astype(np.float32)
        kinds, colours = tuple(s.kind for s in shapes), tuple(s.colour for s in shapes)
        out.append(Picture(f"{part}-{i:05d}", pixels, kinds, colours, boxes))
    return out


def windows(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The squares of the grid in reading order: pixels in 0..1 ``[64, 192]``, and boxes in 0..1 ``[64, 4]``."""
    side = SIZE // WINDOW
    tiles = pixels.reshape(side, WINDOW, side, WINDOW, 3).swapaxes(1, 2).reshape(side * side, -1)
    low = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), -1).reshape(-1, 2) / side
    return (tiles / 255).astype(np.float32), np.concatenate([low, low + 1 / side], 1).astype(np.float32)
