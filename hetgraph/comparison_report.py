"""The result of a comparison as tables and as a plot; everything is read off the JSON that ``compare`` gives."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from .files import write_atomically

Result = Mapping[str, Any]
LEVEL = 0.05
WIDTH = 100
_METHODS_A_TABLE = 6
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def table(result: Result) -> Table:
    """One line a method, best first; it needs no more than ``WIDTH`` columns."""
    seeds = len(result["settings"]["seeds"])
    better = "higher" if result["larger_is_better"] else "lower"
    shown = Table(
        title=f"{result['data']}: test {result['metric']} ({better} is better), {seeds} seeds",
        caption=" ".join(_caption(result)),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
    )
    shown.add_column("", overflow="fold")
    paired = ("vs best other", "p flip", "p t") if any(row["against"] for row in result["rows"]) else ()
    for name in ("mean", "std", "params", "s/epoch", "lr/dropout", *paired):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in result["rows"]:
        few = "" if len(row["values"]) == seeds else f" ({len(row['values'])} seeds)"
        shown.add_row(
            row["name"] + few,
            number(row["mean"]),
            number(row["std"]),
            short(row["parameters"]) + ("" if row["within_budget"] else "*"),
            f"{row['seconds_per_epoch']:.3g}",
            f"{row['lr']:g}/{row['dropout']:g}",
            *(_comparison(row["against"] or {}) if paired else ()),
        )
    floor = result["floor"]
    shown.add_row(floor["name"], number(floor["mean"]), number(floor["std"]))
    return shown


def subset_tables(result: Result) -> list[Table]:
    """A line for each subset of the modalities, a column a method, few methods a table; none if none was scored."""
    rows = [row for row in result["rows"] if row.get("subsets")]
    return [_subset_table(result, rows[i : i + _METHODS_A_TABLE]) for i in range(0, len(rows), _METHODS_A_TABLE)]


def _subset_table(result: Result, rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(
        title=f"{result['data']}: test {result['metric']} when only these modalities are there",
        caption="Models trained on everything. Samples that are left with nothing get the answer of the floor.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("modalities", overflow="fold")
    shown.add_column("answered", justify="right")
    for row in rows:
        shown.add_column(row["name"].replace("_", "\n"), justify="right", no_wrap=True)
    for several in zip(*(row["subsets"] for row in rows), strict=True):
        means = (number(one.get("mean")) for one in several)
        shown.add_row(" + ".join(several[0]["modalities"]), f"{several[0]['answered']:.0%}", *means)
    return shown


def remarks(result: Result) -> Iterator[str]:
    """What a reader must know beside the table."""
    harm = result["no_harm"]
    if harm is not None:
        yield no_harm(harm)
    seeds = len(result["settings"]["seeds"])
    if seeds > 1 and 2 / 2**seeds > LEVEL and len(result["settings"]["methods"]) > 1:
        yield (
            f"With {seeds} seeds the sign-flip test cannot give a p below {2 / 2**seeds:.3g}; six seeds or more can "
            f"reach {LEVEL}."
        )
    if any(not row["within_budget"] for row in result["rows"]):
        yield "* more than 10 % off the budget: no width that the heads divide comes closer."
    yield from result["notes"]
    for failure in result["failures"]:
        yield f"failed: {failure['run']}: {failure['error']}"


def no_harm(harm: Mapping[str, Any]) -> str:
    """Whether the graph with all modalities is worse than with the best of them alone, in words."""
    gain, error, ratio = harm["gain"], harm["standard_error"], harm["in_standard_errors"]
    start = (
        f"All modalities {number(harm['all'])}, best single ({harm['single']}, chosen by {harm['chosen_by']}) "
        f"{number(harm['alone'])}: "
    )
    if gain is None:
        return start + "no seed in common"
    moved = "no difference" if gain == 0 else f"{'better' if gain > 0 else 'worse'} by {number(abs(gain))}"
    if error is None:
        return f"{start}{moved}, with one seed"
    if ratio is None:
        return f"{start}{moved}, the same with every seed"
    verdict = "no harm" if ratio >= 2 else "harm" if ratio <= -2 else "within what seeds alone can make"
    return f"{start}{moved} {_PLUS_MINUS} {number(error)}, {ratio:+.1f} standard errors: {verdict}"


def _caption(result: Result) -> Iterator[str]:
    yield f"Budget {result['budget']:,} parameters (params: what each has, * if over 10 % off)."
    count = result["configurations"]
    if result["tuned_by"]:
        tuning = len(result["settings"]["tuning_seeds"])
        yield f"{count} configurations each, chosen by {result['tuned_by']} over {tuning} seed{'s' * (tuning > 1)}."
    else:
        yield "No tuning."
    workers = result["workers"]
    if workers > 1:
        yield f"Seconds with {workers} trainings side by side."
    yield f"std over seeds; difference {_PLUS_MINUS} standard error over paired seeds; p after Holm's correction."


def _comparison(against: Mapping[str, Any]) -> list[str]:
    if against.get("mean") is None:
        return ["", "", ""]
    error = against["standard_error"]
    difference = f"{against['mean']:+.4f}" + ("" if error is None else f"{_PLUS_MINUS}{error:.4f}")
    return [difference, _p(against["p_sign_flip_holm"]), _p(against["p_t_holm"])]


def number(value: float | None) -> str:
    """Four digits after the point, or about four in all for large numbers."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def short(count: int) -> str:
    """A count of parameters to four digits."""
    return f"{count:,}" if count < 10_000 else f"{count / 1e3:,.1f}k" if count < 1e6 else f"{count / 1e6:,.3f}M"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


# Okabe and Ito's colours, told apart with any colour vision; markers and line styles repeat the difference
_INK, _SOFT, _GRID = "#222222", "#6b6b66", "#e2e2dc"
_METHOD, _SINGLE, _BEST = "#0072b2", "#d55e00", "#009e73"


def draw(result: Result, path: str | Path) -> None:
    """One line a method, best on top: a dot per seed, the mean, and a bar of one std to both sides.

    Vertical lines show the floor and the best single modality. Written as PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = result["rows"]
    figure = Figure(figsize=(9.0, 1.75 + 0.42 * len(rows)), dpi=160)
    FigureCanvasAgg(figure)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.42 / figure.get_figheight())))
    axes = figure.add_subplot()
    total = len({name for row in rows for name in row["modalities"]})
    every = [value for row in rows for value in row["values"].values()]
    width = max(every) - min(every)
    for y, row in enumerate(rows):
        alone = len(row["modalities"]) < total
        colour, marker = (_SINGLE, "s") if alone else (_METHOD, "o")
        values = list(row["values"].values())
        heights = _spread(values, 0.008 * width, y - 0.08)
        axes.scatter(values, heights, s=24, marker=marker, facecolor=colour, edgecolor="white", linewidth=0.7, zorder=3)
        # under the dots, so that it hides none
        bar: dict[str, Any] = {
            "color": _INK,
            "markersize": 8,
            "markeredgewidth": 2,
            "capsize": 3,
            "linewidth": 1.2,
            "zorder": 4,
        }
        axes.errorbar(row["mean"], y + 0.24, xerr=row["std"], fmt="|", **bar)
    _lines(axes, result)
    axes.set_yticks(range(len(rows)), [f"{row['name']}\n{short(row['parameters'])} parameters" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(labelsize=8.5, colors=_INK)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    arrow = "higher is better \N{RIGHTWARDS ARROW}" if result["larger_is_better"] else (
        "\N{LEFTWARDS ARROW} lower is better"
    )  # fmt: skip
    axes.set_xlabel(f"{result['metric']} on the test part of {result['data']} ({arrow})", fontsize=9.5, color=_INK)
    _legend(figure, result, any(len(row["modalities"]) < total for row in rows))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white", metadata={"Software": None})
    write_atomically(path, picture.getvalue())


def _spread(values: list[float], near: float, y: float) -> list[float]:
    """Heights around ``y`` for dots of which those nearer than ``near`` would cover each other."""
    heights: list[float] = []
    for i, value in enumerate(values):
        before = sum(abs(value - other) <= near for other in values[:i])
        heights.append(y + 0.09 * ((before + 1) // 2) * (-1) ** before)
    return heights


def _lines(axes: Any, result: Result) -> None:
    if result["floor"]["mean"] is not None:
        axes.axvline(result["floor"]["mean"], color=_SOFT, linestyle=":", linewidth=1.6, zorder=1)
    if result["no_harm"] is not None:
        axes.axvline(result["no_harm"]["alone"], color=_BEST, linestyle="--", linewidth=1.6, zorder=1)


def _legend(figure: Any, result: Result, alone: bool) -> None:
    from matplotlib.lines import Line2D

    def dot(colour: str, marker: str, label: str) -> Line2D:
        return Line2D([], [], color="none", marker=marker, markerfacecolor=colour, markeredgecolor="white", label=label)

    handles = [dot(_METHOD, "o", "a seed")]
    if alone:
        handles.append(dot(_SINGLE, "s", "a seed, one modality"))
    handles.append(Line2D([], [], color=_INK, marker="|", markersize=11, label=f"mean {_PLUS_MINUS} std"))
    if result["floor"]["mean"] is not None:
        handles.append(Line2D([], [], color=_SOFT, linestyle=":", linewidth=1.6, label=result["floor"]["name"]))
    if result["no_harm"] is not None:
        handles.append(Line2D([], [], color=_BEST, linestyle="--", linewidth=1.6, label="best single modality"))
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False, fontsize=8.5)
