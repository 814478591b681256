"""What is said of a comparison: remarks, the verdict in words, the table, the plot."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from toy_comparison import QUICK, SMALL, parts

from hetgraph import compare as comparing
from hetgraph.compare import compare, paired
from hetgraph.comparison_report import draw, no_harm, remarks, table
from hetgraph.comparison_runs import Always

torch.set_num_threads(1)


@pytest.mark.parametrize(("notes", "said"), [("", []), ("a note", ["a note"]), (("one", "two"), ["one", "two"])])
def test_notes_of_the_data_are_remarks(tmp_path, notes, said) -> None:
    result = compare(Always(parts(notes=notes)), replace(SMALL, seeds=(0,), lr=(0.01,)), tmp_path)
    assert list(remarks(result)) == said


def test_the_result_says_who_is_off_the_budget(tmp_path) -> None:
    result = compare(Always(parts()), replace(SMALL, budget=10, heads=4, seeds=(0,), lr=(0.01,)), tmp_path)
    assert not result["rows"][0]["within_budget"]
    assert any("10 % off the budget" in line for line in remarks(result))


def test_the_graph_is_compared_with_its_best_single_modality(tmp_path) -> None:
    settings = replace(SMALL, seeds=(0, 1, 2), single=True, lr=(0.03,), training=replace(QUICK, epochs=8))
    result = compare(Always(parts()), settings, tmp_path)
    rows = {row["name"]: row for row in result["rows"]}
    harm = result["no_harm"]
    assert (harm["single"], harm["chosen_by"]) == ("graph, word alone", "validation")
    assert rows["graph, word alone"]["mean"] > 0.8 > rows["graph, noise alone"]["mean"]
    gains = [rows["graph"]["values"][s] - rows["graph, word alone"]["values"][s] for s in "012"]
    assert harm["gain"] == pytest.approx(np.mean(gains))
    assert harm["standard_error"] == pytest.approx(np.std(gains, ddof=1) / 3**0.5)
    assert rows["graph"]["against"] is None
    assert "best single (graph, word alone, chosen by validation)" in next(remarks(result))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.1, 0.01, 10.0), "better by 0.1000 ± 0.0100, +10.0 standard errors: no harm"),
        ((-0.1, 0.01, -10.0), "worse by 0.1000 ± 0.0100, -10.0 standard errors: harm"),
        ((-0.01, 0.01, -1.0), "-1.0 standard errors: within what seeds alone can make"),
        ((0.1, None, None), "better by 0.1000, with one seed"),
        ((0.1, 0.0, None), "the same with every seed"),
        ((None, None, None), "no seed in common"),
    ],
)
def test_the_verdict_in_words(values, verdict) -> None:
    gain, error, ratio = values
    about = {"single": "s", "chosen_by": "validation", "all": 0.9, "alone": 0.8}
    said = no_harm({**about, "gain": gain, "standard_error": error, "in_standard_errors": ratio})
    assert said.endswith(verdict)


def many_rows() -> dict[str, Any]:
    """A result with all methods, as large as it gets."""
    rng = np.random.default_rng(0)
    names = [*(f"method_numb_{i}" for i in range(11)), "graph", "graph, token alone", "graph, frame alone"]
    rows = []
    for i, name in enumerate(names):
        values = {str(s): float(v) for s, v in enumerate(rng.normal(0.9 - 0.02 * i, 0.01, 10))}
        pair = {"name": "graph", **paired(values, dict.fromkeys(values, 0.8))}
        alone = name.endswith("alone")
        rows.append(
            {
                "name": name,
                "modalities": [name.split()[1]] if alone else ["token", "frame"],
                "values": values,
                **comparing._summary(list(values.values())),
                "parameters": 1_234_567 + i,
                "within_budget": i != 3,
                "seconds_per_epoch": 123.4,
                "lr": 0.0003,
                "dropout": 0.15,
                "against": None if alone else {**pair, "p_sign_flip_holm": 0.00195, "p_t_holm": 1e-9},
            }
        )
    return {
        "data": "a data set",
        "notes": [],
        "metric": "accuracy",
        "larger_is_better": True,
        "budget": 1_234_567,
        "tuned_by": "validation accuracy",
        "configurations": 4,
        "workers": 2,
        "settings": {"seeds": list(range(10)), "tuning_seeds": [0], "methods": names[:12]},
        "rows": rows,
        "floor": {"name": "most frequent class", "mean": 0.55, "std": None},
        "no_harm": {
            "single": "graph, token alone", "chosen_by": "validation", "all": 0.68, "alone": 0.66, "gain": 0.02,
            "standard_error": 0.004, "in_standard_errors": 5.0,
        },
        "failures": [],
    }  # fmt: skip


def test_the_table_fits_a_hundred_columns() -> None:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(many_rows()))
    console.file.close()
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    for part in ("1.235M*", "<0.001", "0.002", "most frequent", "method_numb_10", "4 configurations each"):
        assert part in text


def test_the_plot_shows_a_dot_for_every_seed(tmp_path, monkeypatch) -> None:
    from matplotlib.axes import Axes

    dots: list[list[float]] = []
    real = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, **k: dots.append(list(x)) or real(self, x, y, **k))
    result = many_rows()
    draw(result, tmp_path / "plot.png")
    assert dots == [list(row["values"].values()) for row in result["rows"]]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
