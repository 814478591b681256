"""Answers drawn over their pictures."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ...errors import HetgraphError
from ...files import write_atomically
from . import Answered

RIGHT, WRONG = "#1b7837", "#b2182b"
COLUMNS = 4


def draw(answered: Sequence[Answered], path: str | Path, *, columns: int = COLUMNS) -> Path:
    """Draw questions with their pictures, the model's answer, its probability, and where it is wrong the right one.

    Args:
        answered: what to draw, with pictures.
        path: of the .png.
        columns: pictures side by side.

    Raises:
        HetgraphError: nothing to draw, or a question without a picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from PIL import Image

    bare = [one.id for one in answered if one.picture is None]
    if bare or not answered:
        raise HetgraphError(f"question {bare[0]!r}: no picture" if bare else "no questions to draw")
    rows = -(-len(answered) // columns)
    # between the rows is room for two lines of an answer and two of the next question
    layout = ConstrainedLayoutEngine(h_pad=0.3)
    figure = Figure(figsize=(2.7 * columns, 3.9 * rows), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place in axes:
        place.axis("off")
    for place, one in zip(axes, answered, strict=False):
        pixels = Image.open(one.picture) if isinstance(one.picture, str | Path) else one.picture
        small = max(getattr(pixels, "size", (0,)) if isinstance(pixels, Image.Image) else pixels.shape[:2]) < 100
        place.imshow(pixels, interpolation="nearest" if small else "antialiased", cmap="grey")
        place.set_title("\n".join(textwrap.wrap(one.question, 30)), fontsize=9)
        said = f"{one.answer}  ({one.confidence:.0%})"
        wrong = "" if one.right or one.target is None else f"\nright: {one.target}"
        place.text(
            0.5,
            -0.04,
            said + wrong,
            transform=place.transAxes,
            ha="center",
            va="top",
            fontsize=10,
            color=RIGHT if one.right else WRONG,
        )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_atomically(Path(path), content.getvalue())
    return Path(path)
