"""Spoken and written digits of speakers that training has not heard: two protocols over ``av_digits``.

``speakers``: the same ten digits, other speakers. ``digits``: other speakers and other digits, the classic task of few
shots. Recordings of two speakers are the test part, those of a third the validation part; which, the seed says. Their
pictures are from the test and validation parts of the written digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...builders import media
from ...errors import HetgraphError
from ...graph import Graph
from ..datasets import av_digits, data_folder
from ..datasets.reading import read_table
from .episodes import FewShot, Pool

NAMES = ("speakers", "digits")
TEST_SPEAKERS, VALID_SPEAKERS = 2, 1
HELD_OUT = 4
"""Digits that only the test part of ``digits`` has."""
VIEWS = 3
"""Pairs that every training recording is in, each with another picture and other noise."""
WARP = 0.2
"""Most that an invented voice differs in the place of its formants, as a share."""
TILT = 0.5
"""Most that the ends of an invented voice's spectrum are raised or lowered, in natural logarithms of power."""


def load(name: str, folder: str | Path | None = None, *, seed: int = 0, noisy: bool = True) -> FewShot:
    """A protocol by name.

    Args:
        name: ``speakers`` or ``digits``.
        folder: where the files of ``av_digits`` lie; default ``$HETGRAPH_DATA/av_digits``.
        seed: which speakers (and digits) are held out, pairs and noise.
        noisy: degrade sound and picture as ``av_digits`` does.

    Raises:
        HetgraphError: an unknown name, wrong files, or fewer than four speakers.
    """
    if name not in NAMES:
        raise HetgraphError(f"unknown protocol {name!r}; known: {', '.join(NAMES)}")
    path = data_folder("av_digits", folder)
    spoken = av_digits._spoken(path)
    images, labels = av_digits._written(path / "mnist_5k.npz")
    rows = read_table(av_digits.TITLE, path / "fsdd_index.csv", ("speaker",))
    said_by = np.array([row["speaker"] for row in rows])
    order = sorted(set(said_by.tolist()))
    if len(order) < TEST_SPEAKERS + VALID_SPEAKERS + 1:
        raise HetgraphError(f"{av_digits.TITLE}: {path / 'fsdd_index.csv'}: expected 4 speakers, got {len(order)}")
    turned = [order[(seed + i) % len(order)] for i in range(len(order))]
    of = {
        "test": turned[:TEST_SPEAKERS],
        "valid": turned[TEST_SPEAKERS : TEST_SPEAKERS + VALID_SPEAKERS],
        "train": turned[TEST_SPEAKERS + VALID_SPEAKERS :],
    }
    seen, unseen = _digits(name, seed)
    classes = {"train": seen, "valid": seen, "test": unseen}
    parts: dict[str, dict[str, Pool]] = {part: {} for part in of}
    for part, speakers in of.items():
        for speaker in speakers:
            rng = np.random.default_rng((seed, order.index(speaker), 7))
            pairs = []
            for digit in map(int, classes[part]):
                said = np.flatnonzero((said_by == speaker) & (spoken.digit == digit))
                written = av_digits.written_part(labels, digit, part)
                if not len(said) or not len(written):
                    raise HetgraphError(
                        f"{av_digits.TITLE}: speaker {speaker!r}: digit {digit} has {len(said)} recordings and "
                        f"{len(written)} pictures in the {part} part, expected some"
                    )
                several = np.repeat(said, VIEWS if part == "train" else 1)
                pairs += list(zip(av_digits._deal(written, len(several), rng), several.tolist(), strict=True))
            made = av_digits.paired(spoken, images, pairs, rng if noisy else None, f"{speaker}")
            parts[part][speaker] = {c: [s for s in made if s.target == c] for c in classes[part]}
    return FewShot(
        name,
        media(region=("image", av_digits.CELL**2), frame=("audio", av_digits.BANDS)),
        parts["train"],
        parts["valid"],
        parts["test"],
        seen,
        seen,
        unseen,
        ways=len(unseen),
        notes=f"test speakers {', '.join(of['test'])}; validation speaker {', '.join(of['valid'])}; test digits "
        f"{' '.join(unseen)}. Picture and recording are paired by digit, not recorded together.",
    )


def _digits(name: str, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Digits of training and validation, and of the test."""
    if name == "speakers":
        return av_digits.DIGITS, av_digits.DIGITS
    out = np.random.default_rng((seed, 11)).permutation(10)[:HELD_OUT].tolist()
    return tuple(d for d in av_digits.DIGITS if int(d) not in out), tuple(str(d) for d in sorted(out))


def invent_voices(graph: Graph, voices: Tensor, generator: torch.Generator) -> None:
    """Change the node type ``frame`` as other speakers' vocal tracts would, in place.

    The log-mel bands are read at places stretched by a factor, as vocal tract length perturbation does (Jaitly and
    Hinton, ICML workshop 2013), and tilted. Where an episode has one invented voice, it is one more speaker for
    meta-learning; plain training hears as many, mixed.

    Args:
        graph: samples.
        voices: int64 ``[B]``, the number of every sample's voice.
        generator: draws the voices.
    """
    x = graph.x["frame"]
    bands = x.shape[1]
    count = int(voices.max()) + 1
    factor = 1 + WARP * (2 * torch.rand(count, 1, generator=generator) - 1)
    tilt = TILT * (2 * torch.rand(count, 1, generator=generator) - 1)
    place = (torch.arange(bands) * factor).clamp(max=bands - 1)
    low = place.floor().long().clamp(max=bands - 2)
    share = place - low
    voice = voices[graph.batch["frame"].cpu()]
    low, share = low[voice].to(x.device), share[voice].to(x.device)
    slope = (tilt * torch.linspace(-1, 1, bands))[voice].to(x.device)
    graph.x["frame"] = x.gather(1, low) * (1 - share) + x.gather(1, low + 1) * share + slope
