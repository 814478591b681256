"""Accuracy against the number of labelled samples, a line per approach of the method ``graph``."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hetgraph.files import write_atomically

_INK, _GRID = "#222222", "#e2e2dc"
# Okabe and Ito's colours; markers and dashes repeat the difference
_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#222222",
    "#999999",
    "#7a4a00",
    "#5b3a8c",
    "#c00020",
    "#5f7f00",
    "#0a9aa8",
    "#b0709a",
)
_MARKERS = "osD^vPX<>h*pd8"


def draw(result: Mapping[str, Any], path: Path, method: str = "graph") -> None:
    """A PNG file: mean over the seeds with its standard error, all edges.

    What is meta-learnt, or fine-tuned after pretraining, has solid lines; the others are dashed.
    """
    figure = Figure(figsize=(9.2, 4.4), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.12, 0.585, 0.79))
    curves: dict[str, dict[int, list[float]]] = {}
    solid: set[str] = set()
    pretraining = result["data"] == "pretraining"
    for run in result["runs"]:
        if run["method"] != method or run["edges"] != "all edges":
            continue
        for approach, found in run["scores"].items():
            name = f"{run['training']}, {approach}" if pretraining else approach
            if approach == "finetuned" if pretraining else run["training"] not in ("conventional", "untrained"):
                solid.add(name)
            for shots, value in found.items():
                curves.setdefault(name, {}).setdefault(int(shots), []).append(value)
    for i, (name, points) in enumerate(curves.items()):
        means = [statistics.fmean(values) for values in points.values()]
        errors = [statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in points.values()]
        axes.errorbar(
            list(points),
            means,
            yerr=errors,
            color=_COLOURS[i % len(_COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5.5,
            linewidth=1.6,
            capsize=2,
            linestyle="-" if name in solid else "--",
            label=name,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([float(shots) for shots in result["shots"]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(shots) for shots in result["shots"]])
    axes.set_xlabel("labelled samples of every class", fontsize=9.5, color=_INK)
    axes.set_ylabel("test accuracy", fontsize=9.5, color=_INK)
    axes.set_title(f"{result['data']}: {method}, mean and standard error over seeds", fontsize=10, color=_INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="center left", bbox_to_anchor=(0.665, 0.52), frameon=False, fontsize=8.5)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white", metadata={"Software": None})
    write_atomically(path, picture.getvalue())
