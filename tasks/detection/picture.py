"""True and found boxes over their pictures, of two models side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import HetgraphError
from ...files import write_atomically
from .boxes import iou
from .coco import Detected

TRUE, RIGHT, WRONG = "#222222", "#0072b2", "#d55e00"
LEAST = 0.3
"""Boxes with a lower score are not drawn."""


def draw(found: Mapping[str, Sequence[Detected]], path: str | Path, *, least: float = LEAST) -> Path:
    """Draw pictures with true boxes (dashed) and found ones (solid), a row of pictures for each name.

    A found box is blue if an object of its class overlaps it by at least half, else orange.

    Args:
        found: name of the row -> what is found in the same pictures, with their pictures.
        path: of the .png.
        least: score from which on a box is drawn.

    Raises:
        HetgraphError: nothing to draw, or a sample without a picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    rows = list(found.items())
    columns = max((len(some) for _, some in rows), default=0)
    bare = [one.id for _, some in rows for one in some if one.picture is None]
    if bare or not columns:
        raise HetgraphError(f"sample {bare[0]!r}: no picture" if bare else "nothing to draw")
    figure = Figure(figsize=(2.15 * columns, 2.3 * len(rows) + 0.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, some) in zip(axes, rows, strict=True):
        for place in line:
            place.set_xticks([])
            place.set_yticks([])
        line[0].set_ylabel(name, fontsize=9)
        for place, one in zip(line, some, strict=False):
            _panel(place, one, least)
    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, metadata={"Software": None})
    # noise does not compress: a palette makes the file a third as large
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    write_atomically(Path(path), content.getvalue())
    return Path(path)


def _panel(place: Any, one: Detected, least: float) -> None:
    import numpy as np
    from matplotlib.patches import Rectangle
    from PIL import Image

    pixels = np.asarray(Image.open(one.picture)) if isinstance(one.picture, str | Path) else one.picture
    height, width = pixels.shape[:2]
    place.imshow(pixels, interpolation="nearest")

    def box(values: Sequence[float], **style: Any) -> None:
        x1, y1, x2, y2 = (v * side for v, side in zip(values, (width, height) * 2, strict=True))
        place.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, **style))

    for values in [] if one.target is None else one.target.box.tolist():
        box(values, edgecolor=TRUE, linestyle=(0, (3, 2)), linewidth=1.3)
    for values, name, score, right in zip(one.box.tolist(), one.label, one.score.tolist(), _right(one), strict=True):
        if score < least:
            continue
        colour = RIGHT if right else WRONG
        box(values, edgecolor=colour, linewidth=1.3)
        place.text(
            max(values[0], 0.0) * width,
            max(values[1], 0.05) * height - 1,
            f"{name} {score:.2f}",
            fontsize=6,
            color="white",
            va="bottom",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )
    place.set_xlim(-0.5, width - 0.5)
    place.set_ylim(height - 0.5, -0.5)


def _right(one: Detected) -> list[bool]:
    """Whether an object of its class overlaps each found box by at least half."""
    if one.target is None or not one.target.label:
        return [False] * len(one.label)
    same = torch.tensor([[a == b for b in one.target.label] for a in one.label]).reshape(len(one.label), -1)
    return ((iou(one.box[:, None], one.target.box[None]) >= 0.5) & same).any(1).tolist()
