"""Tux Paint stamps for retrieval: picture, captions in three languages, French speech and effect sound of one thing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...encoders import Encoder
from ...errors import HetgraphError
from ...objectives import Classification
from ...pipeline import Pipeline, Record
from ...sample import Sample
from ...schema import Schema
from . import data_folder
from .questions import grid_boxes
from .reading import read_arrays
from .retrieval import Pooled, RetrievalData
from .tuxpaint import PARTS, TITLE, _read, _sounds

LANGUAGES = {"english": "en", "french": "fr", "spanish": "es"}
REGIONS = "effnet_lite0_regions_pca256.npz"
VIEWS = {
    "picture": ("region",),
    **{name: (f"token_{code}",) for name, code in LANGUAGES.items()},
    "speech": ("speech",),
    "effect": ("effect",),
}
POOLED = {
    "region": Pooled(),
    **{f"token_{code}": Pooled() for code in LANGUAGES.values()},
    "speech": Pooled(segments=4, spread=True),
    "effect": Pooled(segments=2, spread=True),
}

# three captions that say the same share one weight; few stamps have an effect sound
WEIGHTS = {**dict.fromkeys(LANGUAGES, 1 / 3), "effect": 0.2}


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
    pipeline = Pipeline.for_columns(columns, encoders=encoders, cache=cache)
    records = []
    for row, pixels in zip(rows, images, strict=True):
        if row["split"] not in PARTS:
            raise HetgraphError(f"{TITLE}: stamp {row['id']}: split is one of {PARTS}, got {row['split']!r}")
        media = {f"text:token_{code}": row[f"caption_{code}"] or None for code in LANGUAGES.values()}
        media |= {"image": pixels} if regions is None else {}
        records.append(Record(row["id"], {**media, **_sounds(source, row["id"])}, target=row["top_category"]))
    samples = pipeline(records)
    schema = pipeline.schema
    if regions is not None:
        from ...builders import media as schema_of

        kinds = {m.node: (m.kind, m.encoder.dim) for m in pipeline.media}
        whole = schema_of(region=("image", regions.shape[2]), **kinds)
        # with the fields that the encoders bring
        schema = Schema([whole.nodes["region"], *schema.nodes.values()], list(whole.edges.values()))
        samples = [_with(sample, x) for sample, x in zip(samples, regions, strict=True)]
    parts = {name: [s for s, row in zip(samples, rows, strict=True) if row["split"] == name] for name in PARTS}
    return RetrievalData(
        "tuxpaint",
        schema,
        parts["train"],
        parts["valid"],
        parts["test"],
        Classification(tuple(sorted({row["top_category"] for row in rows}))),
        notes="one stamp of a group (same caption, recording or file name) is asked for. Few have an effect sound.",
        about={row["id"]: {"group": row["group"], "title": row["caption_en"]} for row in rows},
        views=VIEWS,
        relevance="group",
        pooled=POOLED,
        weights=WEIGHTS,
    )


def _regions(path: Path, count: int) -> Tensor:
    """Encoded regions ``[N, 10, D]``: a grid of 3 x 3, row by row, and the whole picture."""
    value = read_arrays(TITLE, path, ("regions",))["regions"]
    if value.ndim != 3 or value.shape[:2] != (count, 10) or value.dtype.kind != "f" or not np.isfinite(value).all():
        raise HetgraphError(f"{TITLE}: {path}: expected finite floats [{count}, 10, D], got {list(value.shape)}")
    return torch.from_numpy(value.astype(np.float32))


def _with(sample: Sample, regions: Tensor) -> Sample:
    """The sample with a picture; boxes as x1, y1, x2, y2 in 0 .. 1."""
    nodes = {"region": {"x": regions, "box": grid_boxes(whole=True)}, **sample.nodes}
    return Sample(id=sample.id, target=sample.target, nodes=nodes)
