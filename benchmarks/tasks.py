"""What the tasks' benchmarks measured, in two tables and one picture.

Reads what ``benchmarks.vqa``, ``retrieval``, ``generation``, ``detection`` and ``fewshot`` wrote to a folder. For every
bar: ``graph``, the best other fusion method, how far ``graph`` is ahead of it, whether it is the best or level with it
(a mean paired difference of at most one standard error), a floor, and ``graph`` with other edges.

    python -m benchmarks.tasks [--results FOLDER] [--into FILE.md] [--plot FILE.png]

With ``--into`` the tables are written between the lines ``<!-- tasks:begin -->`` and ``<!-- tasks:end -->`` of a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hetgraph.compare import paired
from hetgraph.errors import HetgraphError
from hetgraph.fusion import METHODS
from hetgraph.tasks.ablations import EDGES

from .comparison_plot import Panel, draw
from .report import line, write_between
from .runs import difference

SEEDS = 5
"""The first ones count: some tasks were run with more for ``graph`` alone."""
FAMILIES = f"Test parts, first {SEEDS} seeds (°: best, or at most one standard error behind)"
OTHER_EDGES = "Graph ahead of itself with other edges (in brackets: less than two standard errors)"
BEGIN, END = "<!-- tasks:begin -->", "<!-- tasks:end -->"
Run = Mapping[str, Any]
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Bar:
    """One figure of a task.

    Attributes:
        title: what is asked of which data.
        metric: what is measured.
        files: in the folder, without ``.json``.
        score: keys to the figure of a run; runs that lack them do not count.
        floor: condition of the floor, if there is one.
        floor_score: keys to the floor's figure, if it is another.
    """

    title: str
    metric: str
    files: tuple[str, ...]
    score: tuple[str, ...]
    floor: str = ""
    floor_score: tuple[str, ...] = ()


_ACCURACY = ("test", "accuracy")
BARS = (
    Bar("SHAPES", "accuracy", ("vqa_shapes",), _ACCURACY, "question alone"),
    Bar("VQA-RAD official", "accuracy", ("vqa_rad",), _ACCURACY, "question alone"),
    Bar("VQA-RAD disjoint", "accuracy", ("vqa_rad_disjoint",), _ACCURACY, "question alone"),
    Bar("DAQUAR", "accuracy", ("vqa_daquar",), _ACCURACY, "question alone"),
    Bar("DAQUAR, recall", "accuracy", ("vqa_daquar_recall",), _ACCURACY, "question alone"),
    Bar("Wikipedia", "mAP", ("retrieval_wikipedia",), ("scores", "map"), "cca"),
    *(
        Bar(
            f"{view} to caption",
            "R@10",
            ("retrieval_tuxpaint",),
            ("scores", f"recall@10 {view} > english"),
            "cca",
        )
        for view in ("picture", "speech")
    ),
    Bar("digit drawn", "accuracy", ("generation_digits", "generation_digits_edges"), _ACCURACY),
    Bar("detection", "mAP@0.5", ("detection_scenes",), ("scores", "map_50")),
    Bar("phrase grounding", "accuracy", ("detection_grounding",), ("scores", "accuracy")),
    Bar(
        "new speakers",
        "accuracy, 5 labels",
        ("fewshot_speakers", "fewshot_speakers_edges"),
        ("scores", "prior and prototypes, fine-tuned", "5"),
        "graph",
        ("scores", "fine-tuned", "5"),
    ),
)


def condition(run: Run) -> str:
    """The fusion method, the kind of edges of ``graph``, or what else a run is of."""
    if "condition" in run:
        return str(run["condition"]).removeprefix("graph, ")
    edges = run.get("edges", EDGES[0])
    return str(run["method"] if edges == EDGES[0] else edges)


def found_at(run: Run, keys: Sequence[str]) -> float | None:
    """A figure of a run, or None if it has no such figure."""
    value: Any = run
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return float(value)


def scores(folder: Path, files: Sequence[str], keys: Sequence[str]) -> Scores:
    """Condition -> seed -> figure.

    Raises:
        HetgraphError: a file is missing or broken, or has no such figure.
    """
    out: Scores = {}
    for name in files:
        path = folder / f"{name}.json"
        try:
            runs = json.loads(path.read_text())["runs"]
            for run in runs:
                value = found_at(run, keys)
                if value is not None and run["seed"] < SEEDS:
                    out.setdefault(condition(run), {})[str(run["seed"])] = value
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HetgraphError(f"{path} is no result of a task's benchmark: {error!r}") from error
    if "graph" not in out:
        raise HetgraphError(f"{', '.join(files)} in {folder}: no run of graph has {' > '.join(keys)}")
    return out


@dataclass(frozen=True)
class Measured:
    """A bar with its figures and the mean of its floor, if it has one."""

    bar: Bar
    scores: Scores
    floor: float | None


def read(folder: Path) -> list[Measured]:
    """Every bar, each of its files read once for it.

    Raises:
        HetgraphError: as for :func:`scores`, or a floor has no run.
    """
    return [Measured(bar, scores(folder, bar.files, bar.score), floor_of(folder, bar)) for bar in BARS]


def best_other(found: Scores) -> str | None:
    """The fusion method but ``graph`` with the best mean, or None."""
    others = [name for name in METHODS if name != "graph" and name in found]
    return max(others, key=lambda name: statistics.fmean(found[name].values()), default=None)


def level(found: Scores) -> bool:
    """Whether ``graph`` is the best fusion method, or at most one standard error behind."""
    other = best_other(found)
    if other is None:
        return True
    gap = paired(found["graph"], found[other])
    return gap["mean"] >= -(gap["standard_error"] or 0.0)


def floor_of(folder: Path, bar: Bar) -> float | None:
    """The mean of a bar's floor, if it has one."""
    if not bar.floor:
        return None
    found = scores(folder, bar.files, bar.floor_score or bar.score)
    if bar.floor not in found:
        raise HetgraphError(f"{', '.join(bar.files)} in {folder}: no run of {bar.floor!r}")
    return statistics.fmean(found[bar.floor].values())


def families(measured: Sequence[Measured]) -> list[list[str]]:
    """A heading, and a row per bar: ``graph``, and the best other fusion method."""
    rows = [["", "graph", "best other", "of", "graph ahead", "floor"]]
    for one in measured:
        found, other = one.scores, best_other(one.scores)
        gap = None if other is None else paired(found["graph"], found[other])
        rows.append(
            [
                one.bar.title,
                f"{statistics.fmean(found['graph'].values()):.3f}" + ("°" if level(found) else " "),
                other or "",
                str(sum(name in found for name in METHODS) - 1),
                "" if gap is None else difference(gap["mean"], gap["standard_error"]),
                "" if one.floor is None else f"{one.floor:.3f}",
            ]
        )
    return rows


def edges(measured: Sequence[Measured]) -> list[list[str]]:
    """A heading, and a row per bar: how far ``graph`` is ahead of itself with other edges."""
    rows = [["", *(kind if kind == "no edges" else kind.removesuffix(" edges") for kind in EDGES[1:])]]
    for one in measured:
        found, cells = one.scores, []
        for kind in EDGES[1:]:
            gap = paired(found["graph"], found[kind]) if kind in found else None
            sure = gap is not None and abs(gap["mean"]) > 2 * (gap["standard_error"] or 0.0)
            cells.append("" if gap is None else f"{gap['mean']:+.3f} " if sure else f"({gap['mean']:+.3f})")
        rows.append([one.bar.title, *cells])
    return rows


def shown(rows: Sequence[Sequence[str]], title: str) -> Table:
    """For a terminal."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("", "best other") else "right")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def markdown(rows: Sequence[Sequence[str]], title: str) -> str:
    """For a page."""
    cells = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join([f"{title}:", "", *(line([cell.strip() for cell in row]) for row in cells)])


def panel(one: Measured) -> Panel:
    """What the picture shows of one bar."""
    found = {name: list(own.values()) for name, own in one.scores.items()}
    return Panel(f"{one.bar.title}: {one.bar.metric}", found, one.floor)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--into", type=Path, help="a file with the two lines to put the tables between")
    parser.add_argument("--plot", type=Path, help="draw all of them into this .png")
    arguments = parser.parse_args(given)
    console = Console(highlight=False)
    measured = read(arguments.results)
    tables = [(families(measured), FAMILIES), (edges(measured), OTHER_EDGES)]
    for rows, title in tables:
        console.print(shown(rows, title))
    count = sum(level(one.scores) for one in measured)
    said = f"graph is the best, or level with the best, in {count} of {len(measured)}"
    console.print(said)
    if arguments.into:
        parts = [*(markdown(rows, title) for rows, title in tables), f"{said}."]
        write_between(arguments.into, "\n\n".join(parts), BEGIN, END)
    if arguments.plot:
        floor = "question alone, CCA, or plain fine-tuning"
        draw([panel(one) for one in measured], arguments.plot, tuple(METHODS), floor, edges=EDGES[1:])


if __name__ == "__main__":
    main()
