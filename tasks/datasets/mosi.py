"""CMU-MOSI (Zadeh et al., 2016): opinions in 93 video monologues, one conversation sample per video.

Reads ``features.npz`` (``text`` 100, ``audio`` 73, ``video`` 100 per utterance, ``utterance_id``) and
``utterances.csv`` (``utterance_id, video_id, segment, split_bclstm, label_binary, sentiment, ...``).

``text`` and ``video`` come from networks that were trained on the labels of the training part of
``split_bclstm``. So no other split may be used with them, and a validation part carved out of the
training part says nothing: settings have to be fixed otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...builders import conversation
from ...errors import HetgraphError
from ...objectives import Classification
from ...sample import Sample
from ...schema import Schema
from . import Dataset, data_folder
from .reading import read_arrays, read_table, standardised

TITLE = "CMU-MOSI"
MODALITIES = ("text", "audio", "video")
CLASSES = ("negative", "positive")
NEEDED = ("utterance_id", "video_id", "segment", "split_bclstm", "label_binary")


@dataclass(frozen=True)
class Conversations:
    """Videos as samples; the target of a sample holds one class (0 negative, 1 positive) per utterance."""

    train: list[Sample]
    test: list[Sample]
    schema: Schema


def load(
    folder: str | Path | None = None,
    *,
    modalities: tuple[str, ...] = MODALITIES,
    past: int = 5,
    future: int = 5,
) -> Conversations:
    """The split ``split_bclstm`` (62 and 31 videos) as conversation graphs.

    Nodes are utterance x modality with the utterance's number as ``group``; features are standardised on the
    training part and clipped to +-5 standard deviations.

    Args:
        folder: where the two files lie; default ``$HETGRAPH_DATA/cmu_mosi``.
        modalities: which of text, audio, video to use.
        past, future: how many utterances before and after are connected.

    Raises:
        HetgraphError: a file or column is missing, or the two files do not fit together.
    """
    path = data_folder("cmu_mosi", folder)
    rows = _rows(path / "utterances.csv")
    features = read_features(path / "features.npz", [row["utterance_id"] for row in rows], modalities)
    train = np.array([row["split_bclstm"] == "train" for row in rows])
    features = {name: standardised(value, train) for name, value in features.items()}
    videos: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        videos.setdefault(row["video_id"], []).append(i)
    parts: dict[str, list[Sample]] = {"train": [], "test": []}
    for video, places in videos.items():
        places.sort(key=lambda i: int(rows[i]["segment"]))
        group = torch.arange(len(places))
        nodes = {name: {"x": torch.from_numpy(value[places]), "group": group} for name, value in features.items()}
        target = torch.tensor([int(rows[i]["label_binary"]) for i in places])
        parts[rows[places[0]]["split_bclstm"]].append(Sample(id=video, target=target, nodes=nodes))
    dims = {name: value.shape[1] for name, value in features.items()}
    return Conversations(parts["train"], parts["test"], conversation(past, future, **dims))


def bclstm(folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Dataset:
    """:func:`load` as a :class:`Dataset`: the polarity of every utterance. Nothing is random and nothing is encoded."""
    data = load(folder)
    return Dataset(
        "mosi_bclstm",
        data.schema,
        data.train,
        None,
        data.test,
        Classification(CLASSES),
        group="group",
        standardize=False,
        notes="text and video features come from networks that were trained on the labels of the whole training part: "
        "a validation set carved out of it says nothing, so train for a number of epochs fixed beforehand.",
    )


def _rows(path: Path) -> list[dict[str, str]]:
    rows = read_table(TITLE, path, NEEDED)
    wrong = sorted({row["split_bclstm"] for row in rows} - {"train", "test"})
    if wrong:
        raise HetgraphError(f"CMU-MOSI: {path}: split_bclstm is train or test, got {wrong}")
    seen: set[str] = set()
    part: dict[str, str] = {}
    for row in rows:
        name = row["utterance_id"]
        where = f"CMU-MOSI: {path}: utterance {name!r}"
        if name in seen:
            raise HetgraphError(f"{where} is there twice")
        seen.add(name)
        if row["label_binary"] not in ("0", "1"):
            raise HetgraphError(f"{where}: label_binary is 0 or 1, got {row['label_binary']!r}")
        if not row["segment"].isdecimal():
            raise HetgraphError(f"{where}: segment is a whole number, got {row['segment']!r}")
        if part.setdefault(row["video_id"], row["split_bclstm"]) != row["split_bclstm"]:
            raise HetgraphError(f"{where}: video {row['video_id']!r} is in both parts of split_bclstm")
    if set(part.values()) != {"train", "test"}:
        raise HetgraphError(f"CMU-MOSI: {path} needs videos in train and test, got {sorted(set(part.values()))}")
    return rows


def read_features(path: Path, ids: list[str], modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Features of utterances in the order of ``ids``, as float64 ``[N, width]``.

    Raises:
        HetgraphError: a modality is unknown, an array is missing or has another form, or an utterance is missing.
    """
    unknown = sorted(set(modalities) - set(MODALITIES))
    if unknown or not modalities:
        raise HetgraphError(f"CMU-MOSI: modalities are some of {MODALITIES}, got {modalities}")
    arrays = read_arrays(TITLE, path, ("utterance_id", *modalities))
    order = {name: i for i, name in enumerate(arrays.pop("utterance_id").tolist())}
    absent = [name for name in ids if name not in order]
    if absent:
        raise HetgraphError(f"CMU-MOSI: {path} has no features of utterance {absent[0]!r}")
    places = [order[name] for name in ids]
    features = {}
    for name, value in arrays.items():
        if value.ndim != 2 or len(value) != len(order) or value.dtype.kind != "f":
            raise HetgraphError(
                f"CMU-MOSI: {path}: {name!r} must hold floats [{len(order)}, width], "
                f"got {value.dtype} {list(value.shape)}"
            )
        features[name] = value[places].astype(np.float64)
        if not np.isfinite(features[name]).all():
            row = int(np.flatnonzero(~np.isfinite(features[name]).all(1))[0])
            raise HetgraphError(f"CMU-MOSI: {path}: {name!r} of utterance {ids[row]!r} is not finite")
    return features
