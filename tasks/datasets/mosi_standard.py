"""CMU-MOSI on the standard split (1,284 / 229 / 686 utterances): how strong a sentiment is, from words and voice.

Reads ``utterances.csv`` (``utterance_id, fold_standard, sentiment, transcript``) and the array ``audio`` of
``features.npz``. The arrays ``text`` and ``video`` must not be used here: they come from networks that saw the labels
of most test utterances of this split. Words are encoded by a network that knows nothing of the labels instead.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from ...builders import media
from ...encoders import Cached, Encoder, MiniLM
from ...errors import HetgraphError
from ...objectives import Sentiment
from ...sample import Sample
from ...schema import EdgeType, NodeType
from . import Dataset, data_folder
from .mosi import TITLE, read_features
from .reading import read_table, standardised

PARTS = ("train", "valid", "test")
NEEDED = ("utterance_id", "fold_standard", "sentiment", "transcript")


def standard(
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    encoder: Encoder | None = None,
) -> Dataset:
    """A sample per utterance: its words as ``token`` nodes, its voice as one ``audio`` node; all are connected.

    Audio features are standardised on the training part and clipped to +-5 standard deviations; so is the target's
    scale in the objective, a :class:`Sentiment`.

    Args:
        folder: where the two files lie; default ``$HETGRAPH_DATA/cmu_mosi``.
        seed: nothing is random.
        cache: folder that keeps the encoded transcripts, which take some seconds.
        encoder: of the lower-cased transcripts; default :class:`MiniLM`, which needs the extra ``offline``.

    Raises:
        HetgraphError: a file, column, value or package is missing or wrong.
    """
    path = data_folder("cmu_mosi", folder)
    table = path / "utterances.csv"
    rows = read_table(TITLE, table, NEEDED)
    sentiments = [_checked(table, row) for row in rows]
    names = [row["utterance_id"] for row in rows]
    if len(set(names)) != len(names):
        raise HetgraphError(f"{TITLE}: {table}: an utterance is there twice")
    own = np.array([row["fold_standard"] for row in rows])
    absent = [part for part in PARTS if part not in own]
    if absent:
        raise HetgraphError(f"{TITLE}: {table} needs utterances in {PARTS}, found none in {absent}")
    audio = standardised(read_features(path / "features.npz", names, ("audio",))["audio"], own == "train")
    words = encoder or MiniLM()
    words = words if cache is None else Cached(words, cache)
    tokens = words([row["transcript"].lower() for row in rows], names)
    parts: dict[str, list[Sample]] = {part: [] for part in PARTS}
    for i, (name, sentiment) in enumerate(zip(names, sentiments, strict=True)):
        nodes = {"token": tokens[i], "audio": {"x": torch.from_numpy(audio[i : i + 1])}}
        parts[str(own[i])].append(Sample(id=name, target=torch.tensor([sentiment]), nodes=nodes))
    schema = media(token=("text", words.dim)).extend(
        NodeType("audio", audio.shape[1]),
        EdgeType("token", "with", "token"),
        EdgeType("token", "with", "audio"),
        EdgeType("audio", "with", "token"),
    )
    train = parts["train"]
    return Dataset(
        "mosi_standard",
        schema,
        train,
        parts["valid"],
        parts["test"],
        Sentiment().fitted([sample.target for sample in train], [str(sample.id) for sample in train]),
        notes="utterances without their neighbours. Published results on this split use other inputs (GloVe or BERT, "
        "Facet, COVAREP). The text and video features of the data set are left out: they leak test labels here.",
    )


def _checked(path: Path, row: dict[str, str]) -> float:
    where = f"{TITLE}: {path}: utterance {row['utterance_id']!r}"
    if row["fold_standard"] not in PARTS:
        raise HetgraphError(f"{where}: fold_standard is one of {PARTS}, got {row['fold_standard']!r}")
    try:
        sentiment = float(row["sentiment"])
    except ValueError:
        sentiment = math.nan
    if not -3 <= sentiment <= 3:
        raise HetgraphError(f"{where}: sentiment is a number from -3 to 3, got {row['sentiment']!r}")
    return sentiment
