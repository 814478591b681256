"""Scores of what was generated, against closed forms, loops and scikit-learn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.linear_model import Ridge
from test_datasets_av_digits import whole

from hetgraph import HetgraphError
from hetgraph.tasks.generation import judging, scoring
from hetgraph.tasks.ridge import ridge


def test_distances_within_classes_by_a_loop() -> None:
    x, kinds = torch.randn(9, 4), torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 0])
    rows = [[x[i] for i in range(9) if kinds[i] == k] for k in (0, 1)]
    each = [np.mean([float((a - b).norm()) for a, b in combinations(own, 2)]) for own in rows]
    assert judging.spread_within(x, kinds) == pytest.approx(np.mean(each))
    assert judging.spread_within(torch.ones(4, 2), torch.zeros(4)) == 0
    with pytest.raises(HetgraphError, match="two rows of a class"):
        judging.spread_within(x[:2], torch.tensor([0, 1]))


def test_the_frechet_distance_is_that_with_the_matrix_root() -> None:
    a, b = torch.randn(50, 5) @ torch.randn(5, 5), torch.randn(40, 5) + 1
    first, second = np.cov(a.numpy().T), np.cov(b.numpy().T)
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    expected = apart + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert judging.frechet(a, b) == pytest.approx(expected, rel=1e-4)
    assert judging.frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_precision_and_recall_by_loops() -> None:
    real, made = torch.randn(30, 3), 0.5 * torch.randn(25, 3)

    def among(rows: torch.Tensor, others: torch.Tensor) -> float:
        reach = [sorted(float((o - p).norm()) for p in others)[2] for o in others]
        return float(
            np.mean([any(float((r - o).norm()) <= d for o, d in zip(others, reach, strict=True)) for r in rows])
        )

    assert judging.precision_recall(real, made, 2) == pytest.approx((among(made, real), among(real, made)))
    with pytest.raises(HetgraphError, match="more than 3 rows"):
        judging.precision_recall(real[:3], made)


def test_ranks_by_a_loop_and_ties_count_against() -> None:
    made, real = torch.randn(12, 6), torch.randn(12, 6)
    ranks = []
    for i, row in enumerate(made):
        cosines = [float(row @ other / row.norm() / other.norm()) for other in real]
        ranks.append(1 + sum(c > cosines[i] for c in cosines))
    found = judging.retrieval(made, real)
    assert found["median_rank"] == np.median(ranks)
    for k in (1, 5, 10):
        assert found[f"recall@{k}"] == pytest.approx(np.mean([r <= k for r in ranks]))
    assert judging.retrieval(real, real)["recall@1"] == 1
    assert judging.retrieval(torch.ones(4, 2), torch.ones(4, 2)) == {
        **judging.chance(4),
        "median_rank": 4,
        "recall@1": 0,
    }


def test_ridge_is_that_of_sklearn() -> None:
    x, y = torch.randn(20, 4) + 2, torch.randn(20, 3)
    weights, shift = ridge(x, y, 3.0)
    other = Ridge(3.0).fit(x.double().numpy(), y.double().numpy())
    assert np.allclose(weights.T, other.coef_)
    assert np.allclose(shift, other.intercept_)


def test_one_item_of_every_group() -> None:
    assert judging.first_of_each(["b", "a", "b", "c", "a"]) == [0, 1, 3]


def test_cells_become_the_picture_again() -> None:
    cells = torch.rand(2, 16, 49)
    assert np.array_equal(scoring.squares(cells)[1].numpy(), whole(cells[1]))
    with pytest.raises(HetgraphError, match="square of square cells"):
        scoring.squares(torch.rand(3, 16, 50))


def test_the_judge_learns_and_a_mean_picture_has_no_diversity() -> None:
    base = torch.zeros(2, 8, 8)
    base[0, 2:6, 3:5], base[1, 3:5, 2:6] = 1.0, 1.0
    kinds = torch.arange(80) % 2
    pictures = (base[kinds] + 0.2 * torch.rand(80, 8, 8)).clamp(0, 1)
    reader = judging.judge(pictures, kinds, epochs=30, batch=16)
    real = judging.pictures_compared(reader, pictures, kinds, pictures, kinds)
    assert real["accuracy"] == real["accuracy_real"] == 1
    assert (real["diversity"], real["precision"], real["recall"]) == (1, 1, 1)
    assert real["frechet"] == pytest.approx(0, abs=1e-5)
    means = judging.pictures_compared(reader, base[kinds], kinds, pictures, kinds)
    assert means["accuracy"] == 1
    assert means["diversity"] == pytest.approx(0, abs=1e-5)
    assert means["diversity_features"] == pytest.approx(0, abs=1e-4)
    wrong = judging.pictures_compared(reader, pictures, 1 - kinds, pictures, kinds)
    assert wrong["accuracy"] == 0
    again = judging.judge(pictures, kinds, epochs=30, batch=16)
    assert torch.equal(again.kind.weight, reader.kind.weight)
