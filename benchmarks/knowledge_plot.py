"""What a knowledge graph adds, as a picture: a panel per kind of question, a line per condition, a dot per seed."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from hetgraph.files import write_atomically

from .comparison_plot import lines_of

COLUMNS = 3
_INK = "#222222"
# Okabe and Ito's colours; the marker repeats the difference
_STYLE = {"none": ("#009e73", "s"), "graph": ("#d55e00", "D")}
_OTHER = ("#0072b2", "o")


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Scores of every seed, their mean and spread; a dashed line at the mean without a graph. A PNG file."""
    kinds = list(result["runs"][0]["scores"])
    conditions = list(dict.fromkeys(run["condition"] for run in result["runs"]))
    rows = -(-len(kinds) // COLUMNS)
    figure = Figure(figsize=(3.6 * min(COLUMNS, len(kinds)) + 1.2, 0.5 + 2.2 * rows), dpi=150)
    FigureCanvasAgg(figure)
    figure.set_layout_engine(ConstrainedLayoutEngine(wspace=0.04))
    for i, kind in enumerate(kinds):
        axes = figure.add_subplot(rows, min(COLUMNS, len(kinds)), i + 1)
        scores = {
            name: [run["scores"][kind][result["metric"]] for run in result["runs"] if run["condition"] == name]
            for name in conditions
        }
        _panel(axes, scores, i % COLUMNS == 0, result["larger_is_better"])
        axes.set_title(kind if len(kinds) > 1 else result["data"], fontsize=10, color=_INK)
        axes.set_xlabel(f"test {result['metric']}", fontsize=8.5, color=_INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white", metadata={"Software": None})
    write_atomically(path, picture.getvalue())


def _panel(axes: Axes, scores: Mapping[str, list[float]], labelled: bool, larger_is_better: bool) -> None:
    for y, (name, own) in enumerate(scores.items()):
        colour, marker = _STYLE.get(name, _OTHER)
        place = [y - 0.12] * len(own)
        axes.scatter(own, place, s=20, marker=marker, facecolor=colour, edgecolor="white", linewidth=0.5, zorder=3)
        spread = statistics.stdev(own) if len(own) > 1 else 0.0
        axes.errorbar(statistics.fmean(own), y + 0.22, xerr=spread, fmt="|", color=_INK, markersize=7, linewidth=1.1)
    if scores.get("none"):
        axes.axvline(statistics.fmean(scores["none"]), color=_STYLE["none"][0], linestyle="--", linewidth=1.2, zorder=1)
    lines_of(axes, list(scores), labelled, larger_is_better)
