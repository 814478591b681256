"""The plots of the report: bars of ratios, and lines of time against size.

Made for the width of a README page, legible with any colour vision: hatches, markers and the order of the bars say
what the colours say. Matplotlib's figure objects are used directly: no window, no global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from hetgraph.files import write_atomically

from .common import number

COLUMNS = ("PyG", "DGL", "DGL kernels")
"""The peers that have a column in the table and a bar."""

_INK, _SOFT, _GRID = "#222222", "#6b6b66", "#e2e2dc"
# Okabe and Ito's colours, told apart with any colour vision; hatches and markers repeat the difference
_STYLE = {
    "hetgraph": ("#0072b2", "", "o"),
    "hetgraph, graph built": ("#0072b2", "", "x"),
    "PyG": ("#d55e00", "", "s"),
    "DGL": ("#009e73", "////", "^"),
    "DGL kernels": ("#cc79a7", "....", "D"),
}
_TIMES = "\N{MULTIPLICATION SIGN}"
_OTHER = ("#7a7a7a", "", "v")


@dataclass
class Row:
    """One measurement: ours and the peers' ratios to it."""

    title: str
    kind: str
    sizes: dict[str, int]
    ours: float
    unit: str
    ratios: dict[str, float]


def draw_bars(every: Sequence[Row], path: Path, what: str) -> None:
    """Horizontal bars, one group a row: the peers' value over ours, on a logarithmic axis from 1."""
    groups = [(row, [c for c in COLUMNS if c in row.ratios]) for row in every]
    groups = [(row, columns) for row, columns in groups if columns]
    named = [column for column in COLUMNS if any(column in columns for _, columns in groups)]
    gap, bar = 0.75, 1.0
    height = sum(max(len(columns), 2) * bar + gap for _, columns in groups)
    figure = Figure(figsize=(9.0, 1.15 + 0.19 * height), dpi=200)
    axes = figure.add_axes((0.4, 0.62 / figure.get_figheight(), 0.56, 1 - 1.08 / figure.get_figheight()))
    top = 0.0
    for row, columns in groups:
        room = max(len(columns), 2) * bar
        for i, column in enumerate(columns):
            colour, hatch, _ = _STYLE[column]
            y = top + (room - len(columns) * bar) / 2 + (i + 0.5) * bar
            ratio = row.ratios[column]
            axes.barh(y, ratio - 1, bar * 0.86, left=1, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
            right = ratio >= 1
            axes.annotate(
                f"{number(ratio)}{_TIMES}",
                (ratio, y),
                textcoords="offset points",
                xytext=(4 if right else -4, 0),
                ha="left" if right else "right",
                va="center",
                fontsize=9,
                color=_INK,
            )
        middle = top + room / 2
        axes.annotate(
            f"{row.title}\n{row.kind}{_edges(row.sizes)}; hetgraph {number(row.ours)} {row.unit}",
            (-0.01, middle),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=8.3,
            color=_INK,
        )
        top += room + gap
    axes.set_ylim(top - gap / 2, -gap / 2)
    ratios = [row.ratios[column] for row, columns in groups for column in columns]
    axes.set_xscale("log")
    # room for the numbers at the ends
    axes.set_xlim(min(1.0, *ratios) / (2.0 if min(ratios) < 1 else 1.0), max(1.0, *ratios) * 1.6)
    axes.axvline(1, color=_INK, linewidth=1.2)
    axes.set_yticks([])
    _plain_log(axes.xaxis, decades=3)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{what}, as a multiple of hetgraph's (log scale; the line at 1 is hetgraph)", fontsize=9.5, x=0.3)
    _spines(axes, ("left", "top", "right"))
    _legend(figure, named, bars=True)
    _save(figure, path)


def draw_lines(settings: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a sweep: time against size, both axes logarithmic."""
    columns = 2 if len(settings) > 1 else 1
    lines = -(-len(settings) // columns)
    figure = Figure(figsize=(9.0, 0.5 + 3.1 * lines), dpi=200)
    below = 1 - 0.42 / figure.get_figheight()
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, below), wspace=0.06, hspace=0.08))
    named: list[str] = []
    for at, setting in enumerate(settings):
        axes = figure.add_subplot(lines, columns, at + 1)
        sizes = [int(kind) for kind in setting["values"]]
        ours = setting["ours"]
        there = dict.fromkeys(name for found in setting["values"].values() for name in found)
        variants = {name: name for name in there if name.startswith(f"{ours}, ")}
        for column, name in {"hetgraph": ours, **variants, **setting["peers"]}.items():
            points = [(n, v[name]) for n, v in zip(sizes, setting["values"].values(), strict=True) if name in v]
            if not points:
                continue
            if column not in named:
                named.append(column)
            colour, _, marker = _STYLE.get(column, _OTHER)
            x = [n for n, _ in points]
            axes.fill_between(x, [v["low"] for _, v in points], [v["high"] for _, v in points], color=colour, alpha=0.2)
            line = "--" if name in variants else "-"
            y = [v["median"] for _, v in points]
            axes.plot(x, y, line, color=colour, marker=marker, markersize=5.5, linewidth=1.8)
        last = setting["values"][str(sizes[-1])][ours]["median"]
        linear = [last * size / sizes[-1] for size in sizes]
        axes.plot(sizes, linear, ":", color=_SOFT, linewidth=1.4, zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        _plain_log(axes.yaxis)
        axes.tick_params(labelsize=9, colors=_INK)
        axes.set_xlabel(setting["axis"], fontsize=10)
        axes.set_ylabel(f"forward + backward, {setting['unit']}", fontsize=9.5)
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        _spines(axes, ("top", "right"))
    _legend(figure, named, bars=False)
    _save(figure, path)


def _short(value: float) -> str:
    return f"{value / 1000:,g}k" if value >= 1000 and value % 1000 == 0 else f"{value:,g}"


def _edges(sizes: dict[str, int]) -> str:
    """How many edges, to three digits, if that is among the sizes."""
    edges = sizes.get("edges")
    if edges is None:
        return ""
    return f", {edges / 1e6:.3g}M edges" if edges >= 1e6 else f", {edges / 1e3:.3g}k edges"


def _plain_log(axis: Any, decades: float = 1.3) -> None:
    """Plain numbers on a logarithmic axis, with 2 and 5 where it spans fewer decades than said."""
    low, high = axis.get_view_interval()
    short = math.log10(high / low) < decades
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,), numticks=30))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_tick_params(labelsize=9, colors=_INK)


def _spines(axes: Axes, hidden: Sequence[str]) -> None:
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(side not in hidden)
        axes.spines[side].set_color(_SOFT)


def _legend(figure: Figure, named: Sequence[str], *, bars: bool) -> None:
    words = {"DGL kernels": "DGL's kernels, same function"}
    handles: list[Any] = []
    for column in named:
        colour, hatch, marker = _STYLE.get(column, _OTHER)
        label = words.get(column, column)
        if bars:
            handles.append(Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0, label=label))
        else:
            handles.append(Line2D([], [], color=colour, marker=marker, linewidth=1.8, label=label))
            if column.startswith("hetgraph,"):
                handles[-1].set_linestyle("--")
    if not bars:
        handles.append(Line2D([], [], linestyle=":", color=_SOFT, linewidth=1.4, label="linear growth"))
    size = 10 if len(handles) < 4 else 9
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False, fontsize=size)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white", metadata={"Software": None})
    write_atomically(path, picture.getvalue())
