"""The benchmark of retrieval: floors, keys of the runs, and the table, on a toy."""

from __future__ import annotations

import json

import pytest
import torch
from test_retrieval import SMALL, toy

from benchmarks import retrieval as benchmark
from hetgraph.tasks import retrieval


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(retrieval, "FEWEST", 5)
    made = toy(160)
    monkeypatch.setitem(retrieval.settings.SUGGESTED, "toy", {**SMALL, "dims": 6})
    monkeypatch.setitem(benchmark.SHOWN, "toy", ("map", "recall@5 picture > text"))
    monkeypatch.setattr(benchmark, "RERANKED", (("picture",), ("text",)))
    return made


def test_floors(data) -> None:
    by_chance = benchmark.chance(data)
    # the mean of 1/rank over a random order of n candidates, one of them right
    count = int(by_chance["queries picture > text"])
    expected = sum(1 / k for k in range(1, count + 1)) / count
    assert by_chance["map picture > text"] == pytest.approx(expected, abs=0.05)
    assert by_chance["recall@5 picture > text"] == pytest.approx(5 / count, abs=0.06)
    plain = benchmark.cca(data, retrieval.suggested("toy"))
    assert plain["map picture > text"] > 3 * by_chance["map picture > text"]
    assert plain["queries picture > text"] == count


def test_runs_are_kept_and_shown(data, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(benchmark.retrieval, "load", lambda name, folder, cache=None: data)
    monkeypatch.setattr(benchmark.retrieval, "DATA", ("toy",))
    threads = torch.get_num_threads()
    words = ["--name", "toy", "--json", str(tmp_path / "r.json"), "--methods", "graph", "concat", "--seeds", "1"]
    benchmark.main([*words, "--plot", str(tmp_path / "p.png")])
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert [(run["method"], run["edges"]) for run in result["runs"][:5]] == [
        *((floor, "all edges") for floor in benchmark.FLOORS),
        ("graph", "all edges"),
        ("concat", "all edges"),
    ]
    assert len(result["runs"]) == 3 + 2 + 4
    assert max(map(len, out.splitlines())) <= 100
    assert "graph, no edges" in out
    assert (tmp_path / "p.png").exists()
    again = benchmark.outcome(data, {"method": "concat", "seed": 0, "edges": "all edges", "again": False})
    assert again["scores"] == result["runs"][4]["scores"]
    assert "rerank" in benchmark.outcome(data, {"method": "graph", "seed": 0, "edges": "all edges", "again": True})
