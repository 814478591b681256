"""Ranks are those of a loop over all entities; the metrics are those of the field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hetgraph.kg import KnowledgeError, frequency_scorer, rank_triples

N, R = 6, 2
TRIPLE = st.tuples(st.integers(0, N - 1), st.integers(0, R - 1), st.integers(0, N - 1))


class Table:
    """Scores of every triple ``[N, R, N]``, looked up."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def __call__(self, given: Tensor, relations: Tensor, side: str) -> Tensor:
        return self.scores[given, relations] if side == "tail" else self.scores[:, relations, given].T


def by_loop(scores: Tensor, triple: tuple[int, int, int], side: str, known: set[tuple[int, ...]] | None) -> float:
    """The rank by its definition: the mean over all orders of what is level."""
    h, r, t = triple
    above, level = 0, 0
    for other in range(N):
        asked = (h, r, other) if side == "tail" else (other, r, t)
        if asked == triple or (known is not None and asked in known):
            continue
        above += bool(scores[asked] > scores[triple])
        level += bool(scores[asked] == scores[triple])
    places = [above + 1 + before for before in range(level + 1)]
    return sum(places) / len(places)


@given(
    st.lists(TRIPLE, min_size=1, max_size=20),
    st.lists(TRIPLE, max_size=40),
    st.lists(st.sampled_from([-float("inf"), -1.0, 0.0, 0.5, float("inf")]), min_size=N * R * N, max_size=N * R * N),
    st.booleans(),
    st.integers(1, 200),
)
def test_ranks_are_those_of_a_loop_filtered_on_both_sides_with_ties(asked, others, values, filtered, memory) -> None:
    scores = torch.tensor(values).reshape(N, R, N)
    known = np.array(asked + others) if filtered else None
    found = rank_triples(Table(scores), np.array(asked), N, known=known, memory=memory)
    seen = set(asked + others) if filtered else None
    for side in ("tail", "head"):
        expected = [by_loop(scores, triple, side, seen) for triple in asked]
        assert getattr(found, side).tolist() == expected


def test_the_metrics_are_means_over_both_sides() -> None:
    scores = torch.zeros(N, R, N)
    scores[0, 0, 1] = -1.0  # five above it as a tail, five as a head
    scores[2, 1, 3] = 1.0
    found = rank_triples(Table(scores), np.array([[0, 0, 1], [2, 1, 3]]), N)
    assert found.tail.tolist() == [6, 1] == found.head.tolist()
    assert found.metrics() == {
        "mrr": pytest.approx((1 / 6 + 1) / 2), "hits@1": 0.5, "hits@3": 0.5, "hits@10": 1.0, "mean_rank": 3.5,
    }  # fmt: skip


def test_a_model_that_scores_everything_alike_is_in_the_middle() -> None:
    found = rank_triples(Table(torch.zeros(N, R, N)), np.array([[0, 0, 1]]), N)
    assert found.tail.tolist() == [(N + 1) / 2] == found.head.tolist()


def test_the_size_of_a_step_changes_nothing() -> None:
    scores = torch.randn(N, R, N)
    triples = np.argwhere(np.ones((N, R, N)))
    sizes = [rank_triples(Table(scores), triples, N, known=triples[::2], memory=m) for m in (1, 100, 1 << 20)]
    for other in sizes[1:]:
        assert (other.tail == sizes[0].tail).all()
        assert (other.head == sizes[0].head).all()


def test_scores_that_are_no_numbers_are_an_error_and_not_the_best_rank() -> None:
    scores = torch.zeros(N, R, N)
    scores[0, 0, 3] = float("nan")
    with pytest.raises(KnowledgeError, match="not numbers"):
        rank_triples(Table(scores), np.array([[0, 0, 1]]), N)
    with pytest.raises(KnowledgeError, match=r"expected \[1, 7\], got \[1, 6\]"):
        rank_triples(Table(scores), np.array([[1, 0, 1]]), 7)
    with pytest.raises(KnowledgeError, match="triples to rank"):
        rank_triples(Table(scores), np.empty((0, 3), int), N)


def test_the_floor_ranks_by_how_often_an_entity_answers() -> None:
    train = np.array([[0, 0, 1], [2, 0, 1], [0, 0, 3], [4, 1, 5]])
    scorer = frequency_scorer(train, N)
    zero, one = torch.tensor([5, 5]), torch.tensor([0, 1])
    assert scorer(zero, one, "tail").tolist() == [[0, 2, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]]
    assert scorer(zero, one, "head").tolist() == [[2, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    # a relation that is not in train: nothing is known
    assert scorer(torch.tensor([0]), torch.tensor([7]), "tail").tolist() == [[0] * N]


@pytest.mark.filterwarnings("ignore")  # PyKEEN's own
def test_ranks_agree_with_pykeen() -> None:
    """PyKEEN's evaluator on the same scores; it is not among the test packages, because it needs many of its own."""
    pytest.importorskip("pykeen.evaluation", reason="PyKEEN is not installed")
    from pykeen_reference import metrics_of

    generator = np.random.default_rng(0)
    triples = np.unique(generator.integers(0, [N, R, N], (40, 3)), axis=0)
    scores = torch.from_numpy(generator.integers(0, 4, (N, R, N)).astype("float32"))
    ours = rank_triples(Table(scores), triples[:10], N, known=triples).metrics()
    theirs = metrics_of(Table(scores), triples[:10], triples[10:], N, R)
    assert ours == pytest.approx(theirs, abs=1e-6)
