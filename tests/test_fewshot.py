"""Few shots: episodes, prototypes and MAML against closed forms and finite differences, adaptation, pretraining."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from test_datasets_av_digits import COLUMNS, PICTURES, recording
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from hetgraph import Fusion, GraphBuilder, Sample
from hetgraph.builders import media
from hetgraph.errors import HetgraphError
from hetgraph.objectives import Classification
from hetgraph.tasks import fewshot
from hetgraph.tasks.fewshot import Adaptation, Episode, FewShot, Learner, MetaSettings, draw
from hetgraph.tasks.fewshot.adapting import candidates, choose, scores, scores_along
from hetgraph.tasks.fewshot.learner import inner_loop, inner_loop_of_head, prototypes
from hetgraph.tasks.fewshot.pretraining import PretrainingSettings, Tasks, info_nce, pretrain
from hetgraph.tasks.fewshot.probing import few_labels, k_shot, probe
from hetgraph.tasks.fewshot.training import episode_loss, rate

SCHEMA = media(region=("image", 3), frame=("audio", 4))
SMALL = MetaSettings(method="sum", width=8, heads=2, steps=3, shots=2, queries=2, inner_steps=2)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def sample(name: str, kind: int, seed: int) -> Sample:
    """Two regions and three frames whose first features say the class."""
    numbers = torch.Generator().manual_seed(seed)
    region, frame = torch.randn(2, 3, generator=numbers), torch.randn(3, 4, generator=numbers)
    region[:, 0] += 2.0 * kind
    frame[:, 0] -= 2.0 * kind
    box = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    time = torch.tensor([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    return Sample(id=name, target=str(kind), region={"x": region, "box": box}, frame={"x": frame, "time": time})


def pool(domain: str, classes: int, each: int, seed: int) -> dict[str, list[Sample]]:
    return {
        str(c): [sample(f"{domain}-{c}-{i}", c, 1000 * seed + 100 * c + i) for i in range(each)] for c in range(classes)
    }


def domains(classes: int = 3, ways: int = 3, each: int = 9) -> FewShot:
    names = tuple(str(c) for c in range(classes))
    train = {name: pool(name, classes, each, i) for i, name in enumerate("abc")}
    return FewShot(
        "toy",
        SCHEMA,
        train,
        {"v": pool("v", classes, each, 7)},
        {"t": pool("t", classes, each, 8)},
        names,
        names,
        names,
        ways,
    )


# episodes


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.sampled_from([None, 2, 3]))
def test_episodes_share_nothing_between_support_and_query(shots, queries, seed, ways) -> None:
    episode = draw("a", POOL, ("0", "1", "2"), shots, queries, np.random.default_rng(seed), ways)
    assert len(episode.classes) == (ways or 3)
    own = [s.id for s in episode.support + episode.query]
    assert len(set(own)) == len(own) == (ways or 3) * (shots + queries)
    assert [episode.classes[i] for i in episode.support_labels] == [s.target for s in episode.support]
    assert torch.bincount(episode.support_labels).tolist() == [shots] * (ways or 3)
    assert torch.bincount(episode.query_labels).tolist() == [queries] * (ways or 3)
    for fewer in range(1, shots + 1):
        less = episode.fewer(fewer)
        assert less.shots == fewer
        assert less.query == episode.query
        assert {s.id for s in less.support} <= {s.id for s in episode.support}
        assert torch.bincount(less.support_labels).tolist() == [fewer] * (ways or 3)


POOL = pool("a", 3, 9, 0)


def test_impossible_episodes_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(HetgraphError, match=r"domain 'a': class '0': expected 5 \+ 5 samples, got 9"):
        draw("a", POOL, ("0", "1"), 5, 5, rng)
    with pytest.raises(HetgraphError, match="domain 'a': ways: expected 2 to 2, got 3"):
        draw("a", POOL, ("0", "1"), 1, 1, rng, 3)
    with pytest.raises(HetgraphError, match="episode of 'a': shots: expected 1 to 2, got 3"):
        draw("a", POOL, ("0", "1"), 2, 1, rng).fewer(3)


# prototypes


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 99))
def test_prototypes_are_means_and_the_nearest_wins(ways, shots, seed) -> None:
    rng = np.random.default_rng(seed)
    z, query = rng.standard_normal((ways * shots, 5)), rng.standard_normal((6, 5))
    labels = rng.permutation(np.repeat(np.arange(ways), shots))
    means = np.stack([z[labels == w].mean(0) for w in range(ways)])
    found = prototypes(torch.from_numpy(z), torch.from_numpy(labels), ways)
    np.testing.assert_allclose(found.numpy(), means, atol=1e-12)
    learner = LEARNER
    scored = learner.distances(torch.from_numpy(query).float(), found.float()).detach().numpy()
    squared = ((query[:, None] - means[None]) ** 2).sum(-1)
    np.testing.assert_allclose(scored, -squared / np.sqrt(5), atol=1e-4)


LEARNER = Learner(Fusion(SCHEMA, 8, heads=2, layers=0, method="sum"), ("0", "1", "2"))


def test_a_head_of_prototypes_answers_as_they_do() -> None:
    means, query = torch.randn(3, 8), torch.randn(6, 8)
    one, other = LEARNER.distances(query, means), LEARNER.head_of(means)(query)
    torch.testing.assert_close(one.softmax(-1), other.softmax(-1))
    episode = draw("a", POOL, ("2", "1"), 3, 2, np.random.default_rng(0))
    started = scores(LEARNER, episode, Adaptation("all from prototypes", steps=0))
    torch.testing.assert_close(started.softmax(-1), scores(LEARNER, episode, Adaptation()).softmax(-1))


def test_a_class_without_support_has_no_prototype() -> None:
    with pytest.raises(HetgraphError, match="class 1 has no support sample"):
        prototypes(torch.zeros(2, 3), torch.tensor([0, 2]), 3)


def test_means_with_a_prior_are_those_of_more_samples() -> None:
    """A prior that counts as two samples is two more samples where it lies."""
    z, labels = torch.randn(6, 8), torch.tensor([0, 0, 0, 1, 1, 2])
    learner = Learner(LEARNER.fusion, ("0", "1", "2"))
    assert torch.equal(learner.means(z, labels, ("0", "1", "2")), prototypes(z, labels, 3))
    place = torch.randn(3, 8)
    learner.set_prior(place)
    assert learner.log_count is not None
    with torch.no_grad():
        learner.log_count.fill_(2.0).log_()
    more = torch.cat([z, place, place]), torch.cat([labels, torch.arange(3), torch.arange(3)])
    torch.testing.assert_close(learner.means(z, labels, ("0", "1", "2")), prototypes(*more, 3))
    # of other classes it says nothing
    assert torch.equal(learner.means(z, labels, ("0", "2", "1")), prototypes(z, labels, 3))


def test_a_prior_starts_at_the_means_of_training_and_is_learnt() -> None:
    data = domains(ways=3)
    settings = replace(SMALL, regime="prior_prototypes", steps=6, warm=0.5)
    untaught = fewshot.train(data, replace(settings, warm=1.0), progress=False)
    z = torch.stack([untaught(untaught.graph([s]))[1][0] for s in data.samples])
    for i, name in enumerate(untaught.classes):
        own = z[[s.target == name for s in data.samples]].mean(0)
        torch.testing.assert_close(untaught.prior[i], own, atol=1e-4, rtol=1e-3)
    assert float(untaught.log_count.detach()) == 1.0
    taught = fewshot.train(data, settings, progress=False)
    assert float(taught.log_count.detach()) != 1.0
    with pytest.raises(HetgraphError, match=r"prior_prototypes: expected the classes of training in every part"):
        fewshot.train(domains(ways=2), settings, progress=False)


# MAML


class Line(torch.nn.Module):
    """A linear classifier in the place of a learner; the graph is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(3, 4, dtype=torch.float64))

    def forward(self, x):
        return x @ self.w.T, x, torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_gradient_of_maml_is_that_of_the_chain_rule(first_order) -> None:
    """One step on a softmax regression, whose gradient and Hessian are written out."""
    model = Line()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    q, r = torch.randn(6, 4, dtype=torch.float64), torch.tensor([2, 1, 0, 0, 1, 2])
    weights = inner_loop(model, dict(model.named_parameters()), x, y, steps=1, lr=0.5, first_order=first_order)
    loss = functional.cross_entropy(functional_call(model, weights, (q,))[0], r)
    [found] = torch.autograd.grad(loss, [model.w])

    def gradient(w, inputs, labels):
        p = torch.softmax(inputs @ w.T, -1) - functional.one_hot(labels, 3)
        return p.T @ inputs / len(inputs)

    w = model.w.detach()
    moved = w - 0.5 * gradient(w, x, y)
    torch.testing.assert_close(weights["w"].detach(), moved)
    outer = gradient(moved, q, r)
    if not first_order:
        p = torch.softmax(x @ w.T, -1)
        curved = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        hessian = torch.einsum("nab,ni,nj->aibj", curved, x, x) / len(x)
        outer = outer - 0.5 * torch.einsum("ai,aibj->bj", outer, hessian)
    torch.testing.assert_close(found, outer)


@pytest.mark.parametrize("method", ["sum", "cross_attention"])
def test_the_gradient_of_maml_through_fusion_is_that_of_finite_differences(method) -> None:
    learner = Learner(Fusion(SCHEMA, 4, heads=2, layers=1, method=method), ("0", "1")).double().eval()
    builder = GraphBuilder(SCHEMA, torch.float64)
    support, query = (builder([sample("s", i % 2, 10 * k + i) for i in range(4)]) for k in (1, 2))
    labels = torch.tensor([0, 1, 0, 1])
    start = {name: value.detach() for name, value in learner.named_parameters()}
    way = {name: torch.randn_like(value) for name, value in start.items()}

    def outer(shift: float):
        weights = {name: (value + shift * way[name]).requires_grad_() for name, value in start.items()}
        with sdpa_kernel(SDPBackend.MATH):
            moved = inner_loop(learner, weights, support, labels, steps=2, lr=0.3, first_order=False)
            return functional.cross_entropy(functional_call(learner, moved, (query,))[0], labels), weights

    loss, weights = outer(0.0)
    grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    along = sum((g * way[n]).sum().item() for n, g in zip(weights, grads, strict=True) if g is not None)
    numeric = (outer(1e-6)[0] - outer(-1e-6)[0]).item() / 2e-6
    assert along == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_the_head_alone_moves_as_all_weights_do_where_there_is_only_a_head() -> None:
    model = Line()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    whole = inner_loop(model, dict(model.named_parameters()), x, y, steps=3, lr=0.5, first_order=False)["w"]
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (first, _), (weight, moved) = inner_loop_of_head(model.w, bias, x, y, steps=1, lr=0.5, first_order=False)
    assert first is model.w
    once = inner_loop(model, dict(model.named_parameters()), x, y, steps=1, lr=0.5, first_order=False)["w"]
    torch.testing.assert_close(weight, once)
    assert float(moved.detach().abs().sum()) > 0
    assert not torch.equal(whole, once)


def test_second_derivatives_that_kernels_do_not_have_are_refused() -> None:
    settings = replace(SMALL, regime="maml", method="graph", first_order=False)
    with pytest.raises(HetgraphError, match="expected first_order=True or inner='head'"):
        fewshot.train(domains(), settings, progress=False)


# training and adapting


@pytest.mark.parametrize(
    ("regime", "ways"),
    [(r, w) for r in fewshot.REGIMES for w in (3, 2) if (r, w) != ("prior_prototypes", 2)],  # 2: of other classes
)
def test_every_regime_trains_and_repeats_itself(regime, ways) -> None:
    data = domains(ways=ways)
    settings = replace(SMALL, regime=regime)
    one, two = (fewshot.train(data, settings, progress=False) for _ in range(2))
    state = one.state_dict()
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in state.items())
    other = fewshot.train(data, replace(settings, seed=1), progress=False)
    assert not torch.equal(other.head.weight, one.head.weight)
    how = fewshot.adaptation(one, data, settings, shots=1)
    found = fewshot.evaluate(one, data, how, shots=1)
    assert set(found) == {"accuracy", "accuracy_t"}
    assert 0 <= found["accuracy"] <= 1
    # adapting leaves the learner as it was
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in state.items())


def test_second_order_differs_from_first_order() -> None:
    data, settings = domains(), replace(SMALL, regime="maml", inner_lr=0.5)
    one = fewshot.train(data, settings, progress=False)
    two = fewshot.train(data, replace(settings, first_order=False), progress=False)
    assert not torch.equal(one.head.weight, two.head.weight)


def test_prototypes_are_learnt() -> None:
    data = domains()
    settings = replace(SMALL, regime="prototypes", steps=30, lr=0.01)
    accuracy = fewshot.evaluate(fewshot.train(data, settings, progress=False), data, shots=2)["accuracy"]
    assert accuracy > 0.8  # one in three by chance


def test_the_scale_of_features_is_that_of_the_training_domains() -> None:
    data = domains()
    learner = fewshot.train(data, replace(SMALL, regime="untrained"), progress=False)
    for i, name in enumerate(SCHEMA.nodes):
        x = torch.cat([s.nodes[name]["x"] for s in data.samples])
        mean, std = learner.fusion.network.project.get_buffer(f"scale_{i}")
        torch.testing.assert_close(mean, x.mean(0), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(std, x.std(0, unbiased=False), atol=1e-5, rtol=1e-5)


def test_the_loss_of_an_episode_of_prototypes_by_hand() -> None:
    episode = draw("a", POOL, ("0", "1", "2"), 3, 3, np.random.default_rng(0))
    learner = Learner(Fusion(SCHEMA, 8, heads=2, method="sum"), ("0", "1", "2")).eval()
    loss = episode_loss(learner, episode, replace(SMALL, regime="prototypes"))
    with torch.no_grad():
        losses = []
        for known, asked in ((episode.support, episode.query), (episode.query, episode.support)):
            z = torch.stack([learner(learner.graph([s]))[1][0] for s in known])
            means = [z[[s.target == str(w) for s in known]].mean(0) for w in range(3)]
            for s in asked:
                own = learner(learner.graph([s]))[1][0]
                near = torch.stack([-(own - mean).square().sum() / 8**0.5 for mean in means])
                losses.append(float(near.logsumexp(0) - near[int(s.target)]))
    assert float(loss.detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_adaptation_is_gradient_descent_on_the_support() -> None:
    episode = draw("a", POOL, ("0", "1", "2"), 3, 2, np.random.default_rng(0))
    learner = Learner(Fusion(SCHEMA, 8, heads=2, method="sum"), ("0", "1", "2")).eval()
    how = Adaptation("all", "sgd", 0.1)
    along = dict(scores_along(learner, episode, how, [0, 2, 3]))
    graph, query = learner.graph(episode.support), learner.graph(episode.query)
    for steps, found in along.items():
        weights = inner_loop(
            learner,
            dict(learner.named_parameters()),
            graph,
            episode.support_labels,
            steps=steps,
            lr=0.1,
            first_order=True,
        )
        torch.testing.assert_close(found, functional_call(learner, weights, (query,))[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(along[0], scores(learner, episode, Adaptation("none")))


def test_classes_that_a_head_does_not_know_get_one_of_zeros() -> None:
    episode = draw("a", POOL, ("2", "1"), 3, 2, np.random.default_rng(0))
    for kind in ("head", "all"):
        along = dict(scores_along(LEARNER, episode, Adaptation(kind, "adam", 0.05), [0, 5]))
        assert along[0].shape == (4, 2)
        assert not along[0].any()
        assert along[5].any()
    with pytest.raises(HetgraphError, match="the head knows the classes"):
        scores(LEARNER, episode, Adaptation("none"))


def test_the_choice_is_the_best_of_all_that_is_tried() -> None:
    data = domains()
    episodes = fewshot.episodes_of(data, "valid")
    tried = candidates("head", replace(SMALL, regime="conventional"))
    how, at_best = choose(LEARNER, episodes, 2, tried)
    every = {}
    for one, at in tried:
        for steps in at:
            values = []
            for whole in episodes:
                episode = whole.fewer(2)
                found = scores(LEARNER, episode, replace(one, steps=steps))
                values.append(float((found.argmax(1) == episode.query_labels).double().mean()))
            every[one.lr, steps] = sum(values) / len(values)
    assert at_best == pytest.approx(max(every.values()))
    assert every[how.lr, how.steps] == pytest.approx(at_best)


def test_answers_and_their_probabilities() -> None:
    own = pool("p", 3, 4, 3)
    support = [s for name in ("1", "2") for s in own[name][:2]]
    query = [own["1"][2], own["2"][3]]
    answered = fewshot.predict(LEARNER, support[::-1], query)
    expected = scores(LEARNER, Episode("p", ("1", "2"), support, query), Adaptation()).softmax(-1)
    assert [one.id for one in answered] == [s.id for s in query]
    assert [one.confidence for one in answered] == pytest.approx(expected.max(-1).values.tolist(), abs=1e-5)
    assert [one.answer for one in answered] == [("1", "2")[i] for i in expected.argmax(-1).tolist()]
    with pytest.raises(HetgraphError, match=r"equally many samples of each class, got .'1': 2, '2': 1"):
        fewshot.predict(LEARNER, support[:3], query)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regime": "magic"}, "unknown regime 'magic'"),
        ({"shots": 0}, "impossible settings"),
        ({"lr": 0.0}, "impossible"),
    ],
)
def test_impossible_settings_are_refused(changes, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        MetaSettings(**changes)


def test_the_rate_rises_and_falls() -> None:
    rates = [rate(1.0, step, 100) for step in range(100)]
    assert rates.index(max(rates)) < 10
    assert rates[0] < 0.3
    assert rates[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(rates[5:]))


def test_a_learner_is_saved_and_loaded(tmp_path) -> None:
    LEARNER.save_pretrained(tmp_path)
    again = Learner.from_pretrained(tmp_path)
    assert again.classes == LEARNER.classes
    graph = LEARNER.graph(POOL["0"][:2])
    torch.testing.assert_close(again.eval()(graph)[0], LEARNER.eval()(graph)[0])
    assert again.prior is None
    learner = Learner(LEARNER.fusion, LEARNER.classes)
    learner.set_prior(torch.randn(3, 8))
    learner.save_pretrained(tmp_path / "prior")
    assert torch.equal(Learner.from_pretrained(tmp_path / "prior").prior, learner.prior)


# speakers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five speakers with six recordings of every digit."""
    path = tmp_path_factory.mktemp("few") / "av_digits"
    path.mkdir()
    labels = np.repeat(np.arange(10), PICTURES)
    images = np.random.default_rng(0).integers(1, 256, (len(labels), 28, 28), dtype=np.uint8)
    np.savez(path / "mnist_5k.npz", images=images, labels=labels)
    rows, sounds, offset = [], [], 0
    for digit in range(10):
        for speaker in "edcba":
            for index in range(6):
                sound = recording(digit, index)
                rows.append((f"{digit}_{speaker}_{index}.wav", digit, speaker, index, "train", offset, len(sound)))
                sounds.append(sound)
                offset += len(sound)
    with open(path / "fsdd_index.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    whole = np.concatenate(sounds).astype(np.int64)
    delta = np.diff(whole, prepend=0) % 65536
    np.savez(path / "fsdd_audio.npz", delta_lo=(delta % 256).astype("u1"), delta_hi=(delta // 256).astype("u1"))
    return path


def test_speakers_and_digits_are_held_out(folder) -> None:
    data = fewshot.load("speakers", folder, seed=3)
    assert (list(data.test), list(data.valid), list(data.train)) == (["d", "e"], ["a"], ["b", "c"])
    assert data.same_classes
    for part in (data.train, data.valid, data.test):
        for speaker, own in part.items():
            assert [len(own[c]) for c in data.train_classes] == [18 if part is data.train else 6] * 10
            assert all(s.id.startswith(f"{speaker}-") and s.target == c for c in own for s in own[c])
    digits = fewshot.load("digits", folder, seed=3)
    assert sorted(digits.train_classes + digits.test_classes) == [str(d) for d in range(10)]
    assert (len(digits.test_classes), digits.ways, digits.same_classes) == (4, 4, False)
    assert all(set(own) == set(digits.test_classes) for own in digits.test.values())
    assert all(set(own) == set(digits.train_classes) for own in [*digits.train.values(), *digits.valid.values()])
    with pytest.raises(HetgraphError, match="unknown protocol 'words'; known: speakers, digits"):
        fewshot.load("words", folder)


def test_no_picture_of_a_test_speaker_is_among_those_of_training(folder) -> None:
    data = fewshot.load("speakers", folder, noisy=False)

    def pictures(part) -> set[bytes]:
        return {
            s.nodes["region"]["x"].numpy().tobytes() for own in part.values() for some in own.values() for s in some
        }

    train, valid, test = (pictures(part) for part in (data.train, data.valid, data.test))
    assert not train & test
    assert not train & valid
    assert not valid & test


def test_an_invented_voice_is_that_of_a_loop() -> None:
    graph = GraphBuilder(media(region=("image", 3), frame=("audio", 4)))([*POOL["0"][:2], POOL["1"][0]])
    before = graph.x["frame"].clone()
    voices = torch.tensor([1, 0, 1])
    fewshot.invent_voices(graph, voices, torch.Generator().manual_seed(5))
    numbers = torch.Generator().manual_seed(5)
    factor = 1 + 0.2 * (2 * torch.rand(2, 1, generator=numbers) - 1)
    tilt = 0.5 * (2 * torch.rand(2, 1, generator=numbers) - 1)
    for node, row in enumerate(before.numpy()):
        voice = int(voices[node // 3])
        for band in range(4):
            place = min(band * float(factor[voice]), 3.0)
            expected = np.interp(place, np.arange(4), row) + float(tilt[voice]) * (2 * band / 3 - 1)
            assert float(graph.x["frame"][node, band]) == pytest.approx(expected, abs=1e-5)
    assert float((graph.x["frame"] - before).abs().max()) > 1e-3


def test_the_command_learns_and_keeps_answers(folder, tmp_path, typed) -> None:
    small = ("--steps", 2, "--width", 8, "--shots", 2, "--method", "sum", "--seeds", 2)
    words = ("task", "fewshot", "digits", "--data", folder, "--output", tmp_path / "out", *small)
    code, out, err = typed(*words)
    assert (code, err) == (0, "")
    assert "digits, sum, prototypes, 2 shots, 2 seeds" in " ".join(out.split())
    words = ("task", "fewshot", "speakers", "--data", folder, "--regime", "untrained", "--output", tmp_path / "out")
    code, out, err = typed(*words, *small, "--json", tmp_path / "s.json")
    assert (code, err) == (0, "")
    assert "speakers, sum, untrained, 2 shots, 2 seeds" in " ".join(out.split())
    assert "seed 1: test speakers b, c" in out
    runs = json.loads((tmp_path / "s.json").read_text())["runs"]
    assert set(runs[0]) == {"accuracy", "accuracy_a", "accuracy_b"}
    # of six recordings two to learn from, four to answer
    lines = (tmp_path / "out" / "seed-1" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 10 * 4
    assert Learner.from_pretrained(tmp_path / "out" / "seed-1").fusion.width == 8
    code, _, err = typed("task", "fewshot", "daquar")
    assert code != 0
    assert "no episodes in 'daquar'" in err


# pretraining


def test_info_nce_is_its_formula() -> None:
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    a, b = (v / v.norm(dim=1, keepdim=True) for v in (one, other))
    total = 0.0
    for i in range(4):
        for left, right in ((a, b), (b, a)):
            alike = [float(left[i] @ right[j]) / 0.5 for j in range(4)]
            total -= float(np.log(np.exp(alike[i]) / np.sum(np.exp(alike))))
    assert float(info_nce(one, other, 0.5)) == pytest.approx(total / 8, rel=1e-5)


@pytest.mark.parametrize("objective", fewshot.OBJECTIVES)
def test_pretraining_reads_no_target_and_its_loss_falls(objective) -> None:
    samples = [sample(f"s{i}", i % 3, i) for i in range(24)]
    settings = PretrainingSettings(epochs=12, batch_size=8, lr=0.01)
    losses, states = [], []
    for some in (samples, [Sample(id=s.id, nodes=s.nodes) for s in samples]):
        torch.manual_seed(0)
        fusion = Fusion(SCHEMA, 8, heads=2, layers=1, method="sum")
        losses.append(pretrain(fusion, some, [objective], settings=settings, progress=False))
        states.append(fusion.state_dict())
    assert losses[0] == losses[1]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert set(losses[0][0]) == {objective}
    assert losses[0][-1][objective] < losses[0][0][objective]


def test_hidden_features_stand_at_the_mean_and_only_hidden_nodes_count() -> None:
    samples = [sample(f"s{i}", i % 3, i) for i in range(6)]
    fusion = Fusion(SCHEMA, 8, heads=2, layers=0, method="sum")
    graph = GraphBuilder(SCHEMA)(samples)
    fusion.standardize([graph])
    tasks = Tasks(fusion, PretrainingSettings(masked=0.5))
    before = {name: x.clone() for name, x in graph.x.items()}
    wanted = {name: tasks.standard(graph, name) for name in graph.x}
    hit = tasks.hide(graph)
    nodes = {name: torch.randn(len(x), 8) for name, x in before.items()}
    errors = []
    for i, (name, x) in enumerate(before.items()):
        mean, std = x.mean(0), x.std(0, unbiased=False)
        for node in range(len(x)):
            there = mean if hit[name][node] else x[node]
            torch.testing.assert_close(graph.x[name][node].detach(), there, atol=1e-5, rtol=1e-4)
        rows = hit[name].nonzero().flatten().tolist()
        guesses = [tasks.of_node[i](nodes[name][node]) for node in rows]
        right = [(x[node] - mean) / std for node in rows]
        errors.append(np.mean([(g - r).square().mean().item() for g, r in zip(guesses, right, strict=True)]))
    assert tasks.node_loss(nodes, wanted, hit).item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_views_of_a_sample_miss_different_types() -> None:
    samples = [*[sample(f"s{i}", 0, i) for i in range(8)], Sample(id="one", region=POOL["0"][0].nodes["region"])]
    fusion = Fusion(SCHEMA, 8, heads=2, layers=0, method="sum")
    tasks = Tasks(fusion, PretrainingSettings())
    one, two = tasks.views(samples, GraphBuilder(SCHEMA), torch.device("cpu"))
    there = [torch.stack([graph.counts[name] > 0 for name in SCHEMA.nodes]) for graph in (one, two)]
    assert bool((there[0][:, :-1] != there[1][:, :-1]).all())
    # what a sample has one of cannot be left out
    assert there[0][:, -1].tolist() == there[1][:, -1].tolist() == [True, False]


def test_impossible_pretraining_is_refused() -> None:
    samples = [sample(f"s{i}", 0, i) for i in range(4)]
    with pytest.raises(HetgraphError, match="objectives: expected some of"):
        pretrain(Fusion(SCHEMA, 8, heads=2), samples, ["magic"])
    with pytest.raises(HetgraphError, match="two samples or more, got 1"):
        pretrain(Fusion(SCHEMA, 8, heads=2), samples[:1])
    with pytest.raises(HetgraphError, match="one Z per sample, got groups by 'group'"):
        pretrain(Fusion(SCHEMA, 8, heads=2, group="group"), samples)


def test_the_probe_is_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    z, labels = rng.standard_normal((30, 4)), rng.integers(0, 3, 30)

    def loss(flat: np.ndarray) -> float:
        weight, bias = flat[:12].reshape(3, 4), flat[12:]
        s = z @ weight.T + bias
        nll = np.log(np.exp(s).sum(1)) - s[np.arange(30), labels]
        return float(nll.mean() + 0.05 * (weight**2).sum())

    weight, bias = probe(torch.from_numpy(z), torch.from_numpy(labels), 3, 0.1, steps=200)
    best = minimize(loss, np.zeros(15)).x
    np.testing.assert_allclose(weight.numpy(), best[:12].reshape(3, 4), atol=1e-3)
    # only differences of biases count
    np.testing.assert_allclose((bias - bias.mean()).numpy(), best[12:] - best[12:].mean(), atol=1e-3)


def test_fewer_labels_are_among_more() -> None:
    samples = [s for some in POOL.values() for s in some]
    more, fewer = (few_labels(samples, ("0", "1", "2"), n, 4) for n in (5, 2))
    assert [s.target for s in fewer] == ["0", "0", "1", "1", "2", "2"]
    assert {s.id for s in fewer} < {s.id for s in more}
    with pytest.raises(HetgraphError, match="class '0': expected 10 samples, got 9"):
        few_labels(samples, ("0",), 10, 0)


def test_k_shot_leaves_the_model_alone_and_finds_what_is_plain() -> None:
    fusion = Fusion(SCHEMA, 8, heads=2, layers=0, method="sum")
    parts = {
        name: [sample(f"{name}{i}", 3 * (i % 2), 100 * k + i) for i in range(20)]
        for k, name in enumerate(("train", "valid", "test"))
    }
    before = {name: value.clone() for name, value in fusion.state_dict().items()}
    found = k_shot(fusion, Classification(("0", "3")), parts, [1, 5])
    assert found["probe"].keys() == found["finetuned"].keys() == {"1", "5"}
    assert found["probe"]["5"] > 0.8
    assert found["finetuned"]["5"] > 0.8
    assert all(torch.equal(value, fusion.state_dict()[name]) for name, value in before.items())


PAGE = (Path(__file__).parents[1] / "docs" / "tasks" / "fewshot.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run(capsys) -> None:
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(code, "docs/tasks/fewshot.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert 0 <= float(printed[0]) <= 1
    assert all("right:" in line for line in printed[1:3])
    assert set(json.loads(printed[-1])) == {"1", "5"}


def test_the_page_names_every_regime_and_objective() -> None:
    assert all(f"`{name}`" in PAGE for name in (*fewshot.REGIMES, *fewshot.OBJECTIVES, *fewshot.NAMES))
