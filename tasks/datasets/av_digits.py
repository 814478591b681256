"""Spoken and written digits, each hard to read alone: Free Spoken Digit Dataset and a subset of MNIST.

Reads ``fsdd_audio.npz`` (``delta_lo``, ``delta_hi``: the low and high bytes of the differences between successive
16-bit samples at 8 kHz), ``fsdd_index.csv`` (``file, digit, index, split, offset, length``) and ``mnist_5k.npz``
(``images`` [N, 28, 28] uint8, ``labels``).

Nobody spoke the digits while writing them: a picture and a recording of the same digit are paired, as AV-MNIST
does (Vielzeuf et al., CentralNet, 2018; Liang et al., MultiBench, NeurIPS 2021), always inside the same part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...builders import media
from ...encoders import LogMel
from ...encoders.image import grid_boxes
from ...errors import HetgraphError
from ...objectives import Classification
from ...sample import Sample
from . import Dataset, data_folder
from .reading import read_arrays, read_table

TITLE = "AV digits"
PARTS = ("train", "valid", "test")
DIGITS = tuple(str(d) for d in range(10))
PAIRS = {"train": 200, "valid": 40, "test": 60}
"""Pairs per digit."""

SIDE, GRID = 28, 4
CELL = SIDE // GRID
RATE, FRAMES, BANDS = 8000, 16, 32
SNR = 0.0
DROPPED = 0.5
# what the parts of the written digits begin with, as shares of each digit's pictures; the rest is the test part
WRITTEN = (0.0, 0.7, 0.8)
VALID_INDEX = 10  # recordings 5 .. 9 of a speaker and digit are for validation; 0 .. 4 are the official test part


class Spoken(NamedTuple):
    """All recordings one after the other (int16) and, of each, its digit, part, start and length."""

    sound: np.ndarray
    digit: np.ndarray
    part: np.ndarray
    offset: np.ndarray
    length: np.ndarray


def degraded(folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Dataset:
    """White noise as loud as the voice (0 dB), and half of the pixels of every picture black."""
    return digits(folder, seed=seed, noisy=True)


def clean(folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Dataset:
    """The same pairs as they are."""
    return digits(folder, seed=seed, noisy=False)


def digits(folder: str | Path | None = None, *, seed: int = 0, noisy: bool = True, train: int | None = None) -> Dataset:
    """Pairs of a picture (16 ``region`` nodes of 7 x 7 pixels) and a recording (up to 16 ``frame`` nodes, log-mel).

    Args:
        folder: where the three files lie; default ``$HETGRAPH_DATA/av_digits``.
        seed: of pairs, noise and dropped pixels, for every part on its own: neither the size of the training part
            nor ``noisy`` changes which pairs another part has.
        noisy: degrade both.
        train: training pairs per digit; default 200.

    Raises:
        HetgraphError: a file, column or array is missing or wrong, or a digit has no picture or recording in a part.
    """
    path = data_folder("av_digits", folder)
    spoken, (images, labels) = _spoken(path), _written(path / "mnist_5k.npz")
    parts: dict[str, list[Sample]] = {}
    for number, part in enumerate(PARTS):
        count = train if part == "train" and train is not None else PAIRS[part]
        pairs = _pairs(spoken, labels, part, count, (seed, number, 0))
        noise = np.random.default_rng((seed, number, 1)) if noisy else None
        parts[part] = paired(spoken, images, pairs, noise, part)
    return Dataset(
        "av_digits" if noisy else "av_digits_clean",
        media(region=("image", CELL * CELL), frame=("audio", BANDS)),
        parts["train"],
        parts["valid"],
        parts["test"],
        Classification(DIGITS),
        notes="picture and recording are paired by digit, not recorded together; the six speakers are in all parts. "
        "Every seed has other pairs and other noise, in the test part too.",
    )


def paired(
    spoken: Spoken, images: np.ndarray, pairs: Sequence[tuple[int, int]], noise: np.random.Generator | None, name: str
) -> list[Sample]:
    """A sample of every (picture, recording), called ``NAME-0000``, ``NAME-0001``, ...

    Args:
        spoken, images: all recordings and pictures.
        pairs: places in them; the target is the digit of the recording.
        noise: degrades both; None: as they are.
        name: what the ids begin with.
    """
    pictures, sounds = [], []
    for picture, recording in pairs:
        start = spoken.offset[recording]
        pixels = images[picture].astype(np.float32) / 255.0
        sound = spoken.sound[start : start + spoken.length[recording]].astype(np.float32) / 32768.0
        pictures.append(pixels if noise is None else _drop(pixels, noise))
        sounds.append(sound if noise is None else _disturb(sound, noise))
    frames = LogMel(rate=RATE, bands=BANDS, window=0.032, hop=0.008)([(sound, RATE) for sound in sounds])
    return [
        Sample(
            id=f"{name}-{i:04d}",
            target=DIGITS[int(spoken.digit[recording])],
            region={"x": _cells(pictures[i]), "box": grid_boxes(GRID, GRID)},
            frame=_pooled(frames[i]),
        )
        for i, (_, recording) in enumerate(pairs)
    ]


def _pairs(spoken: Spoken, labels: np.ndarray, part: str, count: int, seed: tuple[int, ...]) -> list[tuple[int, int]]:
    """``count`` (picture, recording) per digit in random order; none comes twice before all have come."""
    rng = np.random.default_rng(seed)
    pairs = []
    for digit in range(10):
        written = written_part(labels, digit, part)
        said = np.flatnonzero((spoken.digit == digit) & (spoken.part == part))
        if not len(written) or not len(said):
            raise HetgraphError(
                f"{TITLE}: digit {digit} has {len(written)} pictures and {len(said)} recordings in the {part} part"
            )
        pairs += list(zip(_deal(written, count, rng), _deal(said, count, rng), strict=True))
    return [pairs[i] for i in rng.permutation(len(pairs))]


def written_part(labels: np.ndarray, digit: int, part: str) -> np.ndarray:
    """Places of a digit's pictures in a part."""
    places = np.flatnonzero(labels == digit)
    bounds = [round(share * len(places)) for share in (*WRITTEN, 1.0)]
    at = PARTS.index(part)
    return places[bounds[at] : bounds[at + 1]]


def _deal(places: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    decks = [rng.permutation(places) for _ in range(-(-count // len(places)))]
    return np.concatenate(decks)[:count].tolist()


def _drop(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exactly half of the pixels become black."""
    out = pixels.reshape(-1).copy()
    out[rng.permutation(out.size)[: round(DROPPED * out.size)]] = 0.0
    return out.reshape(pixels.shape)


def _disturb(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise with the mean power of the sound, ``SNR`` dB below it."""
    loudness = float(np.sqrt(np.mean(sound**2))) * 10 ** (-SNR / 20)
    return (sound + loudness * rng.standard_normal(len(sound))).astype(np.float32)


def _cells(pixels: np.ndarray) -> Tensor:
    """``[28, 28] -> [16, 49]``, cells in reading order."""
    cells = torch.from_numpy(pixels).reshape(GRID, CELL, GRID, CELL).permute(0, 2, 1, 3)
    return cells.reshape(GRID * GRID, CELL * CELL)


def _pooled(nodes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over up to ``FRAMES`` stretches of equal length, so that a node is a part of the word, fast or slow."""
    count = len(nodes["x"])
    bounds = np.linspace(0, count, min(FRAMES, count) + 1).round().astype(int).tolist()
    pieces = [slice(a, b) for a, b in pairwise(bounds)]
    return {
        "x": torch.stack([nodes["x"][piece].mean(0) for piece in pieces]),
        "time": torch.stack(
            [torch.stack([nodes["time"][piece][0, 0], nodes["time"][piece][-1, 1]]) for piece in pieces]
        ),
    }


def _written(path: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = read_arrays(TITLE, path, ("images", "labels"))
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or labels.shape != images.shape[:1]:
        raise HetgraphError(
            f"{TITLE}: {path}: images are uint8 [N, 28, 28] with labels [N], "
            f"got {images.dtype} {list(images.shape)} and {list(labels.shape)}"
        )
    return images, labels


def _spoken(path: Path) -> Spoken:
    index = path / "fsdd_index.csv"
    rows = read_table(TITLE, index, ("file", "digit", "index", "split", "offset", "length"))
    arrays = read_arrays(TITLE, path / "fsdd_audio.npz", ("delta_lo", "delta_hi"))
    low, high = arrays["delta_lo"], arrays["delta_hi"]
    if low.dtype != np.uint8 or high.dtype != np.uint8 or low.ndim != 1 or low.shape != high.shape:
        raise HetgraphError(f"{TITLE}: {path / 'fsdd_audio.npz'}: delta_lo and delta_hi are uint8 [N]")
    delta = low.astype(np.uint16) | (high.astype(np.uint16) << 8)
    sound = np.cumsum(delta, dtype=np.uint16).view(np.int16)
    numbers = []
    for row in rows:
        values = [row[name] for name in ("digit", "index", "offset", "length")]
        where = f"{TITLE}: {index}: {row['file']!r}"
        if not all(value.isdecimal() for value in values) or row["digit"] not in DIGITS:
            raise HetgraphError(f"{where}: digit, index, offset and length are whole numbers, got {values}")
        if row["split"] not in ("train", "test"):
            raise HetgraphError(f"{where}: split is train or test, got {row['split']!r}")
        number = [int(value) for value in values]
        if not number[3] or number[2] + number[3] > len(sound):
            raise HetgraphError(f"{where}: samples {number[2]} .. {sum(number[2:])} of {len(sound)} are not there")
        numbers.append(number)
    digit, place, offset, length = np.array(numbers, dtype=np.int64).reshape(-1, 4).T
    official = np.array([row["split"] for row in rows])
    part = np.where((official == "train") & (place < VALID_INDEX), "valid", official)
    return Spoken(sound, digit, part, offset, length)
