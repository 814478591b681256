"""All comparisons in one picture: a panel per data set, a line per method, a dot per seed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hetgraph.files import write_atomically
from hetgraph.fusion import METHODS

COLUMNS = 3
_INK, _GRID = "#222222", "#e2e2dc"
# Okabe and Ito's colours; the marker repeats the difference
_GRAPH, _OTHER, _SINGLE = "#d55e00", "#0072b2", "#009e73"


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Methods with all modalities, ``graph`` on top; a dashed line where its best single modality is. A PNG file."""
    height = -(-len(results) // COLUMNS)
    figure = Figure(figsize=(10.5, 0.45 + 3.0 * height), dpi=150)
    FigureCanvasAgg(figure)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()), wspace=0.04))
    names = list(METHODS)
    for i, result in enumerate(results):
        axes = figure.add_subplot(height, COLUMNS, i + 1)
        _panel(axes, result, names, labelled=i % COLUMNS == 0)
    figure.legend(handles=_handles(), loc="upper center", ncols=4, frameon=False, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white", metadata={"Software": None})
    write_atomically(path, picture.getvalue())


def _panel(axes: Axes, result: Mapping[str, Any], names: Sequence[str], labelled: bool) -> None:
    for row in result["rows"]:
        if row["name"] not in names:
            continue
        y, values = names.index(row["name"]), list(row["values"].values())
        graph = row["name"] == "graph"
        axes.scatter(
            values,
            [y - 0.12] * len(values),
            s=17,
            marker="D" if graph else "o",
            facecolor=_GRAPH if graph else _OTHER,
            edgecolor="white",
            linewidth=0.5,
            zorder=3,
        )
        axes.errorbar(row["mean"], y + 0.22, xerr=row["std"] or 0, fmt="|", color=_INK, markersize=7, linewidth=1.1)
    if result["no_harm"]:
        axes.axvline(result["no_harm"]["alone"], color=_SINGLE, linestyle="--", linewidth=1.5, zorder=1)
    lines_of(axes, names, labelled, result["larger_is_better"])
    axes.set_title(f"{result['data']}: {result['metric']}", fontsize=9.5, color=_INK)


def lines_of(axes: Axes, names: Sequence[str], labelled: bool, larger_is_better: bool) -> None:
    """A line for each name, the first on top; what is better is always to the right."""
    axes.set_yticks(range(len(names)), names if labelled else [""] * len(names))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=8.5, colors=_INK)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    if not larger_is_better:
        axes.invert_xaxis()


def _handles() -> list[Line2D]:
    def dot(colour: str, marker: str, label: str) -> Line2D:
        return Line2D([], [], color="none", marker=marker, markerfacecolor=colour, markeredgecolor="white", label=label)

    return [
        dot(_GRAPH, "D", "graph, a seed"),
        dot(_OTHER, "o", "another method, a seed"),
        Line2D([], [], color=_INK, marker="|", markersize=10, label="mean \N{PLUS-MINUS SIGN} std"),
        Line2D([], [], color=_SINGLE, linestyle="--", label="graph on its best single modality"),
    ]
