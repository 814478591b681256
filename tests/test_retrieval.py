"""Retrieval: rankings against scikit-learn, losses against loops, maps against closed forms, index against a search."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from readers import genuine

from hetgraph import EdgeType, GraphBuilder, HetgraphError, NodeType, Sample, Schema
from hetgraph.fusion import METHODS
from hetgraph.objectives import Classification
from hetgraph.tasks import retrieval
from hetgraph.tasks.ablations import ablate
from hetgraph.tasks.datasets.retrieval import Pooled, RetrievalData
from hetgraph.tasks.retrieval import Index, RetrievalModel, learning, linear, losses, metrics, rerank
from hetgraph.tasks.retrieval.model import restricted
from hetgraph.tasks.retrieval.picture import draw
from hetgraph.thinning import without


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def toy(count: int = 60, relevance: str = "group", seed: int = 0) -> RetrievalData:
    """Three modalities that are noisy rotations of one hidden vector; two items in every fifth group."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 6, generator=draw)
    turn = [torch.randn(6, 6, generator=draw) for _ in range(3)]
    schema = Schema(
        [NodeType("region", 6), NodeType("token", 6), NodeType("frame", 6)],
        [EdgeType(a, "with", b) for a in ("region", "token", "frame") for b in ("region", "token", "frame") if a != b],
    )
    samples = []
    for i in range(count):
        views = {
            name: (hidden[i] @ turn[k])[None] + 0.3 * torch.randn(2 + i % 3, 6, generator=draw)
            for k, name in enumerate(("region", "token", "frame"))
        }
        if i % 4 == 0:
            del views["frame"]
        samples.append(Sample(id=f"s{i}", target=("up", "down")[int(hidden[i, 0] < 0)], nodes=views))
    about = {f"s{i}": {"group": str(i - (i % 5 == 4)), "title": f"thing {i}"} for i in range(count)}
    cut = (count // 2, count * 3 // 4)
    return RetrievalData(
        "toy",
        schema,
        samples[: cut[0]],
        samples[cut[0] : cut[1]],
        samples[cut[1] :],
        Classification(("up", "down")),
        about=about,
        views={"picture": ("region",), "text": ("token",), "sound": ("frame",)},
        relevance=relevance,
        pooled={"region": Pooled(), "token": Pooled(), "frame": Pooled(segments=2, spread=True)},
    )


SMALL = {"width": 8, "layers": 1, "heads": 2, "dims": 4, "epochs": 1, "batch_size": 16, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _few_queries_are_enough(monkeypatch) -> None:
    monkeypatch.setattr(retrieval, "FEWEST", 5)


# rankings


@given(st.integers(0, 10_000))
def test_average_precision_is_that_of_scikit_learn(seed) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(seed)
    queries, count = int(draw.integers(1, 5)), int(draw.integers(1, 12))
    scores = draw.permuted(np.tile(np.arange(count, dtype=np.float64), (queries, 1)), axis=1)
    right = draw.random((queries, count)) < 0.4
    right[np.arange(queries), draw.integers(0, count, queries)] = True
    found = metrics.average_precision(torch.from_numpy(scores), torch.from_numpy(right))
    expected = [sklearn.average_precision_score(r, s) for r, s in zip(right, scores, strict=True)]
    assert found.tolist() == pytest.approx(expected)


@given(st.integers(0, 10_000))
def test_rank_and_recall_by_counting_with_ties_against_the_model(seed) -> None:
    draw = np.random.default_rng(seed)
    scores = torch.from_numpy(draw.integers(0, 4, (4, 12)).astype(np.float32))
    right = torch.from_numpy(draw.random((4, 12)) < 0.3)
    right[:, 0] = True
    ranks = []
    for row, fits in zip(scores.tolist(), right.tolist(), strict=True):
        best = max(s for s, ok in zip(row, fits, strict=True) if ok)
        ranks.append(1 + sum(s >= best for s, ok in zip(row, fits, strict=True) if not ok))
    assert metrics.first_rank(scores, right).tolist() == ranks
    found = metrics.ranking(scores, right)
    assert found["recall@5"] == np.mean([rank <= 5 for rank in ranks])
    assert found["median_rank"] == np.median(ranks)
    assert (found["queries"], found["candidates"]) == (4, 12)


def test_scores_that_are_all_alike_get_the_worst_ranking() -> None:
    right = torch.tensor([[True, False, False, False]])
    assert metrics.ranking(torch.zeros(1, 4), right)["map"] == pytest.approx(1 / 4)
    assert metrics.first_rank(torch.zeros(1, 4), right).tolist() == [4]


def test_rankings_refuse_what_they_cannot_score() -> None:
    with pytest.raises(HetgraphError, match="no right candidate"):
        metrics.ranking(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool))
    with pytest.raises(HetgraphError, match="finite"):
        metrics.ranking(torch.tensor([[torch.nan, 0.0]]), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(HetgraphError, match="expected scores"):
        metrics.ranking(torch.zeros(2), torch.ones(2, dtype=torch.bool))


# losses


def unit(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@pytest.mark.parametrize("hardness", [0.0, 2.0])
def test_the_contrastive_loss_by_a_loop(hardness) -> None:
    a, o = unit(5, 3), unit(7, 3)
    positive = torch.rand(5, 7) < 0.3
    positive[:, 1], positive[:, 2] = True, False
    found = losses.contrastive(a, o, positive, 5.0, hardness)
    for i in range(5):
        cosine = [float(a[i] @ o[j]) for j in range(7)]
        wrong = [j for j in range(7) if not positive[i, j]]
        mass = sum(np.exp(hardness * cosine[j]) for j in wrong)
        weight = {j: len(wrong) * np.exp(hardness * cosine[j]) / mass for j in wrong}
        total = sum(weight.get(j, 1.0) * np.exp(5 * cosine[j]) for j in range(7))
        fits = [j for j in range(7) if positive[i, j]]
        assert float(found[i]) == pytest.approx(np.mean([np.log(total) - 5 * cosine[j] for j in fits]), rel=1e-5)


def test_one_positive_each_is_the_cross_entropy_of_both_directions() -> None:
    a, b = unit(6, 4), unit(6, 4)
    eye = torch.eye(6, dtype=torch.bool)
    logits, target = 7 * a @ b.T, torch.arange(6)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    assert losses.symmetric(a, b, eye, 7.0).item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(HetgraphError, match="no positive"):
        losses.contrastive(a, b, torch.zeros(6, 6, dtype=torch.bool), 1.0)


def test_the_queue_keeps_the_last_and_knows_their_keys() -> None:
    queue = losses.Queue(3)
    assert queue.others(torch.tensor([1])) is None
    rows = unit(5, 2)
    queue.add(rows[:2], torch.tensor([1, 2]))
    queue.add(rows[2:].clone().requires_grad_(), torch.tensor([3, 1, 4]))
    kept, right = queue.others(torch.tensor([1, 9]))
    assert torch.equal(kept, rows[2:])
    assert not kept.requires_grad
    assert right.tolist() == [[False, True, False], [False, False, False]]
    # further negatives make the loss larger by what they add to the sum
    a, b, eye = unit(2, 2), unit(2, 2), torch.eye(2, dtype=torch.bool)
    more = (kept, torch.zeros(2, 3, dtype=torch.bool))
    longer = torch.cat([a @ b.T, a @ kept.T], 1), torch.cat([b @ a.T, b @ kept.T], 1)
    expected = sum(torch.nn.functional.cross_entropy(x, torch.arange(2)) for x in longer) / 2
    assert losses.symmetric(a, b, eye, 1.0, more=more).item() == pytest.approx(expected.item(), rel=1e-5)
    nothing = losses.Queue(0)
    nothing.add(rows, torch.arange(5))
    assert nothing.others(torch.tensor([1])) is None


# closed-form maps


def test_pooled_nodes_by_hand() -> None:
    schema = Schema([NodeType("f", 1)], [])
    values = torch.tensor([[1.0], [2.0], [3.0], [6.0]])
    graph = GraphBuilder(schema)([Sample(f=values), Sample(f=torch.tensor([[5.0]]))])
    found = linear.pool(graph, "f", Pooled(segments=2, spread=True))
    assert found[0].tolist() == pytest.approx([3.0, float(values.std(unbiased=False)), 1.5, 4.5])
    # one node is both stretches
    assert found[1].tolist() == pytest.approx([5.0, 0.0, 5.0, 5.0], abs=1e-5)
    assert found.shape[1] == linear.width(1, Pooled(segments=2, spread=True))


def test_pooling_counts_nodes_and_takes_the_first_features() -> None:
    schema = Schema([NodeType("f", 3)], [])
    x = torch.arange(12.0).reshape(4, 3)
    graph = GraphBuilder(schema)([Sample(id="a", f=x[:1]), Sample(id="b", f=x[1:])])
    how = Pooled(first=2, count=True)
    found = linear.pool(graph, "f", how)
    assert torch.allclose(found, torch.tensor([[0.0, 1.0, math.log(2)], [6.0, 7.0, math.log(4)]]))
    assert found.shape[1] == linear.width(3, how)


def test_features_of_a_kernel_multiply_to_the_kernel() -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    landmarks, root, middle = linear.nystrom(x, 40)
    apart = torch.tensor([[float(((a - b) ** 2).sum()) for b in x] for a in x])
    assert float(middle) == pytest.approx(float(apart[~torch.eye(40, dtype=torch.bool)].median()), rel=1e-5)
    made = linear.gaussian(x, landmarks, middle) @ root
    assert torch.allclose(made @ made.T, torch.exp(-apart / middle), atol=1e-3)
    with pytest.raises(HetgraphError, match=r"41 landmarks .* got 40 items"):
        linear.nystrom(x, 41)
    with pytest.raises(HetgraphError, match="items that differ"):
        linear.nystrom(torch.ones(5, 2), 3)


def test_a_modality_has_a_ridge_of_its_own() -> None:
    x, y = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(1))
    sides = {"x": x - x.mean(0), "y": y - y.mean(0)}
    same, _ = linear.shared_space(sides, None, 3, 0.5)
    named, _ = linear.shared_space(sides, None, 3, 7.0, ridges={"x": 0.5, "y": 0.5})
    other, _ = linear.shared_space(sides, None, 3, 0.5, ridges={"y": 7.0})
    assert all(torch.equal(same[side], named[side]) for side in sides)
    assert other["y"].norm() < same["y"].norm() / 2


def test_settings_of_an_unknown_modality_are_refused() -> None:
    for name in ("weights", "ridges", "kernels"):
        with pytest.raises(HetgraphError, match=f"toy: {name} of 'pictures'; modalities are picture, text, sound"):
            replace(toy(), **{name: {"pictures": 3}})


def test_a_model_with_kernels_is_saved_and_one_without_loads_as_before(tmp_path) -> None:
    data = toy()
    kernel = retrieval.train(
        replace(data, kernels={"text": 12}), retrieval.suggested("toy", **SMALL | {"method": "linear"}), progress=False
    )
    plain = retrieval.train(data, retrieval.suggested("toy", **SMALL | {"method": "linear"}), progress=False)
    made = [model.vectors(data.test, ["text"]) for model in (kernel, plain)]
    assert not torch.allclose(*made)
    kernel.save_pretrained(tmp_path)
    assert torch.equal(RetrievalModel.from_pretrained(tmp_path).vectors(data.test, ["text"]), made[0])
    old = {name: value for name, value in plain.to_config().items() if name != "kernels"}
    loaded = RetrievalModel.from_config(old)
    loaded.load_state_dict(plain.state_dict())
    assert torch.equal(loaded.vectors(data.test, ["text"]), made[1])


def test_the_shared_space_of_two_sides_is_that_of_cca() -> None:
    hidden = torch.randn(200, 2)
    sides = {}
    for name in ("a", "b"):
        x = torch.cat([hidden + 0.5 * torch.randn(200, 2), torch.randn(200, 2)], 1) @ torch.randn(4, 4)
        sides[name] = x - x.mean(0)
    maps, values = linear.shared_space(sides, None, 2, 1e-6)
    one, other = linear.cca(sides["a"], sides["b"], 2, 1e-9)
    for name, expected in (("a", one), ("b", other)):
        got, wanted = sides[name] @ maps[name], sides[name] @ expected
        assert abs(float(torch.corrcoef(torch.stack([got[:, 0], wanted[:, 0]]))[0, 1])) == pytest.approx(1, abs=1e-3)
    # two projections agree on a direction with 1 + its canonical correlation
    a, b = (sides[name] @ w for name, w in (("a", one), ("b", other)))
    r = [float(torch.corrcoef(torch.stack([a[:, k], b[:, k]]))[0, 1]) for k in range(2)]
    assert values.tolist() == pytest.approx([1 + x for x in r], abs=1e-3)


def test_a_weight_of_two_is_the_same_modality_twice() -> None:
    x, y = torch.randn(40, 5), torch.randn(40, 4)
    twice, values = linear.shared_space({"x": x, "again": x, "y": y}, None, 3, 0.5)
    heavy, others = linear.shared_space({"x": x, "y": y}, None, 3, 0.5, weights={"x": 2.0})
    assert values.tolist() == pytest.approx(others.tolist(), rel=1e-5)
    assert torch.allclose(twice["y"], heavy["y"], atol=1e-5)


def test_what_is_constant_stays_finite_when_weights_are_averaged() -> None:
    data = toy()
    for sample in data.train + data.valid:
        sample.nodes["token"]["x"][:, 2] = 1.5
    model = retrieval.train(data, retrieval.suggested("toy", **{**SMALL, "epochs": 3}), progress=False)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert bool(model.vectors(data.test, ["text"]).isfinite().all())


def test_classes_are_one_more_modality() -> None:
    classes = torch.arange(60) % 3
    x = torch.nn.functional.one_hot(classes).float() @ torch.randn(3, 5) + 0.1 * torch.randn(60, 5)
    maps, _ = linear.shared_space({"a": x - x.mean(0)}, classes, 2, 1e-3, 5.0)
    z = (x - x.mean(0)) @ maps["a"]
    means = torch.stack([z[classes == c].mean(0) for c in range(3)])
    assert bool((torch.cdist(z, means).argmin(1) == classes).all())
    with pytest.raises(HetgraphError, match="needs more items"):
        linear.shared_space({"a": x[:2]}, None, 2, 0.1)


def test_the_classifier_is_that_of_scikit_learn() -> None:
    models = pytest.importorskip("sklearn.linear_model")
    x, classes = torch.randn(80, 4), torch.arange(80) % 3
    weight, bias = linear.logistic(x, classes, 3, 0.05, steps=300)
    found = (x @ weight + bias).softmax(1).numpy()
    expected = models.LogisticRegression(C=1 / (0.05 * 80), max_iter=1000).fit(x.numpy(), classes.numpy())
    assert np.allclose(found, expected.predict_proba(x.numpy()), atol=1e-3)


# the index


def search(rows: torch.Tensor, query: torch.Tensor, k: int) -> list[int]:
    return sorted(range(len(rows)), key=lambda i: (-float(rows[i] @ query), i))[:k]


def test_the_index_finds_what_a_search_finds_also_after_adding_deleting_saving(tmp_path) -> None:
    rows, asked = torch.randn(50, 8), torch.randn(6, 8)
    index = Index(8)
    index.add([f"v{i}" for i in range(30)], rows[:30])
    index.add([f"v{i}" for i in range(30, 50)], rows[30:])
    index.delete(["v7", "v31"])
    left = [i for i in range(50) if i not in (7, 31)]
    assert len(index) == 48
    assert "v7" not in index
    index.save(tmp_path / "index.safetensors")
    for some in (index, Index.load(tmp_path / "index.safetensors")):
        for query, found in zip(asked, some.search(asked, 5), strict=True):
            assert [name for name, _ in found] == [f"v{left[i]}" for i in search(rows[left], query, 5)]
            assert found[0][1] == pytest.approx(float(rows[int(found[0][0][1:])] @ query), rel=1e-5)
    index.add(["v7"], rows[7:8])
    assert index.search(100 * rows[7:8], 60)[0][0][0] == f"v{search(rows, rows[7], 1)[0]}"


def test_usearch_finds_nearly_all(tmp_path) -> None:
    pytest.importorskip("usearch")
    rows, asked = unit(2000, 16), unit(30, 16)
    exact, near = Index(16), Index(16, exact_up_to=1000)
    for index in (exact, near):
        index.add([str(i) for i in range(2000)], rows)
        index.delete(["5", "1999"])
    assert (exact.approximate, near.approximate) == (False, True)
    near.save(tmp_path / "i")
    for index in (near, Index.load(tmp_path / "i")):
        pairs = list(zip(exact.search(asked, 10), index.search(asked, 10), strict=True))
        same = [len({n for n, _ in a} & {n for n, _ in b}) for a, b in pairs]
        assert sum(same) >= 0.95 * 300
        assert all(
            score == pytest.approx(dict(a)[name], rel=1e-5) for a, b in pairs for name, score in b if name in dict(a)
        )


def test_the_index_says_what_is_wrong_and_stays_as_it_was(tmp_path) -> None:
    index = Index(2)
    index.add(["a"], torch.ones(1, 2))
    for ids, rows, said in (
        (["a"], torch.ones(1, 2), "'a' is there already"),
        (["b", "b"], torch.ones(2, 2), "'b' is there already"),
        (["b"], torch.ones(1, 3), r"must be \[1, 2\]"),
        (["b"], torch.full((1, 2), torch.nan), "'b' is not finite"),
    ):
        with pytest.raises(HetgraphError, match=said):
            index.add(ids, rows)
    with pytest.raises(HetgraphError, match="no id 'z'"):
        index.delete(["a", "z"])
    with pytest.raises(HetgraphError, match="queries must be finite"):
        index.search(torch.ones(1, 3))
    assert index.ids == ("a",)
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(HetgraphError, match="no index that can be read"):
        Index.load(tmp_path / "x")
    assert Index(2).search(torch.ones(1, 2)) == [[]]


# the model


def test_sides_are_disjoint_and_reach_everything() -> None:
    data = toy()
    sides = learning.Sides(data, 0.3)
    drawn = torch.Generator().manual_seed(1)
    seen = set()
    for _ in range(20):
        one, other = sides(data.train, drawn)
        for a, b, whole in zip(one, other, data.train, strict=True):
            assert a.nodes
            assert b.nodes
            assert not set(a.nodes) & set(b.nodes)
            assert {*a.nodes, *b.nodes} <= set(whole.nodes)
            seen.add((frozenset(a.nodes), frozenset(b.nodes)))
    assert len(seen) == 6 + 3 + 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_from_the_closed_form_maps_and_learns(method) -> None:
    data = toy()
    settings = retrieval.suggested("toy", method=method, **SMALL)
    plain = learning.make(data, retrieval.suggested("toy", method="linear", **SMALL))
    start = learning.make(data, settings)
    samples = [s for s in data.test if len(s.nodes) == 3]
    # nothing of the fusion network is heard before training
    assert torch.allclose(start.vectors(samples, ["text"]), plain.vectors(samples, ["text"]), atol=1e-6)
    model = retrieval.train(data, settings, progress=False)
    again = retrieval.train(data, settings, progress=False)
    assert torch.equal(model.vectors(samples, ["text"]), again.vectors(samples, ["text"]))
    other = learning.Training(start, data, settings, 0)
    before = other.model.out.weight.clone()
    other._epoch(0, retrieval.TrainingBar(False, 1, other.steps), {"valid": []})
    assert not torch.equal(before, other.model.out.weight)


def test_a_query_of_two_modalities_hears_both_alike_however_short_their_maps() -> None:
    data = toy()
    model = learning.make(data, retrieval.suggested("toy", method="linear", **SMALL))
    samples = [s for s in data.test if len(s.nodes) == 3][:4]
    graph = GraphBuilder(data.schema)(samples)
    total = torch.zeros(4, 4)
    for i, view in enumerate(("picture", "text")):
        mean, std = model.get_buffer(f"scale_{i}")
        mapped = (model.rows(graph, view)[0] - mean) / std @ model.get_buffer(f"map_{i}")
        total += mapped / mapped.square().sum(1, keepdim=True).sqrt()
    expected = total / total.square().sum(1, keepdim=True).sqrt()
    assert torch.allclose(model.vectors(samples, ["text", "picture"]), expected, atol=1e-5)
    model.get_buffer("map_0").mul_(0.1)
    assert torch.allclose(model.vectors(samples, ["text", "picture"]), expected, atol=1e-5)
    # the same score as the mean of both cosines, as far as order goes: late fusion of two searches
    each = torch.stack([model.vectors(samples, [view]) @ expected.T for view in ("text", "picture")]).mean(0)
    both = model.vectors(samples, ["text", "picture"]) @ expected.T
    assert torch.equal(each.argsort(1), both.argsort(1))


def test_scores_are_cosine_and_probability_of_the_same_class() -> None:
    data = toy(relevance="target")
    settings = retrieval.suggested("toy", method="linear", classify=1.0, agreement=0.25, label_weight=1.0, **SMALL)
    model = learning.make(data, settings)
    graph = GraphBuilder(data.schema)([without(s, "token", "frame") for s in data.test[:3]])
    z, chances, _ = model(graph)
    vectors = model.embed(graph)
    expected = 0.75 * z @ z.T + 0.25 * chances.exp() @ chances.exp().T
    assert torch.allclose(vectors @ vectors.T, expected, atol=1e-6)
    assert torch.allclose(chances.exp().sum(1), torch.ones(3))


@pytest.mark.parametrize(
    "changes", [{"hardness": 1.0, "queue": 8}, {"classify": 1.0, "agreement": 0.5}, {"anchor": False}]
)
def test_options_train_and_save(changes, tmp_path) -> None:
    data = toy()
    changed = {**SMALL, "dims": 6, **changes}
    model = retrieval.train(data, retrieval.suggested("toy", **changed), folder=tmp_path, progress=False)
    plain = {**SMALL, "dims": 6}
    assert (
        model.history["loss"]
        != retrieval.train(data, retrieval.suggested("toy", **plain), progress=False).history["loss"]
    )
    loaded = RetrievalModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.vectors(data.test, ["text"]), model.vectors(data.test, ["text"]))


def test_evaluate_is_what_predict_finds_with_one_sample_per_group() -> None:
    data = toy(120)
    model = retrieval.train(data, retrieval.suggested("toy", **{**SMALL, "dims": 6}), progress=False)
    found = retrieval.predict(model, data, query=("picture", "text"), candidate=("sound",), most=3)
    groups = [data.about[one.id]["group"] for one in found]
    assert len(set(groups)) == len(groups)
    scores = retrieval.evaluate(model, data)
    able = [one.rank for one in found if one.rank]
    name = "picture + text > sound"
    assert scores[f"queries {name}"] == len(able)
    assert scores[f"recall@5 {name}"] == pytest.approx(np.mean([rank <= 5 for rank in able]))
    assert scores[f"map {name}"] == pytest.approx(np.mean([1 / rank for rank in able]))
    for one in found:
        assert len(one.found) == 3
        assert one.rank in (0, *range(1, 200))
        assert any(right for *_, right in one.found) == (1 <= one.rank <= 3)
        assert json.loads(json.dumps(one.to_json()))["rank"] == one.rank
    # six ordered pairs, and each pair of modalities for the third
    assert sum(key.startswith("queries ") for key in scores) == 9
    pairs = [(a, b) for a in data.views for b in data.views if a != b]
    assert scores["map"] == pytest.approx(np.mean([scores[f"map {a} > {b}"] for a, b in pairs]))
    assert scores["map picture > text"] > 0.3


def test_bad_questions_are_refused() -> None:
    data = toy()
    model = learning.make(data, retrieval.suggested("toy", method="linear", **SMALL))
    with pytest.raises(HetgraphError, match="no modality 'smell'"):
        retrieval.predict(model, data, query=("smell",))
    with pytest.raises(HetgraphError, match="'text' is on both sides"):
        retrieval.predict(model, data, query=("text",), candidate=("text",))
    with pytest.raises(HetgraphError, match="sample 's0': modality 'sound' expected"):
        restricted(data.train[0], data.views, ["sound"])
    with pytest.raises(HetgraphError, match="needs a classifier"):
        retrieval.suggested("toy", agreement=0.5)
    with pytest.raises(HetgraphError, match="unknown fusion method 'none'"):
        retrieval.suggested("toy", method="none")
    with pytest.raises(HetgraphError, match="no setting 'colour'"):
        retrieval.suggested("toy", colour=1)
    with pytest.raises(HetgraphError, match="direct: scores can go past fusion"):
        retrieval.suggested("toy", direct=8)
    with pytest.raises(HetgraphError, match="no group"):
        replace(data, about={}).keys(data.test)
    with pytest.raises(HetgraphError, match="common node type"):
        replace(data, views={"a": ("token",), "b": ("token",)})


def test_edges_can_be_taken_away() -> None:
    other = ablate(toy(), "no edges")
    assert isinstance(other, RetrievalData)
    assert not other.schema.edges
    retrieval.train(other, retrieval.suggested("toy", **SMALL), progress=False)


# the second stage


def test_ranking_again_changes_the_order_of_the_first_few_alone() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.2, 0.5, 0.3, 0.4]])
    best = scores.topk(3, dim=1)
    odds = torch.tensor([[0.0, 0.0, 9.0], [0.0, 5.0, 0.0]])
    found = rerank._placed(scores, best.values, best.indices, odds, 1.0)
    # the third of the first query moves up; of the second query the second best, which is the last candidate
    assert found.argsort(descending=True, dim=1).tolist() == [[2, 0, 1, 3], [3, 1, 2, 0]]
    assert found.sort(1).values.tolist() == scores.sort(1).values.tolist()


def test_the_second_stage_trains_and_never_makes_validation_worse(tmp_path) -> None:
    data = toy(120)
    settings = retrieval.suggested("toy", **SMALL)
    first = retrieval.train(data, settings, progress=False)
    second = rerank.train_reranker(first, data, ["picture"], ["text"], settings, top=5, progress=False)
    assert second.both["map"] >= second.first["map"]
    found = rerank.evaluate_reranked(second.model, first, data, ["picture"], ["text"], data.valid, top=20)
    assert found["queries"] == second.both["queries"]
    second.model.save_pretrained(tmp_path)
    loaded = rerank.Reranker.from_pretrained(tmp_path)
    ask, offer = ([restricted(s, data.views, [view]) for s in data.test] for view in ("picture", "text"))
    assert torch.equal(loaded.scores(ask, offer), second.model.eval().scores(ask, offer))
    with pytest.raises(HetgraphError, match="both have the node type 'token'"):
        rerank.joint(offer[0], offer[1])


# data sets


def put_wikipedia(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    arrays, lines = {}, ["split,row,text_id,image_id,category"]
    for part, count in (("train", 60), ("test", 20)):
        label = np.arange(count) % 10
        arrays |= {
            f"image_{part}": draw.dirichlet(np.ones(16), count),
            f"text_{part}": draw.dirichlet(np.ones(5), count) + np.eye(5)[label % 5],
            f"text_tfidf_{part}": (draw.random((count, 30)) * (draw.random((count, 30)) < 0.3)).astype(np.float32),
        }
        lines += [f"{part},{i},{part}article{i}-{i % 3},{part}image{i},{label[i] + 1}" for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "features.npz", **arrays)
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_wikipedia_as_graphs(tmp_path) -> None:
    data = retrieval.load("wikipedia", put_wikipedia(tmp_path))
    assert (len(data.train) + len(data.valid), len(data.test)) == (60, 20)
    articles = [{data.about[str(s.id)]["group"] for s in part} for part in (data.train, data.valid)]
    assert articles[1]
    assert not articles[0] & articles[1]
    arrays = np.load(tmp_path / "features.npz")
    sample, row = data.test[3], arrays["text_tfidf_test"][3]
    assert np.allclose(sample.nodes["tfidf"]["x"][0].square() / 16, row, atol=1e-6)
    words = sample.nodes["word"]["word"].tolist()
    assert len(words) == min(12, int((row > 0).sum()))
    assert min(row[words]) >= max((v for i, v in enumerate(row) if i not in words), default=0)
    GraphBuilder(data.schema)(data.train)
    assert data.keys(data.test[:2]) == ["art", "biology"]


def test_the_genuine_wikipedia_has_693_queries() -> None:
    data = retrieval.load("wikipedia", genuine("wiki_retrieval"))
    assert (len(data.train) + len(data.valid), len(data.test)) == (2173, 693)
    right = retrieval._right(data, data.test, data.test)
    found = retrieval.score(torch.rand(693, 693), right)
    assert found["map"] == pytest.approx(0.118, abs=0.004)


def test_the_command_trains_scores_and_keeps_what_it_found(tmp_path, typed) -> None:
    words = ("task", "retrieval", "wikipedia", "--data", put_wikipedia(tmp_path / "data"), "--output", tmp_path / "out")
    small = ("--epochs", 1, "--width", 8, "--layers", 1, "--heads", 2)
    code, out, err = typed(*words, *small, "--json", tmp_path / "s.json", "--picture", tmp_path / "p.png")
    assert (code, err) == (0, "")
    assert "image > text" in out
    result = json.loads((tmp_path / "s.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out" / "seed-0" / "found.jsonl").read_text().splitlines()]
    assert len(lines) == result["runs"][0]["queries image > text"] == 20
    share = np.mean([line["rank"] <= 5 for line in lines])
    assert result["runs"][0]["recall@5 image > text"] == pytest.approx(share)
    RetrievalModel.from_pretrained(tmp_path / "out" / "seed-0")
    assert (tmp_path / "p.png").stat().st_size > 1000
    code, _, err = typed("task", "retrieval", "daquar")
    assert code != 0
    assert "no data set 'daquar' for retrieval" in err
    with pytest.raises(HetgraphError, match="no scores"):
        draw({}, tmp_path / "x.png")


# the page

PAGE = (Path(__file__).parents[1] / "docs" / "tasks" / "retrieval.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(codes) == 1
    exec(compile(codes[0], "docs/tasks/retrieval.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == re.findall(r"print\(.*\) +# (.*)", codes[0])


def test_the_page_names_every_data_set() -> None:
    assert all(f"`{name}`" in PAGE for name in retrieval.DATA)
