"""Tux Paint stamps for retrieval: picture, captions in three languages, French speech and effect sound of one thing.

A caption is there twice: as tokens of a language model, which know what words mean, and as one node that knows how
they are spelt, which is what languages and speech share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...builders import media
from ...encoders import Encoder, LogMel
from ...errors import HetgraphError
from ...objectives import Classification
from ...pipeline import Pipeline, Record
from ...sample import Sample
from ...schema import EdgeType, NodeType, Schema
from . import data_folder
from .letters import Letters
from .questions import grid_boxes
from .reading import read_arrays
from .retrieval import Pooled, RetrievalData
from .tuxpaint import PARTS, TITLE, _read, _sounds

LETTERS = 400
"""Numbers that a spelling becomes."""
BANDS = 40
FRAMES = 5
"""Frames of 10 ms that are a node: a syllable has some three of them."""
LANGUAGES = {"english": "en", "french": "fr", "spanish": "es"}
REGIONS = "effnet_lite0_regions_pca256.npz"
VIEWS = {
    "picture": ("region",),
    **{name: (f"token_{code}", f"letters_{code}") for name, code in LANGUAGES.items()},
    "speech": ("speech",),
    "effect": ("effect",),
}
# three captions that say the same share one weight; few stamps have an effect sound
WEIGHTS = {**dict.fromkeys(LANGUAGES, 1 / 3), "effect": 0.2}
# found by cross-validation over training and validation groups with the closed-form maps alone, as are the kernels
LANDMARKS = 600
KERNELS = ("picture", *LANGUAGES)
RIDGES = {"picture": 3.0, "speech": 0.3, "effect": 10.0, **dict.fromkeys(LANGUAGES, 10.0)}


def items(
    folder: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    encoders: Mapping[str, Encoder] | None = None,
) -> RetrievalData:
    """924 stamps on the grouped split; right is what has the same group, and one stamp per group is asked for.

    Args:
        folder: of the data set; default ``$HETGRAPH_DATA/tuxpaint_stamps``. If it holds regions that are encoded
            already (``effnet_lite0_regions_pca256.npz``), pictures are not encoded again.
        cache: keeps the encoded media.
        encoders: other encoders than the packaged ones, by kind (image, text, audio).

    Raises:
        HetgraphError: a file or column is missing, the files do not fit together, or a stamp is in no split.
    """
    source = data_folder("tuxpaint_stamps", folder)
    rows, images = _read(source, [f"caption_{code}" for code in LANGUAGES.values()])
    regions = _regions(source / REGIONS, len(rows)) if (source / REGIONS).is_file() else None
    columns = {f"text:token_{code}": "text" for code in LANGUAGES.values()}
    columns |= {"audio:speech": "audio", "audio:effect": "audio"}
    if regions is None:
        columns = {"image": "image", **columns}
    chosen = {"audio": LogMel(stack=FRAMES), **(encoders or {})}
    pipeline = Pipeline.for_columns(columns, encoders=chosen, cache=cache)
    records = []
    for row, pixels in zip(rows, images, strict=True):
        if row["split"] not in PARTS:
            raise HetgraphError(f"{TITLE}: stamp {row['id']}: split is one of {PARTS}, got {row['split']!r}")
        own = {f"text:token_{code}": row[f"caption_{code}"] or None for code in LANGUAGES.values()}
        own |= {"image": pixels} if regions is None else {}
        records.append(Record(row["id"], {**own, **_sounds(source, row["id"])}, target=row["top_category"]))
    kinds = {m.node: (m.kind, m.encoder.dim) for m in pipeline.media}
    more: list[dict[str, Any]] = [{} for _ in rows]
    if regions is not None:
        kinds = {"region": ("image", regions.shape[2]), **kinds}
        more = [{"region": {"x": x, "box": grid_boxes(whole=True)}} for x in regions]
    widths = {}
    for code in LANGUAGES.values():
        spelt = _letters(rows, code)
        widths[f"letters_{code}"] = next(iter(spelt.values())).shape[1]
        for row, nodes in zip(rows, more, strict=True):
            nodes |= {f"letters_{code}": spelt[row["id"]]} if row["id"] in spelt else {}
    samples = [
        Sample(id=sample.id, target=sample.target, nodes={**nodes, **sample.nodes})
        for sample, nodes in zip(pipeline(records), more, strict=True)
    ]
    parts = {name: [s for s, row in zip(samples, rows, strict=True) if row["split"] == name] for name in PARTS}
    having = {view: sum(all(name in s.nodes for name in VIEWS[view]) for s in parts["train"]) for view in KERNELS}
    return RetrievalData(
        "tuxpaint",
        _schema(kinds, pipeline.schema, widths),
        parts["train"],
        parts["valid"],
        parts["test"],
        Classification(tuple(sorted({row["top_category"] for row in rows}))),
        notes="one stamp of a group (same caption, recording or file name) is asked for. Few have an effect sound.",
        about={row["id"]: {"group": row["group"], "title": row["caption_en"]} for row in rows},
        views=VIEWS,
        relevance="group",
        # a node of the packaged encoder is the mean and the deviation of its frames; the mean counts
        pooled=_pooled(0 if "audio" in (encoders or {}) else BANDS),
        weights=WEIGHTS,
        ridges=RIDGES,
        kernels={view: min(LANDMARKS, count) for view, count in having.items()},
    )


def _regions(path: Path, count: int) -> Tensor:
    """Encoded regions ``[N, 10, D]``: a grid of 3 x 3, row by row, and the whole picture."""
    value = read_arrays(TITLE, path, ("regions",))["regions"]
    if value.ndim != 3 or value.shape[:2] != (count, 10) or value.dtype.kind != "f" or not np.isfinite(value).all():
        raise HetgraphError(f"{TITLE}: {path}: expected finite floats [{count}, 10, D], got {list(value.shape)}")
    return torch.from_numpy(value.astype(np.float32))


def _letters(rows: Sequence[Mapping[str, str]], code: str) -> dict[str, np.ndarray]:
    """Id of a stamp with a caption in a language -> how that is spelt, ``[1, D]``; learnt from training captions."""
    said = {row["id"]: row[f"caption_{code}"] for row in rows if row[f"caption_{code}"]}
    letters = Letters([said[row["id"]] for row in rows if row["split"] == "train" and row["id"] in said], LETTERS)
    return dict(zip(said, letters(list(said.values()))[:, None], strict=True))


def _schema(kinds: Mapping[str, tuple[str, int]], encoded: Schema, letters: Mapping[str, int]) -> Schema:
    """All media as :func:`hetgraph.builders.media` connects them, and spellings with what they may sound like."""
    whole = media(**dict(kinds))
    # with the fields that the encoders bring
    nodes = [encoded.nodes.get(name, node) for name, node in whole.nodes.items()]
    spelt = {name: NodeType(name, dim) for name, dim in letters.items()}
    pairs = [(name, other) for name in spelt for other in (*spelt, "speech", name.replace("letters", "token"))]
    across = [EdgeType(a, "with", b) for a, b in pairs if a != b]
    across += [EdgeType(b, "with", a) for a, b in pairs if b not in spelt]
    return Schema([*nodes, *spelt.values()], [*whole.edges.values(), *across])


def _pooled(bands: int) -> dict[str, Pooled]:
    """What the closed-form maps hear; of sounds so many of the first features, 0: all."""
    captions = [f"{kind}_{code}" for code in LANGUAGES.values() for kind in ("token", "letters")]
    return {
        **dict.fromkeys(("region", *captions), Pooled(scale="all")),
        "speech": Pooled(segments=8, spread=True, count=True, first=bands),
        "effect": Pooled(segments=2, spread=True, first=bands),
    }
