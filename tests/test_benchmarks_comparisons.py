"""The results of comparisons become one table and one page; who is level with the best follows from the scores."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from toy_comparison import SMALL, parts

from benchmarks import comparisons
from hetgraph import HetgraphError
from hetgraph.compare import compare
from hetgraph.comparison_runs import Always

SCORES = {"graph": [0.80, 0.82, 0.84], "sum": [0.83, 0.81, 0.83], "late": [0.70, 0.71, 0.72]}


@pytest.fixture
def result(tmp_path) -> dict[str, Any]:
    """A real result with scores that are easy to follow."""
    found = compare(
        Always(parts()),
        replace(SMALL, methods=tuple(SCORES), seeds=(0, 1, 2), lr=(0.01,), dropout=(0.0,), single=True),
        tmp_path / "out",
    )
    for row in found["rows"]:
        values = SCORES.get(row["name"], [0.5, 0.6, 0.7])
        row |= {"values": dict(zip("012", values, strict=True)), "mean": statistics.mean(values)}
        row["std"] = statistics.stdev(values)
    found["rows"].sort(key=lambda row: -row["mean"])
    return found


@pytest.fixture
def folder(result, tmp_path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "compare_mine.json").write_text(json.dumps(result))
    return tmp_path / "results"


def test_behind_is_the_mean_paired_difference_to_the_best_other(result) -> None:
    differences = [a - b for a, b in zip(SCORES["sum"], SCORES["late"], strict=True)]
    lag, error = comparisons.behind(result, "late")
    assert lag == pytest.approx(statistics.mean(differences))
    assert error == pytest.approx(statistics.stdev(differences) / 3**0.5)
    # the best one is ahead of the second
    assert comparisons.behind(result, "sum")[0] == pytest.approx(-(0.83 + 0.81 + 0.83 - 0.80 - 0.82 - 0.84) / 3)


def test_smaller_may_be_better(result) -> None:
    result["larger_is_better"] = False
    result["rows"].sort(key=lambda row: row["mean"])
    assert comparisons.behind(result, "late")[0] < 0 < comparisons.behind(result, "sum")[0]


def test_the_table_marks_the_best_and_who_is_level_with_it(result) -> None:
    lines = {line.split("|")[1].strip(): line for line in comparisons.summary([result])}
    assert "**0.823" in lines["sum"]
    assert "0.820 ± 0.020°" in lines["graph"]
    assert "0.710 ± 0.010 " in lines["late"]
    assert "**" not in lines["late"]
    assert list(lines)[2] == "graph"


def test_one_command_makes_table_and_page(folder, tmp_path, capsys) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{comparisons.BEGIN}\nold\n{comparisons.END}\nafter\n")
    comparisons.main(
        [
            "--results",
            str(folder),
            "--page",
            str(tmp_path / "page.md"),
            "--into",
            str(readme),
            "--plot",
            str(tmp_path / "p.png"),
        ]
    )
    printed = capsys.readouterr().out
    assert "graph +0.0033" in printed
    assert "level with the best" in printed
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert imread(tmp_path / "p.png").shape[2] == 4
    page = (tmp_path / "page.md").read_text()
    assert all(f"| {name} | {statistics.mean(values):.4f} |" in page for name, values in SCORES.items())
    assert all(line in page for line in comparisons.summary(comparisons.read(folder)))


def test_no_result_and_a_broken_one_are_refused(folder) -> None:
    with pytest.raises(HetgraphError, match=r"no compare_\*.json"):
        comparisons.read(folder.parent)
    (folder / "compare_mine.json").write_text('{"data": "mine"}')
    with pytest.raises(HetgraphError, match=r"compare_mine\.json is no result"):
        comparisons.read(folder)


def test_the_results_that_are_kept_can_be_read() -> None:
    kept = comparisons.read(Path(__file__).parents[1] / "docs" / "results")
    assert all(len(row["values"]) >= 5 for result in kept for row in result["rows"])
