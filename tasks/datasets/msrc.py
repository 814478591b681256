"""MSRC-v1: 210 pictures of 7 classes in 5 views, that is, 5 descriptions of the same picture by hand-made features.

Reads ``msrc_v1.npz``: ``labels_cvcl`` (1 .. 7) and five float arrays ``[210, width]``. It is a set for clustering and
has no split; as usual in multi-view classification, 20 % of each class are drawn for training.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from ...errors import HetgraphError
from ...objectives import Classification
from ...sample import Sample
from ...schema import EdgeType, NodeType, Schema
from . import Dataset, data_folder
from .reading import read_arrays

TITLE = "MSRC-v1"
VIEWS = {
    "colour_moment": "cvcl_cm24_colour_moment",
    "hog": "cvcl_hog576",
    "gist": "cvcl_gist512",
    "lbp": "cvcl_lbp256",
    "centrist": "cvcl_centrist254",
}
TRAIN_SHARE = 0.2
VALID = 2
"""Pictures of each class that are taken from the training part to validate on."""


def views(folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Dataset:
    """A node type per view, with one node; all views are connected.

    Of the 30 pictures of a class, drawn by the seed, 4 are for training, 2 for validation and 24 for testing. The 14
    validation pictures are few, but without them only the test part could choose an epoch.

    Args:
        folder: where the file lies; default ``$HETGRAPH_DATA/msrc_v1``.
        seed: of the split.
        cache: nothing is encoded.

    Raises:
        HetgraphError: the file or an array is missing or wrong, or a class has too few pictures.
    """
    path = data_folder("msrc_v1", folder) / "msrc_v1.npz"
    arrays = read_arrays(TITLE, path, ("labels_cvcl", *VIEWS.values()))
    labels = arrays["labels_cvcl"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise HetgraphError(f"{TITLE}: {path}: labels_cvcl are whole numbers [N], got {labels.dtype} {labels.shape}")
    features = {}
    for view, key in VIEWS.items():
        value = arrays[key]
        if value.ndim != 2 or len(value) != len(labels) or value.dtype.kind != "f" or not np.isfinite(value).all():
            raise HetgraphError(
                f"{TITLE}: {path}: {key!r} must hold finite floats [{len(labels)}, width], "
                f"got {value.dtype} {list(value.shape)}"
            )
        features[view] = torch.from_numpy(value.astype(np.float32))
    rng = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label)).tolist()
        known = round(TRAIN_SHARE * len(places))
        if known <= VALID or known == len(places):
            raise HetgraphError(f"{TITLE}: {path}: class {label} has {len(places)} pictures, too few to split")
        parts["valid"] += places[:VALID]
        parts["train"] += places[VALID:known]
        parts["test"] += places[known:]
    samples = {
        part: [
            Sample(id=str(i), target=str(labels[i]), nodes={view: {"x": x[i : i + 1]} for view, x in features.items()})
            for i in sorted(places)
        ]
        for part, places in parts.items()
    }
    schema = Schema(
        [NodeType(view, x.shape[1]) for view, x in features.items()],
        [EdgeType(a, "with", b) for a, b in permutations(features, 2)],
    )
    return Dataset(
        "msrc_v1",
        schema,
        samples["train"],
        samples["valid"],
        samples["test"],
        Classification(tuple(str(label) for label in np.unique(labels))),
        notes="five views of one picture, not five modalities. A random split per seed: 20 % of each class are known, "
        "of which a third is for validation, so that fewer are trained on than where 20 % are; take several seeds.",
    )
