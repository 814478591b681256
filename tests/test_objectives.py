"""Losses and metrics equal scikit-learn or a closed form; targets that fit nowhere are refused by sample."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from hetgraph import HetgraphError
from hetgraph.objectives import (
    Classification,
    MultiLabel,
    Objective,
    Ranking,
    Regression,
    Sentiment,
    objective_from_json,
)

THREE = Classification(("no", "yes", "perhaps"))
TAGS = MultiLabel(("red", "green", "blue"))


def close(a: float, b: float, tolerance: float = 1e-5) -> None:
    assert abs(a - b) <= tolerance * max(1.0, abs(b)), (a, b)


def random(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 2


@settings(max_examples=50, deadline=None)
@given(target=st.lists(st.integers(0, 2), min_size=1, max_size=12), seed=st.integers(0, 2**31))
def test_classification_equals_scikit_learn(target, seed) -> None:
    scores = random(len(target), 3, seed)
    truth = THREE.encode(target, [str(i) for i in range(len(target))])
    assert truth.tolist() == target
    found = THREE.metrics(scores, truth)
    guess = scores.argmax(-1).numpy()
    close(found["accuracy"], metrics.accuracy_score(target, guess))
    close(found["f1_macro"], metrics.f1_score(target, guess, average="macro", zero_division=0))
    close(found["f1_weighted"], metrics.f1_score(target, guess, average="weighted", zero_division=0))
    share = scores.double().softmax(-1).numpy()
    close(found["loss"], metrics.log_loss(target, share, labels=[0, 1, 2]))
    rows = THREE.losses(scores, truth)
    for row, (p, t) in enumerate(zip(share, target, strict=True)):
        close(float(rows[row]), -math.log(p[t]))
    assert THREE.decode(scores) == [THREE.classes[g] for g in guess]


@settings(max_examples=50, deadline=None)
@given(
    target=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=10),
    seed=st.integers(0, 2**31),
)
def test_multi_label_equals_scikit_learn(target, seed) -> None:
    scores = random(len(target), 3, seed)
    names = [[label for label, on in zip(TAGS.labels, row, strict=True) if on] for row in target]
    ids = [str(i) for i in range(len(target))]
    truth = TAGS.encode(names, ids)
    assert torch.equal(truth, TAGS.encode([np.array(row, dtype=int) for row in target], ids))
    assert truth.tolist() == [[float(on) for on in row] for row in target]
    found, guess, real = TAGS.metrics(scores, truth), (scores > 0).numpy(), np.array(target)
    close(found["f1_micro"], metrics.f1_score(real, guess, average="micro", zero_division=0))
    close(found["f1_macro"], metrics.f1_score(real, guess, average="macro", zero_division=0))
    close(found["accuracy"], float((guess == real).mean()))
    chance = 1 / (1 + np.exp(-scores.double().numpy()))
    loss = -(real * np.log(chance) + (1 - real) * np.log(1 - chance)).mean(-1)
    close(found["loss"], float(loss.mean()))
    for have, want in zip(TAGS.losses(scores, truth).tolist(), loss, strict=True):
        close(have, float(want))
    assert TAGS.decode(scores) == [[n for n, on in zip(TAGS.labels, row, strict=True) if on] for row in guess]


NUMBER = st.integers(-64_000, 64_000).map(lambda n: n / 64)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=10), seed=st.integers(0, 2**31))
def test_regression_equals_scikit_learn_in_the_unit_of_the_targets(rows, seed) -> None:
    ids = [str(i) for i in range(len(rows))]
    target = np.array(rows, dtype=np.float32)
    objective = Regression(("x", "y")).fitted(rows, ids)
    mean, std = target.astype(np.float64).mean(0), target.astype(np.float64).std(0)
    np.testing.assert_allclose(objective.mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(objective.std, np.where(std > 0, std, 1.0), rtol=1e-6)
    assert objective.encode(rows, ids).tolist() == target.tolist()
    scores = random(len(rows), 2, seed)
    value = scores.numpy() * np.array(objective.std, dtype=np.float32) + np.array(objective.mean, dtype=np.float32)
    np.testing.assert_allclose(objective.values(scores).numpy(), value, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(objective.decode(scores), value, rtol=1e-5, atol=1e-3)
    truth = torch.from_numpy(target)
    found = objective.metrics(scores, truth)
    close(found["mae"], metrics.mean_absolute_error(target, value), 1e-3)
    close(found["rmse"], math.sqrt(metrics.mean_squared_error(target, value)), 1e-3)
    scaled = (target - np.array(objective.mean)) / np.array(objective.std)
    close(found["loss"], float(np.abs(scores.numpy() - scaled).mean()), 1e-3)


def test_pearson_equals_numpy_and_is_left_out_where_nothing_varies() -> None:
    objective = Regression(("x", "y"), mean=(5.0, -2.0), std=(3.0, 0.1))
    scores, truth = random(40, 2, 0), random(40, 2, 1)
    value = objective.values(scores).numpy()
    expected = np.mean([np.corrcoef(value[:, i], truth[:, i].numpy())[0, 1] for i in range(2)])
    close(objective.metrics(scores, truth)["pearson"], float(expected))
    assert "pearson" not in objective.metrics(scores, torch.ones(40, 2))
    assert "pearson" not in objective.metrics(scores[:1], truth[:1])


def test_pearson_of_many_rows_with_one_outlier_is_a_number() -> None:
    objective = Regression()
    truth = torch.zeros(4000, 1)
    truth[7] = 1.0
    scores = truth + 0.001 * random(4000, 1, 0)
    expected = np.corrcoef(scores[:, 0].numpy(), truth[:, 0].numpy())[0, 1]
    close(objective.metrics(scores, truth)["pearson"], float(expected))


# halves, zeros and values beyond the scale are where the conventions differ
SENTIMENT = st.sampled_from([-3.6, -3.0, -2.5, -1.5, -0.5, -0.2, 0.0, 0.4, 0.5, 1.5, 2.0, 2.5, 3.0, 4.2])


def weighted_f1(guess: list[bool], truth: list[bool]) -> float:
    """Written out: F1 of each class, weighted by how often it is the truth."""
    total = 0.0
    for side in (False, True):
        hits = sum(g == t == side for g, t in zip(guess, truth, strict=True))
        named = sum(g == side for g in guess) + sum(t == side for t in truth)
        total += sum(t == side for t in truth) / len(truth) * (2 * hits / named if named else 0.0)
    return total


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(SENTIMENT, SENTIMENT), min_size=1, max_size=15))
def test_sentiment_equals_its_conventions_written_out(rows) -> None:
    guess, truth = ([row[i] for row in rows] for i in (0, 1))
    found = Sentiment().metrics(torch.tensor(guess)[:, None], torch.tensor(truth)[:, None])
    close(found["mae"], sum(abs(g - t) for g, t in rows) / len(rows))
    if len(set(guess)) > 1 and len(set(truth)) > 1:
        close(found["pearson"], float(np.corrcoef(guess, truth)[0, 1]))
    # Python rounds halves to even, as NumPy does in the published evaluations
    close(found["acc7"], np.mean([round(min(3, max(-3, g))) == round(min(3, max(-3, t))) for g, t in rows]))
    g, t = [v >= 0 for v in guess], [v >= 0 for v in truth]
    close(found["acc2_neg_nonneg"], metrics.accuracy_score(t, g))
    close(found["f1_neg_nonneg"], weighted_f1(g, t))
    close(found["f1_neg_nonneg"], metrics.f1_score(t, g, average="weighted", zero_division=0))
    kept = [(a > 0, b > 0) for a, b in rows if b != 0]
    assert ("acc2_neg_pos" in found) == ("f1_neg_pos" in found) == bool(kept)
    if kept:
        g, t = ([pair[i] for pair in kept] for i in (0, 1))
        close(found["acc2_neg_pos"], metrics.accuracy_score(t, g))
        close(found["f1_neg_pos"], weighted_f1(g, t))


def test_the_conventions_of_sentiment_differ_where_a_zero_is() -> None:
    truth = torch.tensor([0.0, 0.0, -1.0, 2.0])[:, None]
    found = Sentiment().metrics(torch.tensor([-0.1, 0.1, 0.0, 0.4])[:, None], truth)
    # with zeros as positive: rows 1 and 3 are right; without them: 0.0 for -1 counts as negative, so both are
    assert (found["acc2_neg_nonneg"], found["acc2_neg_pos"]) == (0.5, 1.0)


def test_sentiment_is_measured_in_the_unit_of_the_targets() -> None:
    objective = Sentiment().fitted([-2.0, 0.0, 4.0, 1.0], list("abcd"))
    assert type(objective) is Sentiment
    truth = objective.encode([-2.0, 0.0, 3.0, 1.0], list("abcd"))
    scores = (truth - objective.mean[0]) / objective.std[0]
    found = objective.metrics(scores, truth)
    close(found["mae"], 0.0)
    assert found["acc7"] == found["acc2_neg_pos"] == found["f1_neg_nonneg"] == 1.0


def test_one_number_decodes_to_numbers_and_several_to_lists() -> None:
    scores = torch.tensor([[1.0], [-1.0]])
    assert Regression(mean=(10.0,), std=(2.0,)).decode(scores) == [12.0, 8.0]
    assert Regression(("x", "y")).decode(torch.tensor([[1.0, 2.0]])) == [[1.0, 2.0]]


@pytest.mark.parametrize("value", [0.1, 1e-20, 123456.789, -7.3])
def test_constant_targets_keep_a_scale_of_one(value) -> None:
    objective = Regression().fitted([value] * 7, list("abcdefg"))
    assert objective.std == (1.0,)
    target = objective.encode([value], ["a"])
    close(float(objective.losses(torch.zeros(1, 1), target)), 0.0, 1e-2)


@settings(max_examples=50, deadline=None)
@given(target=st.lists(st.integers(0, 4), min_size=1, max_size=9), seed=st.integers(0, 2**31))
def test_ranking_loss_equals_a_double_loop_over_pairs(target, seed) -> None:
    objective, score = Ranking(), random(len(target), 1, seed)
    truth = objective.encode([float(t) for t in target], [str(i) for i in range(len(target))])
    expected = []
    for i, a in enumerate(target):
        pairs = [
            math.log1p(math.exp(-math.copysign(1, a - b) * float(score[i] - score[j])))
            for j, b in enumerate(target)
            if a != b
        ]
        expected.append(sum(pairs) / len(pairs) if pairs else 0.0)
    for have, want in zip(objective.losses(score, truth).tolist(), expected, strict=True):
        close(have, want)
    assert objective.decode(score) == score[:, 0].tolist()


@settings(max_examples=50, deadline=None)
@given(target=st.lists(st.integers(0, 4), min_size=2, max_size=9), seed=st.integers(0, 2**31))
def test_kendall_equals_its_count_of_pairs_with_ties(target, seed) -> None:
    score = random(len(target), 1, seed).round()
    found = Ranking().metrics(score, torch.tensor(target, dtype=torch.float32))["kendall"]
    agree, in_score, in_target = 0.0, 0, 0
    for i in range(len(target)):
        for j in range(i):
            a, b = np.sign(target[i] - target[j]), np.sign(float(score[i] - score[j]))
            agree, in_target, in_score = agree + a * b, in_target + abs(a), in_score + abs(b)
    expected = agree / math.sqrt(in_score * in_target) if in_score and in_target else 0.0
    close(found, float(expected))


def test_a_spread_below_the_smallest_number_does_not_blow_up_the_loss() -> None:
    objective = Regression().fitted([0.0, 1e-45], ["a", "b"])
    assert bool(objective.losses(torch.zeros(2, 1), objective.encode([0.0, 1e-45], ["a", "b"])).isfinite().all())


def test_only_the_order_of_a_relevance_counts() -> None:
    score = random(5, 1, 0)
    a, b = (Ranking().encode(t, list("abcde")) for t in ([1, 2, 3, 4, 5], [-9.0, 0.1, 0.2, 7, 1e6]))
    assert torch.equal(Ranking().losses(score, a), Ranking().losses(score, b))


def test_targets_per_group_are_laid_one_after_the_other() -> None:
    assert THREE.encode([np.array([0, 2]), 1, [2]], ["a", "b", "c"]).tolist() == [0, 2, 1, 2]
    assert TAGS.encode([[[1, 0, 0], [0, 1, 1]], ["blue"]], ["a", "b"]).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert Regression().encode([[1.0, 2.0], 3], ["a", "b"]).tolist() == [[1.0], [2.0], [3.0]]


OBJECTIVES = [
    THREE,
    Classification(("a", "b"), smoothing=0.1),
    TAGS,
    Regression(("x", "y"), mean=(0.1, 1e-9), std=(3.0, 1 / 3)),
    Regression(),
    Sentiment(mean=(0.1,), std=(1.7,)),
    Ranking(),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_json_round_trip_is_exact(objective) -> None:
    again = objective_from_json(json.loads(json.dumps(objective.to_json())))
    assert again == objective
    assert type(again) is type(objective)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_the_main_metric_is_among_the_metrics_and_better_for_better_scores(objective: Objective) -> None:
    rng = np.random.default_rng(0)
    number = rng.integers(0, 2, 30)
    if isinstance(objective, MultiLabel):
        truth = objective.encode([[n, 1 - n, n] for n in number], [""] * 30)
        good = truth * 4 - 2
    elif isinstance(objective, Classification):
        truth = objective.encode(number.tolist(), [""] * 30)
        good = 4 * torch.nn.functional.one_hot(truth, objective.outputs).float()
    else:
        truth = objective.encode(list(rng.standard_normal((30, objective.outputs))), [""] * 30)
        good = truth[:, None] if isinstance(objective, Ranking) else truth
    better, worse = (objective.metrics(scores.float(), truth)[objective.main] for scores in (good, -good))
    assert better > worse if objective.larger else better < worse


def test_the_documentation_defines_every_metric_of_every_objective() -> None:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    for objective in OBJECTIVES:
        kind = type(objective)
        scores = random(20, objective.outputs, 0)
        target = [1] * 20 if kind is Classification else [[1.0] * objective.outputs] * 20
        truth = objective.encode(target, [""] * 20)
        truth = random(20, objective.outputs, 1) if isinstance(objective, Regression) else truth
        own = "".join(sections[base.__name__] for base in kind.__mro__ if base.__name__ in sections)
        defined = {line.split("|")[1].strip(" *") for line in own.splitlines() if line.startswith("|")}
        assert set(objective.metrics(scores, truth)) - {"loss"} <= defined
        assert f"**{objective.main}**" in own


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    objective = Classification(("a", "b", "c"), smoothing=0.3)
    scores = random(4, 3, 0)
    truth = torch.tensor([0, 1, 2, 0])
    target = torch.full((4, 3), 0.1)
    target[torch.arange(4), truth] += 0.7
    expected = -(target * scores.log_softmax(-1)).sum(-1)
    assert torch.allclose(objective.losses(scores, truth), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "target", "message"),
    [
        (THREE, "maybe", "label 'maybe' was not seen in training; known: no, yes, perhaps"),
        (THREE, 3, r"class numbers must lie in 0 \.\. 2, got \[3\]"),
        (THREE, -1, r"class numbers must lie in 0 \.\. 2"),
        (THREE, 1.0, "class name or class numbers, got torch.float"),
        (THREE, [[1, 0, 0]], "class name or class numbers"),
        (TAGS, ["red", "pink"], "label 'pink' was not seen in training; known: red, green, blue"),
        (TAGS, [0, 1, 2], "zeros and ones"),
        (TAGS, [0.0, math.nan, 1.0], "zeros and ones"),
        (TAGS, [0, 1], r"3 zeros and ones, got \[2\]"),
        (TAGS, [[0, 1, 1, 0, 1, 1]], r"3 zeros and ones, got \[1, 6\]"),
        (TAGS, 1, r"3 zeros and ones, got \[1\]"),
        (TAGS, "red", "target: expected an array of numbers"),
        (Regression(), math.nan, "not finite"),
        (Regression(), math.inf, "not finite"),
        (Regression(), "high", "target: expected an array of numbers"),
        (Regression(("x", "y")), [1.0, 2.0, 3.0], r"must hold 2 numbers, got \[3\]"),
        (Ranking(), -math.inf, "not finite"),
    ],
)
def test_a_target_that_does_not_fit_is_refused_with_the_sample(objective, target, message) -> None:
    fine = {"MultiLabel": [], "Classification": 0}.get(type(objective).__name__, [0.0] * objective.outputs)
    with pytest.raises(HetgraphError, match=f"sample 'bad': .*{message}"):
        objective.encode([fine, target], ["good", "bad"])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_a_missing_target_is_refused_with_the_sample(objective) -> None:
    with pytest.raises(HetgraphError, match="sample 'b': no target"):
        objective.encode([None], ["b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification(("one",)), "at least two different classes"),
        (lambda: Classification(("a", "a")), "at least two different classes"),
        (lambda: MultiLabel(()), "different label names"),
        (lambda: MultiLabel(("a", "a")), "different label names"),
        (lambda: Regression(("x",), std=(0.0,)), "do not fit"),
        (lambda: Sentiment(("x", "y")), "a sentiment is one number"),
        (lambda: Regression(("x",), mean=(0.0, 1.0)), "do not fit"),
        (lambda: objective_from_json({"kind": "Astrology"}), "unknown objective 'Astrology'; known: .*Ranking"),
        (lambda: objective_from_json({"kind": "Ranking", "colour": 1}), "objective Ranking: .*colour"),
        (lambda: objective_from_json({}), "unknown objective None"),
    ],
)
def test_impossible_objectives_are_refused(make, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        make()


def test_a_long_list_of_known_labels_is_cut() -> None:
    many = Classification(tuple(f"c{i}" for i in range(500)))
    with pytest.raises(HetgraphError, match=r"c9, \.\.\. \(500 in all\)$"):
        many.encode(["x"], ["s"])
