"""The benchmark of link prediction runs, goes on where it stopped, and refuses to mix settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import link_prediction as benchmark
from hetgraph import HetgraphError
from hetgraph.kg import LinkPredictor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ring of sixty with one relation, in the layout of tables."""
    triples = [f"e{i}\tnext\te{(i + 1) % 60}\n" for i in range(60)]
    for part, some in {"train": triples[:50], "valid": triples[50:55], "test": triples[55:]}.items():
        (tmp_path / f"ring_{part}.tsv").write_text("".join(some))
    return tmp_path


@pytest.fixture(autouse=True)
def _threads_stay():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_runs_and_does_not_train_a_seed_twice(folder, monkeypatch, capsys) -> None:
    path = folder / "found.json"
    words = ["--data", folder, "--name", "ring", "--json", path, "--save", folder / "models", "--quick", "--n3", "0.01"]
    words = [str(word) for word in words]
    benchmark.main([*words, "--seeds", "0", "1"])
    found = json.loads(path.read_text())
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert found["config"]["n3"] == 0.01
    assert found["sizes"] == {"entities": 60, "relations": 1, "train": 50, "valid": 5, "test": 5}
    assert found["runs"][0]["epoch"] <= 2
    assert found["quick"]
    # every entity is once the answer in train: the floor is chance but for those that never are
    assert 0 < found["floor"]["test"]["mrr"] < 0.6
    both = [run["test"]["mrr"] for run in found["runs"]]
    assert found["summary"]["test"]["mrr"] == {
        "mean": pytest.approx(np.mean(both)),
        "std": pytest.approx(np.std(both, ddof=1)),
    }
    assert LinkPredictor.load(folder / "models" / "ring_complex_1.safetensors").config.seed == 1
    out = capsys.readouterr().out
    assert "ring, complex, seed 1: test MRR" in out

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "measure", never)
        benchmark.main([*words, "--seeds", "0", "1"])
        with pytest.raises(HetgraphError, match="another config; remove it"):
            benchmark.main([*words, "--seeds", "0", "--lr", "0.5"])
    benchmark.main([*words, "--seeds", "2"])
    assert [run["seed"] for run in json.loads(path.read_text())["runs"]] == [0, 1, 2]


def test_without_a_test_part_the_last_epoch_is_ranked_on_valid(folder) -> None:
    (folder / "ring_test.tsv").unlink()
    path = folder / "found.json"
    benchmark.main(["--data", str(folder), "--name", "ring", "--json", str(path), "--quick", "--check-every", "1"])
    (run,) = json.loads(path.read_text())["runs"]
    assert "test" not in run
    assert run["epoch"] == 2 == len(run["history"])
    assert run["history"][-1]["mrr"] == pytest.approx(run["valid"]["mrr"])


def test_results_that_are_kept_hold_what_they_claim() -> None:
    kept = sorted((Path(__file__).parents[1] / "docs" / "results").glob("link_prediction_*.json"))
    for path in kept:
        data = json.loads(path.read_text())
        part = "test" if "test" in data["summary"] else "valid"
        assert not data["quick"]
        mean = np.mean([run[part]["mrr"] for run in data["runs"]])
        assert data["summary"][part]["mrr"]["mean"] == pytest.approx(mean)
        assert mean > data["floor"][part]["mrr"]
