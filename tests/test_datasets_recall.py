"""What training says of like pictures and questions, against loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from test_datasets_common import check
from test_datasets_questions import put_rooms

from hetgraph import HetgraphError
from hetgraph.encoders import HashWords
from hetgraph.tasks.datasets import daquar, recall
from hetgraph.tasks.datasets.official.parts import Question
from hetgraph.tasks.datasets.questions import Phrases
from hetgraph.tasks.datasets.recall import Recall

ANSWERS = ("lamp", "cup", "table", "red")
IMAGES = [f"image{i}" for i in range(12)]
rng = np.random.default_rng(0)
QUESTIONS = [
    Question(f"q{i}", image, text, (ANSWERS[(i + k) % 4],), "train")
    for k, text in enumerate(("what is left of the tables", "which colour has the cup"))
    for i, image in enumerate(IMAGES[:9])
]
REGIONS = {image: rng.normal(size=(10, 3)).astype(np.float32) for image in IMAGES}
OBJECTS = {image: rng.integers(0, 3, (1, 4)).astype(np.float32) for image in IMAGES}
TOKENS = {q.question: np.random.default_rng(len(q.question)).normal(size=(4, 5)) for q in QUESTIONS}
CLASSES = sorted(ANSWERS)


def recalled() -> Recall:
    phrases = Phrases(q.question for q in QUESTIONS)
    said = [q.answers[0] for q in QUESTIONS]
    return Recall(QUESTIONS, said, CLASSES, phrases.node, TOKENS, REGIONS, OBJECTS)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size else 0.0


def votes(asked: Question) -> np.ndarray:
    """By a loop over the training questions about other pictures."""
    phrases = Phrases(q.question for q in QUESTIONS)
    total = dict.fromkeys(CLASSES, 0.0)
    for known in QUESTIONS:
        if known.image == asked.image:
            continue
        both = [
            (10, phrases.node(asked.question)[0], phrases.node(known.question)[0]),
            (10, TOKENS[asked.question].mean(0), TOKENS[known.question].mean(0)),
            (6, REGIONS[asked.image][9], REGIONS[known.image][9]),
            (4, OBJECTS[asked.image][0], OBJECTS[known.image][0]),
        ]
        total[known.answers[0]] += np.exp(sum(weight * cosine(a, b) for weight, a, b in both))
    row = np.array([total[name] for name in CLASSES])
    return np.sqrt(row / row.sum())


def test_neighbours_vote_by_a_loop_and_never_about_the_picture_itself(monkeypatch) -> None:
    asked = [QUESTIONS[0], QUESTIONS[10], Question("new", IMAGES[11], QUESTIONS[0].question, ("zebra",), "test")]
    found = recalled().answers(asked)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found, np.stack([votes(q) for q in asked]), rtol=1e-4)
    monkeypatch.setattr(recall, "ROWS", 2)
    np.testing.assert_allclose(recalled().answers(asked), found, rtol=1e-4)


def features(images: list[str]) -> np.ndarray:
    looks = np.array([np.concatenate([r[9], r[:9].mean(0), r[:9].max(0)]) for r in map(REGIONS.get, IMAGES)])
    counts = np.array([OBJECTS[image][0] for image in IMAGES])
    x = np.concatenate([a / np.sqrt((a**2).mean()) for a in (looks, counts)], 1)
    return x[[IMAGES.index(image) for image in images]]


def said_of(image: str) -> list[float]:
    """Answers about the picture, and what its questions mention: a cup, and a table in the plural."""
    own = {q.answers[0] for q in QUESTIONS if q.image == image} | {"table", "cup"}
    return [float(name in own) for name in CLASSES]


def test_attributes_are_a_ridge_regression_of_other_pictures(monkeypatch) -> None:
    monkeypatch.setattr(recall, "SHRINKAGE", 3.0)
    train = IMAGES[:9]
    said = np.array([said_of(image) for image in train])
    frequency = said.mean(0)
    model = Ridge(3.0).fit(features(train), said)
    found = recalled()
    for image in IMAGES[9:]:
        expected = (model.predict(features([image])) - frequency) / np.sqrt(frequency)
        np.testing.assert_allclose(found.attributes(image), expected, rtol=1e-4, atol=1e-5)
    # of a training picture nothing is read that was said of itself
    monkeypatch.setattr(recall, "FOLDS", 9)
    left_out = Ridge(3.0).fit(features(train[1:]), said[1:])
    expected = (left_out.predict(features(train[:1])) - frequency) / np.sqrt(frequency)
    np.testing.assert_allclose(recalled().attributes(train[0]), expected, rtol=1e-4, atol=1e-5)


def test_one_picture_is_too_few() -> None:
    alone = [q for q in QUESTIONS if q.image == IMAGES[0]]
    with pytest.raises(HetgraphError, match="two pictures at least, got 1"):
        Recall(alone, ["cup"] * len(alone), CLASSES, lambda q: np.ones((1, 2), np.float32), TOKENS, REGIONS, OBJECTS)


def test_daquar_with_recall_is_daquar_with_two_more_nodes(tmp_path) -> None:
    folder = put_rooms(tmp_path)
    plain, more = (read(folder, encoder=HashWords(8)) for read in (daquar.single_word, daquar.recall))
    check(more)
    assert set(more.schema.nodes) - set(plain.schema.nodes) == {"attribute", "neighbour"}
    assert more.objective == plain.objective
    for name in ("attribute", "neighbour"):
        assert more.schema.nodes[name].dim == len(more.objective.classes) == 2
        every = torch.cat([s.nodes[name]["x"] for s in more.train])
        assert every.shape == (len(more.train), 2)
        assert float(every.square().mean()) == pytest.approx(1, abs=1e-4)
        assert {("question", "with", name), (name, "with", "question")} <= set(more.schema.edges)
    for ours, theirs in zip(more.test, plain.test, strict=True):
        assert (ours.id, ours.target) == (theirs.id, theirs.target)
        assert all(torch.equal(ours.nodes[name]["x"], nodes["x"]) for name, nodes in theirs.nodes.items())
