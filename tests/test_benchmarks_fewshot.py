"""The benchmark of few shots: runs are kept, gains are paired, edges are ablated, the picture is drawn."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
from PIL import Image
from test_fewshot import SCHEMA, SMALL, domains, sample

from benchmarks import fewshot
from benchmarks.fewshot_plot import draw
from hetgraph.objectives import Classification
from hetgraph.tasks.datasets import Dataset
from hetgraph.tasks.fewshot import OBJECTIVES, PretrainingSettings, adapting, probing


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(fewshot, "SHOTS", (1, 2))
    monkeypatch.setattr(adapting, "STEPS", (0, 1))
    monkeypatch.setattr(probing, "TUNED", [(adapting.Adaptation("all"), (1, 2))])
    monkeypatch.setattr(fewshot, "load", lambda name, folder, seed: domains(ways=3 if name == "speakers" else 2))
    parts = [[sample(f"{p}{i}", i % 3, 100 * k + i) for i in range(12)] for k, p in enumerate("abc")]
    digits = Dataset("toy", SCHEMA, *parts, objective=Classification(("0", "1", "2")))
    monkeypatch.setattr(fewshot, "load_data", lambda name, folder, seed: digits)


def test_every_approach_is_scored_and_what_is_kept_is_not_done_again(tmp_path) -> None:
    path, told = tmp_path / "r.json", []
    result = fewshot.measure("speakers", None, path, ["sum"], [0, 1], watch=told.append, settings=SMALL)
    assert len(told) == len(result["runs"]) == 2 * 6
    names = fewshot.lines(result, "sum")
    assert sorted(names) == sorted(fewshot.APPROACHES)
    assert all(set(fewshot.values(result, "sum", name, 2)) == {"0", "1"} for name in names)
    again = fewshot.measure("speakers", None, path, ["sum"], [0, 1], watch=told.append, settings=SMALL)
    assert again == result
    assert len(told) == 12
    draw(result, tmp_path / "p.png", "sum")
    with Image.open(tmp_path / "p.png") as image:
        assert image.size[0] > 500


def test_classes_that_nobody_knows_cannot_be_told_without_adapting(tmp_path) -> None:
    result = fewshot.measure("digits", None, tmp_path / "r.json", ["sum"], [0], settings=SMALL)
    assert sorted(fewshot.lines(result, "sum")) == sorted(
        name for name in fewshot.APPROACHES if name != "no adaptation" and not name.startswith("prior")
    )


def test_gains_are_paired_by_seed() -> None:
    ours, plain = [0.8, 0.9, 0.7], [0.75, 0.7, 0.6]
    runs = [
        {"method": "graph", "edges": "all edges", "training": "t", "seed": seed, "scores": {name: {"5": value}}}
        for name, some in (("ANIL", ours), ("fine-tuned", plain))
        for seed, value in enumerate(some)
    ]
    # a seed that only one of them has is left out
    runs.append({**runs[0], "seed": 7})
    [(meta, other, found)] = fewshot.gains({"runs": runs}, "graph")
    apart = [a - b for a, b in zip(ours, plain, strict=True)]
    assert (meta, other) == ("ANIL", "fine-tuned")
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(fmean(apart))
    assert found["standard_error"] == pytest.approx(stdev(apart) / 3**0.5)


def test_edges_are_taken_away_from_the_graph_alone(tmp_path) -> None:
    kinds = ["all edges", "no edges"]
    settings = replace(SMALL, layers=0)
    result = fewshot.measure("speakers", None, tmp_path / "r.json", ["graph", "sum"], [0], kinds, settings=settings)
    assert {(run["method"], run["edges"]) for run in result["runs"]} == {
        ("graph", "all edges"),
        ("graph", "no edges"),
        ("sum", "all edges"),
    }
    assert "ANIL, no edges" in fewshot.lines(result, "graph")
    assert not fewshot.with_edges(domains(), "no edges", 0).schema.edges


def test_pretraining_is_beside_random_weights(tmp_path) -> None:
    small = PretrainingSettings(epochs=1, batch_size=8)
    path = tmp_path / "r.json"
    result = fewshot.measure("pretraining", None, path, ["sum"], [0], settings=SMALL, pretraining=small)
    assert [run["training"] for run in result["runs"]] == ["none", *OBJECTIVES, "all"]
    assert set(result["runs"][-1]["loss"]) == set(OBJECTIVES)
    assert all(set(run["scores"]) == {"probe", "finetuned"} for run in result["runs"])
    assert "contrastive: probe" in fewshot.lines(result, "sum")
    assert fewshot.table(result).row_count == 2 * 5
    draw(result, Path(tmp_path / "p.png"), "sum")
    assert (tmp_path / "p.png").stat().st_size > 1000
