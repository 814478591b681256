"""Classes, labels and numbers of samples and groups; the commands; sentiment in the same shape."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from test_datasets_av_digits import put as put_digits
from test_datasets_mosi import put as put_mosi

from hetgraph import EdgeType, GraphBuilder, NodeType, Sample, Schema
from hetgraph.cli_task_classification import line
from hetgraph.errors import HetgraphError
from hetgraph.objectives import Answering, Classification, MultiLabel, Objective, Regression
from hetgraph.predictor import Predictor
from hetgraph.rules import all_pairs
from hetgraph.tasks import classification, sentiment, vqa
from hetgraph.tasks.datasets import DATASETS, Dataset, load
from hetgraph.training import TrainingSettings

SMALL = classification.TaskSettings(
    method="sum", width=8, layers=1, heads=2, dropout=0.0, training=TrainingSettings(epochs=1, batch_size=8, lr=0.01)
)
SCHEMA = Schema(
    [NodeType("a", 3, {"group": 0}), NodeType("b", 2, {"group": 0})], [EdgeType("a", "to", "b", rule=all_pairs)]
)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def sample(i: int, target: object, groups: int = 1) -> Sample:
    """One node of each type per group."""
    numbers, group = torch.Generator().manual_seed(i), torch.arange(groups)
    a, b = torch.randn(groups, 3, generator=numbers), torch.randn(groups, 2, generator=numbers)
    return Sample(id=f"s{i}", target=target, a={"x": a, "group": group}, b={"x": b, "group": group})


def data_of(objective: Objective, targets: list[object], groups: list[int] | None = None) -> Dataset:
    sizes = groups or [1] * len(targets)
    every = [sample(i, t, n) for i, (t, n) in enumerate(zip(targets, sizes, strict=True))]
    return Dataset("toy", SCHEMA, every, None, every, objective, group=None if groups is None else "group")


def test_classes_come_with_their_probability() -> None:
    data = data_of(Classification(("x", "y", "z")), ["x", "y", "z", "x", "y"])
    model = classification.train(data, SMALL, progress=False)
    found = classification.predict(model, data)
    model.eval()
    for one, s in zip(found, data.test, strict=True):
        # one by one, by the model itself
        chances = model(GraphBuilder(SCHEMA)([s])).scores.detach().softmax(-1)[0]
        assert (one.id, one.sample, one.group, one.target) == (s.id, s.id, None, s.target)
        assert one.answer == "xyz"[int(chances.argmax())]
        assert one.confidence == pytest.approx(float(chances.max()), abs=1e-5)
        assert one.right == (one.answer == s.target)
        assert json.loads(json.dumps(one.to_json()))["right"] == one.right
    accuracy = fmean(one.right for one in found)
    assert classification.evaluate(model, data)["accuracy"] == pytest.approx(accuracy)
    nameless = [Sample(nodes=s.nodes) for s in data.test]
    again = classification.predict(model, data, nameless, batch_size=2)
    assert [one.answer for one in again] == [one.answer for one in found]
    assert [one.id for one in again] == list("01234")
    assert {one.target for one in again} == {None}


def test_groups_have_an_answer_each_in_their_order() -> None:
    classes = Classification(("no", "yes"))
    targets = [torch.tensor([0, 1, 1]), torch.tensor([1]), torch.tensor([0, 0])]
    data = data_of(classes, targets, [3, 1, 2])
    model = classification.train(data, SMALL, progress=False)
    found = classification.predict(model, data, batch_size=2)
    assert [one.id for one in found] == ["s0_0", "s0_1", "s0_2", "s1_0", "s2_0", "s2_1"]
    assert [(one.sample, one.group) for one in found][3:] == [("s1", 0), ("s2", 0), ("s2", 1)]
    assert [one.target for one in found] == ["no", "yes", "yes", "yes", "no", "no"]
    # two samples of one name are still two
    twins = [Sample(id="t", nodes=data.test[i].nodes, target=targets[i]) for i in (0, 2)]
    both = classification.predict(model, data, twins)
    assert [one.id for one in both] == ["t_0", "t_1", "t_2", "t_0", "t_1"]
    assert [one.confidence for one in both] == pytest.approx([found[i].confidence for i in (0, 1, 2, 4, 5)], abs=1e-5)
    wrong = [Sample(id="w", nodes=data.test[0].nodes, target=torch.tensor([1, 0]))]
    with pytest.raises(HetgraphError, match="sample 'w': field 'target' has 2 rows, expected 3"):
        classification.predict(model, data, wrong)


def test_numbers_are_in_the_unit_of_the_targets() -> None:
    targets: list[object] = [100.0, 120.0, 140.0, 160.0]
    objective = Regression(("kg",)).fitted(targets, ["?"] * 4)
    data = data_of(objective, targets)
    model = classification.train(data, SMALL, progress=False)
    found = classification.predict(model, data)
    assert [one.target for one in found] == targets
    assert all(one.confidence is None and "right" not in one.to_json() for one in found)
    error = fmean(abs(one.answer - one.target) for one in found)
    assert 0 < error < 60  # in kilograms: the answers start near the mean, 130
    assert classification.evaluate(model, data)["mae"] == pytest.approx(error, rel=1e-4)
    two = data_of(Regression(("x", "y")), [[1.0, 2.0], [3.0, 4.0]])
    answers = classification.predict(classification.train(two, SMALL, progress=False), two)
    assert [one.target for one in answers] == [[1.0, 2.0], [3.0, 4.0]]
    assert all(len(one.answer) == 2 for one in answers)


def test_labels_are_as_certain_as_the_least_certain_of_them() -> None:
    objective = MultiLabel(("red", "big"))
    scores = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    chances = scores.sigmoid()
    expected = [min(float(chances[0, 0]), 1 - float(chances[0, 1])), min(float(chances[1, 0]), float(chances[1, 1]))]
    assert classification.confidence(objective, scores) == pytest.approx(expected)
    data = data_of(objective, [["red"], [], ["red", "big"]])
    found = classification.predict(classification.train(data, SMALL, progress=False), data)
    assert [one.target for one in found] == [["red"], [], ["red", "big"]]


def test_a_right_answer_that_training_does_not_have_keeps_its_name() -> None:
    assert classification.targets(Answering(("yes", "no")), sample(0, "perhaps"), 1) == ["perhaps"]
    assert classification.targets(Answering(("yes", "no")), sample(0, "no"), 1) == ["no"]


def test_every_data_set_is_of_one_task() -> None:
    assert sorted([*classification.DATA, *vqa.DATA]) == sorted(DATASETS)
    assert set(sentiment.DATA) <= set(classification.DATA)
    pages = {name: page(name) for name in ("classification", "sentiment")}
    assert all(f"`{name}`" in pages["classification"] for name in classification.DATA)
    assert all(f"`{name}`" in pages["sentiment"] for name in sentiment.DATA)


def test_lines_of_answers() -> None:
    one = classification.Answered("s", "s", None, "cat", 0.75, "dog")
    assert line(one) == "s   cat 75%   (right: dog)"
    assert line(replace(one, answer="dog")) == "s   dog 75%"
    assert line(replace(one, target=None)) == "s   cat 75%"
    assert line(replace(one, answer=[], target=["red", "big"])) == "s   none 75%   (right: red, big)"
    assert line(replace(one, answer=1.234, confidence=None, target=2.0)) == "s   1.23   (right: 2.00)"


def test_the_command_classifies(tmp_path, typed) -> None:
    folder = put_digits(tmp_path / "av_digits")
    out = tmp_path / "out"
    small = ("--epochs", 1, "--width", 8, "--layers", 1, "--heads", 2, "--method", "sum")
    words = ("task", "classification", "av_digits", "--data", folder, "--output", out, *small)
    code, text, err = typed(*words, "--json", tmp_path / "s.json")
    assert (code, err) == (0, "")
    assert "av_digits, sum, 1 seed" in text
    lines = [json.loads(line) for line in (out / "seed-0" / "answers.jsonl").read_text().splitlines()]
    assert [one["id"] for one in lines] == [s.id for s in load("av_digits", folder).test]
    [run] = json.loads((tmp_path / "s.json").read_text())["runs"]
    assert run["accuracy"] == pytest.approx(fmean(one["right"] for one in lines))
    assert Predictor.from_pretrained(out / "seed-0").objective.outputs == 10
    code, _, err = typed("task", "classification", "shapes")
    assert code != 0
    assert "no classes or numbers in 'shapes'" in err


def test_the_command_tells_the_sentiment_of_every_utterance(tmp_path, typed) -> None:
    folder = put_mosi(tmp_path)
    data = load("mosi_bclstm", folder)
    small = ("--epochs", 1, "--width", 8, "--layers", 1, "--heads", 2, "--method", "sum")
    code, text, err = typed("task", "sentiment", "mosi_bclstm", "--data", folder, "--output", tmp_path / "o", *small)
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "o" / "seed-0" / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == sum(len(s.target) for s in data.test)
    expected = [sentiment.CLASSES[int(c)] for s in data.test for c in s.target]
    assert [one["target"] for one in lines] == expected
    assert "models and answers" in text
    code, _, err = typed("task", "sentiment", "av_digits")
    assert code != 0
    assert "no sentiments in 'av_digits'" in err


def test_what_suits_mosi_is_what_the_script_trains_with() -> None:
    settings = sentiment.suggested("mosi_bclstm")
    assert replace(settings.training, standardize=False, patience=10) == sentiment.TRAINING
    plain = sentiment.MODEL
    assert (settings.width, settings.layers, settings.heads, settings.dropout) == (
        plain.width,
        plain.layers,
        plain.heads,
        plain.dropout,
    )


def page(name: str) -> str:
    return (Path(__file__).parents[1] / "docs" / "tasks" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["classification", "sentiment"])
def test_the_examples_of_the_pages_run(name, capsys) -> None:
    [code] = re.findall(r"```python\n(.*?)```", page(name), re.DOTALL)
    exec(compile(code, f"docs/tasks/{name}.md", "exec"), {})
    first, *rest = capsys.readouterr().out.splitlines()
    assert 0 <= float(first) < 2
    assert len(rest) == 3
    assert all("right:" in line for line in rest)
