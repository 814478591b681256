"""Sentiment of utterances: one answer for each, and the summary over seeds."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from hetgraph import GraphBuilder, Sample
from hetgraph.builders import conversation
from hetgraph.tasks.datasets.mosi import Conversations
from hetgraph.tasks.sentiment import CLASSES, TRAINING, SentimentResult, SentimentSettings, build, run
from hetgraph.training import predict

SMALL = SentimentSettings(width=16, layers=1, heads=2, dropout=0.1)
WIDTHS = {"text": 4, "audio": 3, "video": 2}


def talk(name: str, length: int, seed: int) -> Sample:
    """A conversation whose text says the label in its first feature."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, length)
    nodes = {
        n: {"x": rng.standard_normal((length, w)).astype("f4"), "group": np.arange(length)} for n, w in WIDTHS.items()
    }
    nodes["text"]["x"][:, 0] = 2.0 * target - 1
    return Sample(id=name, nodes=nodes, target=torch.from_numpy(target))


@pytest.fixture
def data() -> Conversations:
    train = [talk(f"v{i}", 3 + i % 4, i) for i in range(12)]
    return Conversations(train, [talk(f"t{i}", 2 + i, 90 + i) for i in range(4)], conversation(2, 2, **WIDTHS))


def test_there_is_one_answer_for_every_utterance(data) -> None:
    model = build(data.schema, SMALL)
    out = model(GraphBuilder(data.schema)(data.train))
    counts = [len(sample.target) for sample in data.train]
    assert out.scores.shape == (sum(counts), len(CLASSES))
    assert torch.bincount(out.fused.sample).tolist() == counts
    answers = predict(model, data.test)
    assert len(answers.answers) == sum(len(sample.target) for sample in data.test)
    assert set(answers.answers) <= set(CLASSES)


def test_every_modality_may_be_used_alone(data) -> None:
    for name, width in WIDTHS.items():
        schema = conversation(2, 2, **{name: width})
        alone = [Sample(id=s.id, nodes={name: s.nodes[name]}, target=s.target) for s in data.test]
        assert build(schema, SMALL)(GraphBuilder(schema)(alone)).scores.shape[0] == sum(
            len(s.target) for s in data.test
        )


def test_an_epoch_runs_and_every_seed_has_its_accuracy(data) -> None:
    training = replace(TRAINING, epochs=1, batch_size=4)
    one = run(data, [0, 1], settings=SMALL, training=training)
    assert len(one.accuracy) == 2
    total = sum(len(sample.target) for sample in data.test)
    assert all((value * total) == pytest.approx(round(value * total), abs=1e-4) for value in one.accuracy)
    assert one.parameters == sum(p.numel() for p in build(data.schema, SMALL).parameters())
    assert one.seconds_per_epoch > 0
    assert run(data, [0, 1], settings=SMALL, training=training).accuracy == one.accuracy


def test_a_label_that_a_feature_says_is_learnt(data) -> None:
    training = replace(TRAINING, epochs=25, batch_size=4, lr=5e-3)
    assert run(data, [0], settings=SMALL, training=training).accuracy[0] > 0.9


@pytest.mark.parametrize("values", [[0.75], [0.5, 0.75], [0.8, 0.79, 0.81, 0.8, 0.7]])
def test_mean_and_spread_are_those_of_the_seeds(values) -> None:
    result = SentimentResult(values, 1, 1.0)
    assert result.mean == pytest.approx(sum(values) / len(values))
    spread = (sum((v - result.mean) ** 2 for v in values) / max(len(values) - 1, 1)) ** 0.5
    assert result.std == pytest.approx(spread)
    assert len(values) == 1 or result.std == pytest.approx(statistics.stdev(values))
