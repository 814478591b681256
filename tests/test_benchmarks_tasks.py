"""What the tasks' benchmarks measured as tables and a picture; who is level with the best follows from the scores."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from benchmarks import tasks
from hetgraph import HetgraphError
from hetgraph.fusion import METHODS

KEPT = Path(__file__).parents[1] / "docs" / "results"
BAR = tasks.Bar("toy", "accuracy", ("toy", "toy_edges"), ("scores", "top", "5"), "graph", ("scores", "low", "5"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three methods and one other kind of edges, in two files; a sixth seed of ``graph`` does not count."""
    found = {"graph": [0.80, 0.82, 0.84], "sum": [0.83, 0.81, 0.83], "late": [0.70, 0.71, 0.72]}
    runs = [
        {"method": name, "edges": "all edges", "seed": i, "scores": {"top": {"5": value}, "low": {"5": value / 2}}}
        for name, values in found.items()
        for i, value in enumerate(values)
    ]
    runs.append({"method": "graph", "edges": "all edges", "seed": 5, "scores": {"top": {"5": 0.0}, "low": {"5": 0.0}}})
    # another figure of the same file, which is not asked for
    runs.append({"method": "gated", "edges": "all edges", "seed": 0, "scores": {"else": 1.0}})
    (tmp_path / "toy.json").write_text(json.dumps({"runs": runs}))
    less = [{"method": "graph", "edges": "no edges", "seed": i, "scores": {"top": {"5": 0.5}}} for i in range(3)]
    (tmp_path / "toy_edges.json").write_text(json.dumps({"runs": less}))
    return tmp_path


def test_figures_are_found_by_condition_and_seed(folder) -> None:
    found = tasks.scores(folder, BAR.files, BAR.score)
    assert set(found) == {"graph", "sum", "late", "no edges"}
    assert found["graph"] == {"0": 0.80, "1": 0.82, "2": 0.84}
    assert tasks.best_other(found) == "sum"
    assert tasks.floor_of(folder, BAR) == pytest.approx(0.41)


@pytest.mark.parametrize(("last", "expected"), [(0.84, True), (0.82, True), (0.80, False), (0.60, False)])
def test_level_is_the_best_or_one_standard_error_behind(folder, last: float, expected: bool) -> None:
    found = tasks.scores(folder, BAR.files, BAR.score)
    found["graph"]["2"] = last
    gaps = [found["graph"][seed] - found["sum"][seed] for seed in "012"]
    by_hand = statistics.mean(gaps) >= -statistics.stdev(gaps) / 3**0.5
    assert tasks.level(found) == by_hand == expected


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ({"condition": "graph, no cross-modal edges"}, "no cross-modal edges"),
        ({"condition": "graph, question alone"}, "question alone"),
        ({"condition": "late"}, "late"),
        ({"method": "late"}, "late"),
        ({"method": "graph", "edges": "all edges"}, "graph"),
        ({"method": "graph", "edges": "shuffled edges"}, "shuffled edges"),
    ],
)
def test_every_benchmark_names_its_conditions_in_its_own_way(run, name: str) -> None:
    assert tasks.condition(run) == name


def test_what_is_missing_or_broken_is_said(folder) -> None:
    with pytest.raises(HetgraphError, match=r"none\.json is no result.*FileNotFoundError"):
        tasks.scores(folder, ("none",), BAR.score)
    (folder / "list.json").write_text("[]")
    with pytest.raises(HetgraphError, match=r"list\.json is no result"):
        tasks.scores(folder, ("list",), BAR.score)
    with pytest.raises(HetgraphError, match="no run of graph has scores > other"):
        tasks.scores(folder, BAR.files, ("scores", "other"))


def test_what_is_kept_makes_tables_that_fit_a_terminal_and_a_picture(tmp_path) -> None:
    for bar in tasks.BARS:
        found = tasks.scores(KEPT, bar.files, bar.score)
        assert all(len(values) == tasks.SEEDS for name, values in found.items() if name in METHODS), bar.title
    text = io.StringIO()
    console = Console(file=text, width=80)
    measured = tasks.read(KEPT)
    tables = [(tasks.families(measured), tasks.FAMILIES), (tasks.edges(measured), tasks.OTHER_EDGES)]
    for rows, title in tables:
        console.print(tasks.shown(rows, title))
    assert "…" not in text.getvalue()
    shapes = json.loads((KEPT / "vqa_shapes.json").read_text())["runs"]
    mean = {
        name: statistics.fmean(run["test"]["accuracy"] for run in shapes if run["condition"] == name)
        for name in ("graph", "graph, question alone", "graph, no cross-modal edges")
    }
    lines = [line for line in text.getvalue().splitlines() if "SHAPES" in line]
    assert f"{mean['graph']:.3f}°" in lines[0]
    assert f"{mean['graph, question alone']:.3f}" in lines[0]
    assert f"{mean['graph'] - mean['graph, no cross-modal edges']:+.3f}" in lines[1]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tasks.BEGIN}\nold\n{tasks.END}\nafter\n")
    tasks.main(["--results", str(KEPT), "--into", str(page), "--plot", str(tmp_path / "p.png")])
    assert all(tasks.markdown(rows, title) in page.read_text() for rows, title in tables)
    assert "old" not in page.read_text()
    assert imread(tmp_path / "p.png").shape[2] == 4
