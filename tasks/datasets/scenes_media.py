"""Pictures and sounds of the scenes: four shapes, four colours, four timbres, drawn from a random generator.

Nothing here knows about questions or words; :mod:`hetgraph.tasks.datasets.scenes` decides what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SHAPES = ("circle", "triangle", "cross", "ring")
COLOURS = {
    "red": (214, 40, 40),
    "yellow": (245, 200, 20),
    "green": (40, 160, 70),
    "blue": (40, 90, 215),
}
SIZE = 96  # pixels, height and width
CELLS = 3  # cells per side; an object never leaves its cell
RATE = 16_000  # Hz
SECONDS = (0.6, 1.0)
LOWEST_PITCH = 220.0  # Hz; every timbre is played anywhere in the octave above

_ZOOM = 4  # drawn this much larger, then averaged: Pillow itself does not smooth edges
_CELL = SIZE // CELLS
_TABLE = 4096


def _polygon(kind: str) -> NDArray[np.float64]:
    """Corners [P, 2] of a shape around the origin, for a radius of 1."""
    if kind == "cross":
        arm = np.array([(-0.33, -1.0), (0.33, -1.0), (0.33, -0.33)])
        quarter = np.array([(0.0, 1.0), (-1.0, 0.0)])  # (x, y) becomes (-y, x)
        return np.concatenate([arm @ np.linalg.matrix_power(quarter, k) for k in range(4)])
    corners, radii = {
        "circle": (48, (1.0, 1.0)),
        "ring": (48, (1.0, 1.0)),
        "triangle": (3, (1.15, 1.15)),
    }[kind]
    angle = 2 * np.pi * np.arange(corners) / corners - np.pi / 2
    radius = np.resize(radii, corners)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


_POLYGONS = {kind: _polygon(kind) for kind in SHAPES}


def draw_picture(
    shapes: list[tuple[str, str, int]], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[tuple[float, float, float, float]]]:
    """A picture of coloured shapes, one in a cell, each a little shifted, resized and turned.

    Args:
        shapes: (kind, colour, cell) of every object; cells are numbered in reading order.
        rng: gives position, size, rotation, tint and noise.

    Returns:
        The picture uint8 [SIZE, SIZE, 3], and a box (left, top, right, bottom) in 0..1 for each object.
    """
    paper = tuple(int(v) for v in rng.integers(222, 245, 3))
    image = Image.new("RGB", (SIZE * _ZOOM, SIZE * _ZOOM), paper)
    pen = ImageDraw.Draw(image)
    boxes = []
    for kind, colour, cell in shapes:
        row, column = divmod(cell, CELLS)
        centre = (np.array([column, row]) + 0.5) * _CELL + rng.uniform(-2.0, 2.0, 2)
        radius = rng.uniform(9.0, 11.5)
        turn = rng.uniform(-0.3, 0.3)  # radians; small, or a square would be a diamond
        turned = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        ink = tuple(int(v) for v in np.clip(np.array(COLOURS[colour]) + rng.integers(-12, 13, 3), 0, 255))
        corners = _POLYGONS[kind] * radius @ turned + centre
        pen.polygon([tuple(p) for p in (corners * _ZOOM).tolist()], fill=ink)
        if kind == "ring":
            hole = _POLYGONS[kind] * (0.55 * radius) + centre
            pen.polygon([tuple(p) for p in (hole * _ZOOM).tolist()], fill=paper)
        low, high = corners.min(axis=0) / SIZE, corners.max(axis=0) / SIZE
        boxes.append((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    pixels = np.asarray(image.reduce(_ZOOM), dtype=np.int16)
    noisy = pixels + rng.integers(-6, 7, pixels.shape, dtype=np.int16)
    return np.clip(noisy, 0, 255).astype(np.uint8), boxes


def _table(harmonics: dict[int, float]) -> NDArray[np.float64]:
    """One period of a wave with these amplitudes, so that playing it is a lookup and not many sines."""
    phase = 2 * np.pi * np.arange(_TABLE) / _TABLE
    return np.sum([a * np.sin(k * phase) for k, a in harmonics.items()], axis=0)


_FLUTE = _table({1: 1.0, 2: 0.08})
_ORGAN = _table({1: 1.0, 2: 0.9, 4: 0.8, 8: 0.7, 16: 0.6})


def _lookup(table: NDArray[np.float64], cycles: NDArray[np.float64]) -> NDArray[np.float64]:
    return table[(cycles * _TABLE).astype(np.int64) % _TABLE]


_Timbre = Callable[[NDArray[np.float64], float, np.random.Generator], NDArray[np.float64]]


def _flute(t: NDArray[np.float64], pitch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return _lookup(_FLUTE, pitch * t) * np.minimum(t / 0.08, 1.0)


def _bell(t: NDArray[np.float64], pitch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    wave = np.zeros_like(t)
    for ratio, amplitude, decay in ((1.0, 1.0, 3.0), (2.76, 0.8, 4.0), (5.40, 0.6, 5.0), (8.93, 0.5, 6.0)):
        wave += amplitude * np.exp(-decay * t) * np.sin(2 * np.pi * ratio * pitch * t)
    return wave


def _rattle(t: NDArray[np.float64], pitch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    # Noise with the high part averaged away, moved up to six times the pitch, in quick dying bursts.
    sums = np.cumsum(rng.standard_normal(t.size + 16))
    band = (sums[16:] - sums[:-16]) * np.sin(2 * np.pi * 6 * pitch * t)
    return band * np.exp(-4.0 * (t * rng.uniform(14.0, 18.0) % 1.0))


def _organ(t: NDArray[np.float64], pitch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    speed = rng.uniform(5.0, 7.0)
    wobble = 0.03 / (2 * np.pi * speed) * np.sin(2 * np.pi * speed * t)  # the pitch moves by 3 %
    return _lookup(_ORGAN, pitch * (t + wobble))


TIMBRES: dict[str, _Timbre] = {
    "circle": _flute,
    "triangle": _bell,
    "cross": _rattle,
    "ring": _organ,
}


def play(kind: str, rng: np.random.Generator) -> NDArray[np.int16]:
    """The sound of one kind of object: its timbre at a random pitch, loudness and start, over noise.

    Pitch, loudness, start and length have the same distribution for every kind.

    Returns:
        int16 [n], 0.6 to 1.0 s at 16 kHz. Whole numbers, so that a 16-bit WAV file holds exactly this.
    """
    samples = int(rng.integers(int(SECONDS[0] * RATE), int(SECONDS[1] * RATE) + 1))
    start = int(rng.integers(0, RATE // 8))
    pitch = LOWEST_PITCH * 2.0 ** rng.random()
    loudness = 0.03 * 10.0 ** rng.uniform(-0.3, 0.3)  # root mean square of the tone, full scale is 1
    t = np.arange(samples - start) / RATE
    tone = TIMBRES[kind](t, pitch, rng)
    tone *= np.minimum(np.minimum(t, t[::-1]) / 0.008, 1.0)  # no click at either end
    tone *= loudness / math.sqrt(float(np.mean(tone**2)))
    wave = rng.standard_normal(samples) * rng.uniform(0.001, 0.003)
    wave[start:] += tone
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)
