"""Several comparisons in one picture: a panel each, a line per method, a dot per seed."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hetgraph.files import write_atomically

COLUMNS = 3
_INK, _GRID = "#222222", "#e2e2dc"
# Okabe and Ito's colours; the marker repeats the difference
_GRAPH, _OTHER, _FLOOR, _EDGES = "#d55e00", "#0072b2", "#009e73", "#cc79a7"


@dataclass(frozen=True)
class Panel:
    """What was measured on one data set.

    Attributes:
        title: above the panel.
        scores: line -> a score per seed; lines that are missing stay empty.
        floor: where a dashed line is, or None.
        larger_is_better: what is better is always to the right.
    """

    title: str
    scores: Mapping[str, Sequence[float]]
    floor: float | None = None
    larger_is_better: bool = True


def draw(
    panels: Sequence[Panel],
    path: Path,
    names: Sequence[str],
    floor: str,
    *,
    edges: Sequence[str] = (),
) -> None:
    """A PNG file.

    Args:
        panels: in reading order.
        path: of the file.
        names: the methods, the first on top.
        floor: what the dashed lines are.
        edges: lines below the methods: ``graph`` with other edges.
    """
    height, lines = -(-len(panels) // COLUMNS), [*names, *edges]
    size = (10.5, 0.45 + height * (0.36 + 0.24 * len(lines)))
    figure = Figure(figsize=size, dpi=150)
    FigureCanvasAgg(figure)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.35 / size[1]), wspace=0.04))
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(height, COLUMNS, i + 1)
        _panel(axes, panel, lines, set(edges), labelled=i % COLUMNS == 0)
    figure.legend(handles=_handles(floor, bool(edges)), loc="upper center", ncols=5, frameon=False, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white", metadata={"Software": None})
    write_atomically(path, picture.getvalue())


def _panel(axes: Axes, panel: Panel, names: Sequence[str], edges: set[str], labelled: bool) -> None:
    for name, values in panel.scores.items():
        if name not in names:
            continue
        y = names.index(name)
        colour, marker = (_GRAPH, "D") if name == "graph" else (_EDGES, "s") if name in edges else (_OTHER, "o")
        axes.scatter(
            values,
            [y - 0.12] * len(values),
            s=17,
            marker=marker,
            facecolor=colour,
            edgecolor="white",
            linewidth=0.5,
            zorder=3,
        )
        std = statistics.stdev(values) if len(values) > 1 else 0
        axes.errorbar(statistics.fmean(values), y + 0.22, xerr=std, fmt="|", color=_INK, markersize=7, linewidth=1.1)
    if panel.floor is not None:
        axes.axvline(panel.floor, color=_FLOOR, linestyle="--", linewidth=1.5, zorder=1)
    lines_of(axes, names, labelled, panel.larger_is_better)
    axes.set_title(panel.title, fontsize=9.5, color=_INK)


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


def _handles(floor: str, edges: bool) -> list[Line2D]:
    def dot(colour: str, marker: str, label: str) -> Line2D:
        return Line2D([], [], color="none", marker=marker, markerfacecolor=colour, markeredgecolor="white", label=label)

    return [
        dot(_GRAPH, "D", "graph, a seed"),
        dot(_OTHER, "o", "another method, a seed"),
        *([dot(_EDGES, "s", "graph with other edges")] if edges else []),
        Line2D([], [], color=_INK, marker="|", markersize=10, label="mean \N{PLUS-MINUS SIGN} std"),
        Line2D([], [], color=_FLOOR, linestyle="--", label=floor),
    ]
