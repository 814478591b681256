"""Training solves what can be learnt, repeats exactly, and keeps what it promises about epochs, order and errors."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from graphs import close

from hetgraph import EdgeType, Fusion, Graph, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.objectives import Classification, MultiLabel, Objective, Ranking, Regression
from hetgraph.predictor import Predictor
from hetgraph.thinning import Thinning
from hetgraph.training import TrainingSettings, evaluate, fit, predict, without

SCHEMA = Schema(
    [NodeType("word", 3), NodeType("face", 2)],
    [EdgeType("word", "next", "word", rule=rules.following), EdgeType("face", "with", "word")],
)
CLASSES = Classification(("low", "high"))


def toy(count: int, seed: int, target: str = "class") -> list[Sample]:
    """The mean of the words' first feature decides; faces are noise, and missing in a third of the samples."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        level = rng.uniform(-1, 1)
        x = rng.standard_normal((rng.integers(1, 5), 3))
        x[:, 0] = level
        face = rng.standard_normal((rng.integers(1, 3), 2)) if i % 3 else None
        answer: Any = {
            "class": "high" if level > 0 else "low",
            "labels": [name for name, limit in (("low", -0.2), ("high", 0.2)) if (level < limit) == (name == "low")],
            "value": 100 + 10 * level,
            "order": math.exp(level),
        }[target]
        samples.append(Sample(id=f"s{i}", word=x, face=face, target=answer))
    return samples


def make(objective: Objective = CLASSES, seed: int = 0, schema: Schema = SCHEMA, **options: Any) -> Predictor:
    torch.manual_seed(seed)
    return Predictor(Fusion(schema, width=16, layers=1, heads=2, **options), objective, dropout=0.0)


def train(model: Predictor, samples: Sequence[Sample], valid: Sequence[Sample] | None = None, **settings: Any):
    options = {"epochs": 2, "batch_size": 8, "lr": 3e-3, **settings}
    return fit(model, samples, valid=valid, settings=TrainingSettings(**options), progress=False)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert list(a) == list(b)
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize(
    ("objective", "target", "metric", "enough"),
    [
        (CLASSES, "class", "accuracy", 0.95),
        (MultiLabel(("low", "high")), "labels", "f1_micro", 0.95),
        (Regression(("level",)), "value", "mae", -1.0),
        (Ranking(), "order", "kendall", 0.85),
    ],
    ids=["classification", "multi-label", "regression", "ranking"],
)
def test_a_problem_that_can_be_learnt_is_learnt(objective, target, metric, enough) -> None:
    samples, unseen = toy(96, 0, target), toy(48, 1, target)
    if isinstance(objective, Regression):
        objective = objective.fitted([s.target for s in samples], [s.id for s in samples])
    model = make(objective)
    before = evaluate(model, unseen)["loss"]
    history = train(model, samples, epochs=15, batch_size=16, lr=1e-2)
    found = evaluate(model, unseen)
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert found["loss"] < before
    assert (found[metric] if objective.larger else -found[metric]) > enough


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_one_does_not() -> None:
    samples = toy(20, 0)
    options = {"modality_dropout": 0.3, "epochs": 2}
    runs = []
    for seed in (3, 3, 4):
        model = make(dropout=0.2)
        torch.rand(seed)  # the state of the global generator must not matter
        history = train(model, samples, seed=seed, **options)
        runs.append((weights(model), history.loss))
    assert equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not equal(runs[0][0], runs[2][0])


def test_training_leaves_the_global_random_generators_alone() -> None:
    model = make(dropout=0.2)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    train(model, toy(8, 0), toy(4, 1), modality_dropout=0.5)
    predict(model, toy(4, 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_without_validation_it_runs_for_exactly_the_epochs_asked_for() -> None:
    history = train(make(), toy(10, 0), epochs=4, patience=1)
    assert (len(history.loss), len(history.seconds), history.valid, history.best_epoch) == (4, 4, [], None)


def test_with_validation_the_best_epoch_is_kept_and_training_stops_when_patience_is_over() -> None:
    # labels of the validation samples are the other way round: every step of training makes it worse
    samples, valid = toy(32, 0), toy(32, 1)
    for sample in valid:
        sample.target = "low" if sample.target == "high" else "high"
    model = make()
    history = train(model, samples, valid, epochs=30, patience=3, lr=1e-2, batch_size=8)
    scores = [epoch["accuracy"] for epoch in history.valid]
    assert history.best_epoch == scores.index(max(scores))
    assert len(history.loss) == history.best_epoch + 1 + 3 < 30
    assert evaluate(model, valid) == history.valid[history.best_epoch]
    again = make()
    train(again, samples, epochs=30, lr=1e-2, batch_size=8)
    assert not equal(weights(model), weights(again))


def test_the_weights_of_the_best_epoch_are_those_the_model_had_then(monkeypatch) -> None:
    from hetgraph import training

    seen = []
    real = training._score
    values = iter([0.2, 0.9, 0.4, 0.9])

    def watch(model: Predictor, graphs: Iterable[Graph]) -> dict[str, float]:
        seen.append(weights(model))
        return {**real(model, graphs), "accuracy": next(values)}

    monkeypatch.setattr(training, "_score", watch)
    model = make()
    history = train(model, toy(16, 0), toy(4, 1), epochs=4)
    assert history.best_epoch == 1  # the first of two equals
    assert equal(weights(model), seen[1])
    assert not equal(weights(model), seen[3])


def test_modality_dropout_keeps_at_least_one_type_and_takes_the_share_it_should() -> None:
    samples = [Sample(word=[[0.0] * 3], face=[[0.0] * 2]) for _ in range(600)]
    thin = Thinning({"word": 0.5, "face": 0.2}, seed=0)
    thinned = [thin(sample, 0, i) for i, sample in enumerate(samples)]
    left = [tuple(sample.nodes) for sample in thinned]
    assert () not in left
    # both are drawn with probability 0.1; then either stays with probability one half
    shares = {("word", "face"): 0.4, ("word",): 0.1 + 0.05, ("face",): 0.4 + 0.05}
    for kept, share in shares.items():
        assert abs(left.count(kept) / 600 - share) < 4 * math.sqrt(share * (1 - share) / 600)
    again = [tuple(thin(sample, 0, i).nodes) for i, sample in enumerate(samples)]
    other = [tuple(thin(sample, 1, i).nodes) for i, sample in enumerate(samples)]
    assert again == left != other


def test_all_types_can_be_dropped_at_once_with_certainty_and_training_still_runs() -> None:
    history = train(make(), toy(12, 0), modality_dropout=1.0)
    assert all(math.isfinite(loss) for loss in history.loss)


def test_swapped_features_are_those_of_other_nodes_of_the_type_in_the_share_asked_for(monkeypatch) -> None:
    samples = toy(24, 0)
    seen: list[dict[str, torch.Tensor]] = []
    forward = Predictor.forward

    def watch(self, graph, *args):
        seen.append(dict(graph.x))
        return forward(self, graph, *args)

    monkeypatch.setattr(Predictor, "forward", watch)
    own = GraphBuilder(SCHEMA)(samples).x
    options = {"batch_size": 24, "epochs": 40, "standardize": False}
    train(make(), samples, feature_swap={"word": 0.4}, **options)
    changed = total = 0
    for found in seen:
        # samples come in another order in every epoch, so that faces are compared as a set
        assert set(map(tuple, found["face"].tolist())) == set(map(tuple, own["face"].tolist()))
        assert set(map(tuple, found["word"].tolist())) <= set(map(tuple, own["word"].tolist()))
        total += len(found["word"])
        changed += len(found["word"]) - len(set(map(tuple, found["word"].tolist())))
    n, p = len(own["word"]), 0.4
    # a row is gone if it was swapped out and drawn for no other place
    expected = n * p * (1 - p / n) ** (n - 1)
    assert changed / len(seen) == pytest.approx(expected, rel=0.1)
    assert torch.equal(GraphBuilder(SCHEMA)(samples).x["word"], own["word"])


def test_averaged_weights_are_the_weighted_mean_of_the_weights_after_every_step(monkeypatch) -> None:
    history: list[dict[str, torch.Tensor]] = []
    step = torch.optim.AdamW.step

    def watch(self, *args):
        out = step(self, *args)
        history.append(weights(model))
        return out

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    model = make()
    train(model, toy(16, 0), epochs=4, average=0.8)
    expected = history[0]
    for n, now in enumerate(history[1:], 2):
        share = max(1 / n, 0.2)
        expected = {name: (1 - share) * value + share * now[name] for name, value in expected.items()}
    assert len(history) == 8
    torch.testing.assert_close(weights(model), expected, rtol=1e-5, atol=1e-6)


def test_what_is_validated_is_the_average_and_training_goes_on_from_the_weights_themselves() -> None:
    samples, valid = toy(16, 0), toy(8, 1)
    model, other = make(), make()
    alone = train(model, samples, epochs=3, average=0.9)
    watched = train(other, samples, valid, epochs=3, average=0.9, patience=3)
    assert watched.loss == alone.loss
    assert evaluate(other, valid) == watched.valid[watched.best_epoch]


def test_taking_types_out_of_a_sample_takes_their_edges_too() -> None:
    keys = [("a", "to", "b"), ("b", "to", "b")]
    sample = Sample(id="s", target=1, a=[[1.0]], b=[[2.0]], edges={key: [[0], [0]] for key in keys})
    thin = without(sample, "a")
    assert (thin.id, thin.target, list(thin.nodes), list(thin.edges)) == ("s", 1, ["b"], [keys[1]])
    assert list(sample.nodes) == ["a", "b"]


TALK = Schema([NodeType("word", 3, fields={"turn": 0}), NodeType("face", 2, fields={"turn": 0}), NodeType("room", 1)])


def talks(count: int, seed: int = 0) -> list[Sample]:
    """Conversations of 1 to 4 turns; a turn has words, or faces, or both."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        turns = int(rng.integers(1, 5))
        has = [rng.integers(0, 3) for _ in range(turns)]
        word = np.array([t for t in range(turns) if has[t] != 1] * 2, dtype=np.int64)
        face = np.array([t for t in range(turns) if has[t] != 0], dtype=np.int64)
        nodes: dict[str, Any] = {"room": rng.standard_normal((1, 1))}
        for name, turn, dim in (("word", word, 3), ("face", face, 2)):
            if len(turn):
                nodes[name] = {"x": rng.standard_normal((len(turn), dim)), "turn": turn}
        samples.append(Sample(id=f"talk {i}", nodes=nodes, target=rng.integers(0, 2, turns)))
    return samples


def test_targets_per_group_train_with_modality_dropout_that_leaves_every_group_a_node() -> None:
    model = make(schema=TALK, group="turn")
    samples = talks(24)
    history = train(model, samples, talks(6, 1), modality_dropout=0.7, epochs=3)
    assert all(math.isfinite(loss) for loss in history.loss)
    found = predict(model, samples)
    assert found.ids == [s.id for s in samples for _ in s.target]
    assert len(found.answers) == len(found.scores) == sum(len(s.target) for s in samples)


@pytest.mark.parametrize("change", [1, -1])
def test_too_many_or_too_few_targets_per_group_are_refused_by_sample_even_if_the_batch_adds_up(change) -> None:
    samples = [s for s in talks(30) if len(s.target) > 1][:4]
    counts = [len(s.target) for s in samples]
    samples[1].target = np.zeros(counts[1] + change, dtype=np.int64)
    samples[2].target = np.zeros(counts[2] - change, dtype=np.int64)
    model = make(schema=TALK, group="turn")
    message = f"sample '({samples[1].id}|{samples[2].id})' has . targets for . rows of Z"
    with pytest.raises(HetgraphError, match=message):
        train(model, samples, batch_size=4)
    with pytest.raises(HetgraphError, match=message):
        evaluate(model, samples)


def test_predictions_keep_the_order_and_the_ids_of_the_samples_whatever_the_batch_size() -> None:
    model, samples = make(), toy(11, 0)
    samples[4] = Sample(nodes=samples[4].nodes)  # neither id nor target
    found = [predict(model, samples, batch_size=size) for size in (1, 4, 100)]
    assert found[0].ids == [f"s{i}" if i != 4 else "4" for i in range(11)]
    for other in found[1:]:
        assert other.ids == found[0].ids
        assert other.answers == found[0].answers
        close(other.scores, found[0].scores, 1e-5)
        for name, alpha in other.weights.items():
            close(alpha, found[0].weights[name], 1e-5)
    total = sum(found[0].weights.values())
    close(total, torch.ones(11), 1e-6)
    assert found[0].weights["face"][0] == 0.0


def test_predicting_and_evaluating_leave_the_mode_of_the_model() -> None:
    for mode in (True, False):
        model = make().train(mode)
        predict(model, toy(3, 0))
        evaluate(model, toy(3, 0))
        assert model.training is mode


def test_evaluation_does_not_depend_on_the_batch_size() -> None:
    model, samples = make(), toy(13, 0)
    one, many = evaluate(model, samples, batch_size=1), evaluate(model, samples, batch_size=64)
    assert one.keys() == many.keys()
    for name, value in one.items():
        assert abs(value - many[name]) < 1e-5


def test_a_loss_that_is_no_number_stops_with_its_step() -> None:
    model = make(Regression())
    with torch.no_grad():
        model.head[0].weight.fill_(float("nan"))
    with pytest.raises(HetgraphError, match="the loss is nan at step 0"):
        train(model, toy(8, 0, "value"))


def test_a_sample_that_is_no_number_is_refused_by_its_id() -> None:
    samples = toy(8, 0)
    samples[5].nodes["word"]["x"][0, 0] = float("inf")
    with pytest.raises(HetgraphError, match="sample 's5': node type 'word'"):
        train(make(), samples)


def test_every_weight_gets_a_gradient() -> None:
    model = make()
    before = weights(model)
    train(model, toy(16, 0), epochs=3, lr=1e-2, weight_decay=0.0)
    used = dict(model.named_parameters())
    still = sorted(name for name in used if torch.equal(used[name], before[name]))
    # faces hear nothing: their queries and the transformation of their messages cannot matter
    assert all("attention" in name for name in still), still
    layer = model.fusion.network.blocks[0].attention
    assert layer.kqv_weight[1].grad is not None
    changed = (layer.kqv_weight[1] != before["fusion.network.blocks.0.attention.kqv_weight.1"]).view(3, 16, 16)
    assert changed.any(-1).any(-1).tolist() == [True, False, True]  # keys and values of faces, not their queries
    assert still == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"patience": 0},
        {"warmup": 1.5},
        {"schedule": "linear"},
        {"precision": "fp4"},
        {"modality_dropout": -0.1},
        {"feature_swap": {"word": 0.5, "face": 1.5}},
        {"average": 1.0},
    ],
)
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(HetgraphError, match=next(iter(wrong))):
        TrainingSettings(**wrong)


def test_no_samples_are_refused() -> None:
    for run in (lambda: train(make(), []), lambda: evaluate(make(), []), lambda: predict(make(), [])):
        with pytest.raises(HetgraphError, match=r"no (training )?samples"):
            run()


def test_unknown_labels_and_missing_targets_are_refused_by_sample() -> None:
    samples = toy(4, 0)
    samples[2].target = "middling"
    with pytest.raises(HetgraphError, match="sample 's2': label 'middling' was not seen in training"):
        train(make(), samples)
    with pytest.raises(HetgraphError, match="sample 's2': label 'middling' was not seen in training"):
        evaluate(make(), samples)
    samples[2].target = None
    with pytest.raises(HetgraphError, match="sample 's2': no target"):
        train(make(), samples)


def test_features_are_standardised_with_the_training_samples_only_if_asked() -> None:
    samples, valid = toy(9, 0), toy(9, 1)
    x = np.concatenate([s.nodes["word"]["x"].numpy() for s in samples])
    model = make()
    train(model, samples, valid, batch_size=4)
    mean, std = model.fusion.network.project.get_buffer("scale_0").numpy()
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(std, x.std(0), rtol=1e-5)
    model = make()
    train(model, samples, standardize=False)
    assert model.fusion.network.project.get_buffer("scale_0").tolist() == [[0.0] * 3, [1.0] * 3]


def test_the_rate_rises_then_falls_along_half_a_cosine() -> None:
    from hetgraph.training import _Run

    def rates(**settings: Any) -> list[float]:
        options = TrainingSettings(epochs=4, batch_size=5, lr=1.0, warmup=0.25, **settings)
        run = _Run(make(), toy(50, 0), None, options, None, None, False)
        return [run._rate(step) for step in range(40)]

    found = rates()
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 30)) for i in range(30)])
    assert rates(schedule="constant")[10:] == [1.0] * 30


def test_half_precision_trains_to_about_the_same_loss_also_after_a_run_in_full_precision() -> None:
    losses = []
    for precision in ("no", "bf16", "no"):
        model = make(dropout=0.1)
        losses.append(train(model, toy(16, 0), epochs=2, precision=precision).loss[-1])
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert predict(model, toy(4, 1)).scores.isfinite().all()
    assert losses[0] == losses[2] != losses[1]
    assert abs(losses[0] - losses[1]) < 0.05


def test_a_model_that_was_trained_is_a_plain_model_again() -> None:
    model = make()
    train(model, toy(8, 0), precision="bf16")
    out = model(GraphBuilder(SCHEMA)(toy(3, 1)))
    assert out.scores.dtype == torch.float32
    assert type(model) is Predictor
    assert "forward" not in vars(model)


def test_the_progress_bar_ends_at_the_last_step(capsys) -> None:
    fit(make(), toy(8, 0), valid=toy(2, 1), settings=TrainingSettings(epochs=2, batch_size=4), progress=True)
    shown = capsys.readouterr().out
    assert "4/4" in shown
    fit(make(), toy(8, 0), settings=TrainingSettings(epochs=1), progress=False)
    assert capsys.readouterr().out == ""
