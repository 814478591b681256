"""Comparisons: fair in budget and tuning, blind to the test part, and resumable; scores are what evaluating gives."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from toy_comparison import QUICK, SCHEMA, SMALL, FlatFusion, parts, samples

from hetgraph import (
    CheckpointError,
    HetgraphError,
    NodeType,
    Sample,
    Schema,
    comparison_outcomes,
    comparison_runs,
)
from hetgraph.compare import Comparison, compare, paired, width_for
from hetgraph.comparison_outcomes import Digest
from hetgraph.comparison_report import WIDTH, remarks, subset_tables
from hetgraph.comparison_runs import Always, Parts, Run, execute, floor, make_model, parameters, prior_scores
from hetgraph.fusion import METHODS
from hetgraph.nn import DirectScores
from hetgraph.objectives import MultiLabel, Ranking, Regression
from hetgraph.training import evaluate, without

torch.set_num_threads(1)


class BrokenFusion(FlatFusion):
    """A method that cannot be trained while it is out of order."""

    out_of_order = True

    def forward(self, *args: Any, **options: Any) -> Any:
        if self.out_of_order:
            raise RuntimeError("out of order")
        return super().forward(*args, **options)


@pytest.fixture
def two(monkeypatch) -> None:
    monkeypatch.setitem(METHODS, "flat", FlatFusion)


@pytest.fixture
def trained(monkeypatch) -> Iterator[list[comparison_runs.Run]]:
    """The runs that are really trained."""
    done: list[comparison_runs.Run] = []
    real = comparison_outcomes.execute

    def counted(data: Any, run: comparison_runs.Run) -> dict[str, Any]:
        done.append(run)
        return real(data, run)

    monkeypatch.setattr(comparison_outcomes, "execute", counted)
    return done


def test_methods_are_compared_over_the_same_seeds(tmp_path, two) -> None:
    settings = replace(SMALL, methods=("graph", "flat"), seeds=(0, 1, 2))
    result = compare(Always(parts()), settings, tmp_path)
    assert result == json.loads((tmp_path / "comparison.json").read_text())
    assert [row["mean"] for row in result["rows"]] == sorted((r["mean"] for r in result["rows"]), reverse=True)
    graph, flat = (next(r for r in result["rows"] if r["name"] == name) for name in ("graph", "flat"))
    values = list(graph["values"].values())
    assert list(graph["values"]) == list(flat["values"]) == ["0", "1", "2"]
    assert graph["mean"] == pytest.approx(np.mean(values))
    assert graph["std"] == pytest.approx(np.std(values, ddof=1))
    assert graph["standard_error"] == pytest.approx(np.std(values, ddof=1) / 3**0.5)
    assert graph["against"]["mean"] == pytest.approx(graph["mean"] - flat["mean"])
    assert graph["against"]["mean"] == pytest.approx(-flat["against"]["mean"])
    # both ask about the same pair: one question, nothing to correct
    assert graph["against"]["p_sign_flip_holm"] == graph["against"]["p_sign_flip"]
    assert result["failures"] == []


def test_a_final_score_is_that_of_training_the_chosen_setting_by_hand(tmp_path) -> None:
    data = parts()
    row = compare(Always(data), SMALL, tmp_path)["rows"][0]
    valid, test = {}, {}
    for lr in SMALL.lr:
        torch.manual_seed(0)
        model = make_model(data, "graph", row["width"], 1, 2)
        comparison_runs.fit(model, data.train, valid=data.valid, settings=replace(QUICK, lr=lr, seed=0), progress=False)
        valid[lr], test[lr] = evaluate(model, data.valid)["accuracy"], evaluate(model, data.test)["accuracy"]
    assert row["lr"] == max(SMALL.lr, key=valid.__getitem__)
    assert row["values"]["0"] == test[row["lr"]]


class Forbidden(Sequence):
    """A test part that must not be looked at."""

    def __len__(self) -> int:
        raise AssertionError("the test part was counted")

    def __getitem__(self, i: Any) -> Sample:
        raise AssertionError("the test part was read")


def test_tuning_never_touches_the_test_part(tmp_path, trained) -> None:
    with pytest.raises(AssertionError, match="test part"):
        compare(Always(parts(test=Forbidden())), replace(SMALL, single=True), tmp_path)
    # all of tuning was done by then
    assert len(trained) == 3 * len(SMALL.grid)
    assert not any(run.final for run in trained)
    kept = [json.loads(path.read_text())["outcome"] for path in (tmp_path / "runs").iterdir()]
    assert len(kept) == len(trained)
    assert all("test" not in outcome and outcome["valid"] for outcome in kept)


def test_every_contender_gets_as_many_configurations(tmp_path, trained, two) -> None:
    settings = replace(SMALL, methods=("graph", "flat"), single=True, dropout=(0.0, 0.1), tuning_seeds=(0, 1))
    compare(Always(parts()), settings, tmp_path)
    tried: dict[Any, list[Any]] = {}
    for run in trained:
        if not run.final:
            tried.setdefault((run.method, run.removed), []).append((run.training.lr, run.dropout, run.seed))
    assert len(tried) == 4
    assert {tuple(sorted(configs)) for configs in tried.values()} == {
        tuple(sorted((lr, dropout, seed) for lr in SMALL.lr for dropout in (0.0, 0.1) for seed in (0, 1)))
    }


def test_without_a_validation_part_nothing_is_tuned(tmp_path, trained) -> None:
    result = compare(Always(parts(valid=None)), replace(SMALL, single=True), tmp_path)
    assert {(run.final, run.training.lr) for run in trained} == {(True, SMALL.lr[0])}
    assert result["tuned_by"] is None
    assert result["no_harm"]["chosen_by"] == "test"
    assert {row["valid"] for row in result["rows"]} == {None}


def test_a_comparison_goes_on_where_it_stopped(tmp_path, monkeypatch, trained) -> None:
    whole = compare(Always(parts()), SMALL, tmp_path / "whole")
    count = len(trained)
    trained.clear()
    counted = comparison_outcomes.execute

    def interrupted(data: Any, run: Any) -> dict[str, Any]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return counted(data, run)

    with monkeypatch.context() as patch:
        patch.setattr(comparison_outcomes, "execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(Always(parts()), SMALL, tmp_path / "stopped")
    assert len(trained) == len(list((tmp_path / "stopped" / "runs").iterdir())) == 3
    again = compare(Always(parts()), SMALL, tmp_path / "stopped")
    assert len(trained) == count
    assert [row["values"] for row in again["rows"]] == [row["values"] for row in whole["rows"]]
    assert compare(Always(parts()), SMALL, tmp_path / "stopped") == again
    assert len(trained) == count


@pytest.mark.parametrize(
    ("settings", "data", "new"),
    [
        ({}, {}, 0),
        ({"seeds": (0, 1, 2)}, {}, 1),
        ({"training": replace(QUICK, epochs=4)}, {}, 4),
        ({"layers": 2}, {}, 4),
        ({"lr": (0.01, 0.02)}, {}, None),
        ({}, {"train": samples(40, 5)}, 4),
        ({}, {"valid": samples(20, 5)}, 4),
        # only the final runs look at the test part
        ({}, {"test": samples(30, 5)}, 2),
        ({"subsets": True}, {}, 2),
    ],
)
def test_what_has_changed_is_done_again_and_nothing_else(tmp_path, trained, settings, data, new) -> None:
    compare(Always(parts()), SMALL, tmp_path)
    assert len(trained) == 4
    trained.clear()
    compare(Always(parts(**data)), replace(SMALL, **settings), tmp_path)
    if new is None:
        # one configuration is new; whether the final runs are depends on which is better
        assert len(trained) in (1, 3)
    else:
        assert len(trained) == new


@pytest.mark.parametrize("name", ["modality_dropout", "feature_swap"])
def test_a_rate_of_a_type_that_is_not_there_is_refused(tmp_path, name) -> None:
    settings = replace(SMALL, training=replace(QUICK, **{name: {"word": 0.5, "wrod": 0.5}}))
    with pytest.raises(HetgraphError, match=f"{name} of 'wrod', which is no node type; known: word, noise"):
        compare(Always(parts()), settings, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_damaged_run_is_named(tmp_path) -> None:
    compare(Always(parts()), SMALL, tmp_path)
    path = next((tmp_path / "runs").glob("graph-final-1-*"))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CheckpointError, match=path.name):
        compare(Always(parts()), SMALL, tmp_path)


def test_a_digest_sees_every_part_of_a_sample() -> None:
    def sample(**other: Any) -> Sample:
        return Sample(**({"id": "a", "target": "x", "nodes": {"word": np.zeros((2, 3))}} | other))

    others = [
        sample(id="b"),
        sample(target="y"),
        sample(target=torch.tensor([1])),
        sample(target=torch.tensor([1.0])),
        sample(nodes={"word": np.zeros((3, 2))}),
        sample(nodes={"word": np.eye(2, 3)}),
        sample(nodes={"word": {"x": np.zeros((2, 3)), "pos": np.zeros((2, 1))}}),
        sample(edges={("word", "is", "word"): np.zeros((2, 1), int)}),
        sample(edges={("word", "is", "word"): np.ones((2, 1), int)}),
    ]
    assert Digest(sample()).hex == Digest(sample()).hex
    assert len({Digest(s).hex for s in [sample(), *others]}) == len(others) + 1


@pytest.mark.parametrize("budget", [3_000, 20_000, 90_000])
def test_every_method_keeps_to_the_budget(two, budget) -> None:
    data = parts()
    for method, removed in (("graph", ()), ("flat", ()), ("graph", ("noise",))):
        found = width_for(data, method, budget, 1, 2, removed)
        sizes = {
            w: abs(parameters(make_model(data, method, w, 1, 2, removed=removed)) - budget) for w in range(2, 260, 2)
        }
        assert sizes[found] == min(sizes.values())
        assert sizes[found] <= 0.1 * budget


def test_subsets_are_scored_as_by_hand(tmp_path, monkeypatch) -> None:
    data = parts()
    models = []
    real = comparison_runs.make_model
    monkeypatch.setattr(comparison_runs, "make_model", lambda *a, **k: models.append(real(*a, **k)) or models[-1])
    result = compare(Always(data), replace(SMALL, seeds=(0,), lr=(0.01,), subsets=True), tmp_path)
    found = {tuple(one["modalities"]): one for one in result["rows"][0]["subsets"]}
    assert list(found) == [("word",), ("noise",), ("word", "noise")]
    model = models[-1]
    assert found["word", "noise"]["mean"] == evaluate(model, data.test)["accuracy"] == result["rows"][0]["mean"]
    assert found["word",]["mean"] == evaluate(model, [without(s, "noise") for s in data.test])["accuracy"]
    # a third has no noise: it is answered by what is most frequent in training
    train = [s.target for s in data.train]
    frequent = max(("low", "high"), key=train.count)
    right = 0
    for s in data.test:
        if "noise" in s.nodes:
            right += evaluate(model, [without(s, "word")])["accuracy"] == 1
        else:
            right += s.target == frequent
    assert found["noise",]["mean"] == pytest.approx(right / len(data.test))
    assert found["noise",]["answered"] == pytest.approx(sum("noise" in s.nodes for s in data.test) / len(data.test))
    (shown,) = subset_tables(result)
    assert shown.row_count == 3
    # with every method there is, no number is cut off
    result["rows"] = [{**result["rows"][0], "name": name} for name in METHODS]
    console = Console(width=WIDTH, file=io.StringIO())
    console.print(*subset_tables(result))
    text = console.file.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert text.count(f"{found['noise',]['mean']:.4f}") >= len(METHODS)
    assert subset_tables({**result, "rows": []}) == []


def test_a_group_without_nodes_is_not_asked_of_the_model() -> None:
    both = Sample(
        nodes={
            "a": {"x": np.ones((2, 1)), "turn": np.array([0, 1])},
            "b": {"x": np.ones((1, 1)), "turn": np.array([0])},
        }
    )
    assert comparison_runs._complete(both, ("b",), "turn")
    assert not comparison_runs._complete(both, ("a",), "turn")
    assert comparison_runs._complete(both, ("a",), None)


def test_less_is_better_for_regression(tmp_path, two) -> None:
    objective = Regression().fitted([s.target for s in samples(40, 0, "value")], ["s"] * 40)
    settings = replace(SMALL, methods=("graph", "flat"), single=True, training=replace(QUICK, epochs=8))
    result = compare(Always(parts(objective, "value")), settings, tmp_path)
    means = [row["mean"] for row in result["rows"]]
    assert means == sorted(means)
    assert not result["larger_is_better"]
    assert result["no_harm"]["single"] == "graph, word alone"
    assert result["no_harm"]["gain"] == pytest.approx(result["no_harm"]["alone"] - result["no_harm"]["all"])
    by_pearson = compare(Always(parts(objective, "value")), replace(settings, metric="pearson"), tmp_path)
    means = [row["mean"] for row in by_pearson["rows"]]
    assert means == sorted(means, reverse=True)
    # a constant has no correlation with anything
    assert by_pearson["floor"]["mean"] is None


def test_an_unknown_metric_is_refused_before_anything_is_trained(tmp_path, trained) -> None:
    with pytest.raises(HetgraphError, match=r"no metric 'speed'; known: mae, rmse, pearson, loss"):
        compare(Always(parts(Regression(), "value")), replace(SMALL, metric="speed"), tmp_path)
    assert trained == []


def test_the_floor_is_the_best_constant_answer() -> None:
    train = ["low"] * 25 + ["high"] * 15
    given = [replace_target(s, t) for s, t in zip(samples(40, 0), train, strict=True)]
    data = parts(train=given)
    test = [s.target for s in data.test]
    assert floor(data)["accuracy"] == pytest.approx(test.count("low") / len(test))
    value = parts(Regression(), "value")
    mean = float(torch.cat([s.target for s in value.train]).mean())
    assert floor(value)["mae"] == pytest.approx(np.mean([abs(float(s.target) - mean) for s in value.test]), rel=1e-5)
    many = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    assert ((prior_scores(MultiLabel(("a", "b")), many) > 0) == torch.tensor([True, False])).all()
    assert prior_scores(Ranking(), torch.ones(3)).tolist() == [0.0]


def replace_target(sample: Sample, target: str) -> Sample:
    return Sample(id=sample.id, nodes=sample.nodes, target=target)


def test_a_failed_run_is_reported_and_the_others_go_on(tmp_path, monkeypatch, two) -> None:
    monkeypatch.setitem(METHODS, "broken", BrokenFusion)
    result = compare(Always(parts()), replace(SMALL, methods=("graph", "broken"), lr=(0.01,)), tmp_path)
    assert [row["name"] for row in result["rows"]] == ["graph"]
    assert [(f["method"], f["seed"], f["error"]) for f in result["failures"]] == [
        ("broken", seed, "RuntimeError: out of order") for seed in (0, 1)
    ]
    assert sum("failed: broken, seed" in line for line in remarks(result)) == 2
    # mended, it is done without doing the others again
    monkeypatch.setattr(BrokenFusion, "out_of_order", False)
    mended = compare(Always(parts()), replace(SMALL, methods=("graph", "broken"), lr=(0.01,)), tmp_path)
    assert {row["name"] for row in mended["rows"]} == {"graph", "broken"}
    with pytest.raises(HetgraphError, match="no run succeeded; the first failed: tiny"):
        compare(Always(parts(train=[])), replace(SMALL, lr=(0.01,)), tmp_path)


@dataclass(frozen=True)
class Deadly:
    """Data that kills the process that asks for that of seed 1."""

    data: Parts
    parent: int

    def __call__(self, seed: int) -> Parts:
        if seed == 1 and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data


def test_processes_find_the_same_and_survive_one_that_dies(tmp_path) -> None:
    settings = replace(SMALL, lr=(0.01,))
    here = compare(Always(parts()), settings, tmp_path / "here")["rows"][0]["values"]
    result = compare(Deadly(parts(), os.getpid()), settings, tmp_path / "there", workers=2)
    assert result["rows"][0]["values"] == {"0": here["0"]}
    assert [(f["seed"], f["error"]) for f in result["failures"]] == [(1, "its process died (killed, or out of memory)")]


def test_pairs_are_formed_by_seed() -> None:
    found = paired({"0": 1.0, "1": 2.0, "5": 3.0}, {"5": 1.0, "1": 1.5, "7": 9.0})
    assert (found["n"], found["mean"]) == (2, 1.25)
    assert paired({"0": 1.0}, {"1": 1.0})["mean"] is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": ("grph",)}, "unknown fusion method 'grph'; known: graph"),
        ({"seeds": ()}, "at least one value in seeds"),
        ({"lr": (0.1, 0.1)}, "none twice"),
        ({"dropout": (1.0,)}, "impossible comparison settings"),
        ({"budget": -1}, "impossible comparison settings"),
    ],
)
def test_impossible_settings_are_refused(wrong, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        replace(SMALL, **wrong)


def test_one_modality_has_nothing_to_be_compared_with(tmp_path) -> None:
    schema = Schema([NodeType("word", 3)])
    data = replace(parts(), schema=schema)
    with pytest.raises(HetgraphError, match=r"one modality \(word\)"):
        compare(Always(data), replace(SMALL, single=True), tmp_path)
    many = Schema([NodeType(f"n{i}", 1) for i in range(9)])
    with pytest.raises(HetgraphError, match="9 modalities have too many subsets"):
        compare(Always(replace(data, schema=many)), replace(SMALL, subsets=True), tmp_path)


def test_execute_leaves_the_generator_alone() -> None:
    run = comparison_runs.Run("graph", 8, 1, 2, 0.1, replace(QUICK, epochs=1))
    before = torch.get_rng_state()
    first = execute(parts(), run)
    assert torch.equal(torch.get_rng_state(), before)
    second = execute(parts(), run)
    assert first["valid"] == second["valid"]


def test_kept_folder_holds_nothing_half_written(tmp_path) -> None:
    compare(Always(parts()), SMALL, tmp_path)
    names = [path.name for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert all(name.endswith(".json") and not name.startswith(".") for name in names)


def test_scores_past_fusion_are_the_same_for_every_method_and_outside_of_the_budget() -> None:
    plain, more = (Comparison.using({"direct": direct}, methods=("graph", "concat")) for direct in (0, 4))
    assert (plain.direct, more.direct) == (0, 4)
    extra = sum(p.numel() for p in DirectScores(SCHEMA, 4, 2).parameters())
    for method, width in (("graph", 8), ("concat", 12)):
        runs = [Run(method, width, 1, 2, 0.0, QUICK, direct=direct) for direct in (0, 4)]
        without, with_ = (execute(parts(), run)["parameters"] for run in runs)
        assert with_ - without == extra
