"""What is found by what: a heat map over all ordered pairs of modalities."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import HetgraphError
from ...files import write_atomically

FEW = 50


def draw(scores: Mapping[str, float], path: str | Path, *, metric: str = "recall@10", title: str = "") -> Path:
    """A row for each modality that asks, a column for each that is found. A PNG file.

    Where there are fewer than :data:`FEW` candidates their number is written below the score, which is then high by
    chance.

    Args:
        scores: of :func:`hetgraph.tasks.retrieval.evaluate`.
        path: where to write.
        metric: which of them.
        title: above the picture.

    Raises:
        HetgraphError: there are no such scores.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found: dict[tuple[str, str], float] = {}
    few: dict[tuple[str, str], float] = {}
    for name, value in scores.items():
        if name.startswith(f"{metric} ") and " + " not in name:
            query, _, candidate = name.removeprefix(f"{metric} ").partition(" > ")
            found[query, candidate] = value
            count = scores.get(f"candidates {query} > {candidate}", FEW)
            if count < FEW:
                few[query, candidate] = count
    names = list(dict.fromkeys(name for pair in found for name in pair))
    if not names:
        raise HetgraphError(f"no scores {metric!r} of pairs of modalities to draw")
    table = np.array([[found.get((a, b), np.nan) for b in names] for a in names])
    figure = Figure(figsize=(1.8 + 0.85 * len(names), 1.2 + 0.62 * len(names)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(np.ma.masked_invalid(table), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            pair = names[row], names[column]
            words = f"{value:.2f}\nof {few[pair]:.0f}" if pair in few else f"{value:.2f}"
            axes.text(column, row, words, ha="center", va="center", color="white" if value > 0.55 else "black")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("found")
    axes.set_ylabel("query")
    axes.set_title(title or metric, fontsize=10)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white", metadata={"Software": None})
    write_atomically(Path(path), picture.getvalue())
    return Path(path)
