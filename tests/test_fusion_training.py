"""What training adds for fusion families: their own losses, a loss per modality, a decision per modality."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from fusion_reference import gelu, translated
from graphs import close, randomize
from test_training_resume import BATCH, BEFORE, EPOCHS, SAMPLES, Interruption, result, train
from torch import Tensor

from hetgraph import EdgeType, Fusion, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.fusion import METHODS
from hetgraph.fusion.adversarial import AdversarialFusion, reversed_gradient
from hetgraph.objectives import Classification, MultiLabel, Objective, Ranking, Regression
from hetgraph.predictor import ModalityHeads, Predictor
from hetgraph.training import TrainingSettings, evaluate, fit, without

SCHEMA = Schema(
    [NodeType("word", 3), NodeType("face", 2)],
    [EdgeType("word", "next", "word", rule=rules.following), EdgeType("face", "with", "word")],
)
CLASSES = Classification(("low", "high"))


def samples(count: int, seed: int = 0) -> list[Sample]:
    """Words say the class, faces do so less clearly; each is missing now and then."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        level = rng.choice([-1.0, 1.0])
        nodes = {
            "word": rng.standard_normal((int(rng.integers(1, 4)), 3)) * 0.5 + level,
            "face": rng.standard_normal((2, 2)) + level,
        }
        if i % 4 < 2:
            del nodes["word" if i % 4 else "face"]
        made.append(Sample(id=f"s{i}", target="high" if level > 0 else "low", nodes=nodes))
    return made


def make(method: str, objective: Objective = CLASSES, **options: Any) -> Predictor:
    torch.manual_seed(0)
    options = {"width": 16, "layers": 1, "heads": 2, **options}
    return Predictor(Fusion(SCHEMA, method=method, **options), objective, dropout=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_training_brings_the_loss_down_and_solves_the_task(method) -> None:
    model = make(method)
    settings = TrainingSettings(epochs=12, batch_size=16, lr=1e-2, modality_dropout=0.2, modality_loss=0.3)
    history = fit(model, samples(48), settings=settings, progress=False)
    assert history.loss[-1] < 0.6 * history.loss[0]
    assert evaluate(model, samples(40, 1))["accuracy"] > 0.85


# ---- decision level ---------------------------------------------------------------------------------------------


def test_late_decides_for_every_modality_and_averages_the_decisions() -> None:
    model = make("late").double().eval()
    randomize(model)
    graph = GraphBuilder(SCHEMA, torch.float64)(samples(8))
    out = model(graph)
    for b in range(8):
        expected = torch.zeros(2, dtype=torch.float64)
        for name, head in zip(SCHEMA.nodes, model.head, strict=True):
            expected += out.fused.weights[name][b] * head(out.fused.parts[name][b])
        close(out.scores[b], expected, 1e-12)
    only = [without(s, "face") for s in samples(8) if "word" in s.nodes]
    alone = model(GraphBuilder(SCHEMA, torch.float64)(only))
    close(alone.scores, model.head[0](alone.fused.parts["word"]), 1e-12)


def test_a_late_predictor_comes_back_from_disk(tmp_path) -> None:
    model = make("late").eval()
    graph = GraphBuilder(SCHEMA)(samples(5))
    model.save_pretrained(tmp_path)
    assert torch.equal(Predictor.from_pretrained(tmp_path).eval()(graph).scores, model(graph).scores)


# ---- adversarial losses -----------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, kind: int) -> Tensor:
    return logits.exp().sum().log() - logits[kind]


def adversarial_losses(net: AdversarialFusion, parts: list[dict[int, Tensor]]) -> dict[str, float]:
    """The four losses row by row and pair by pair."""
    told: list[Tensor] = []
    real: list[Tensor] = []
    made: list[Tensor] = []
    cycle: list[Tensor] = []
    paired: list[Tensor] = []

    def logit(x: Tensor, b: int) -> Tensor:
        inside = gelu(net.real_in.weight[b] @ x + net.real_in.bias[b])
        return net.real_out.weight[b, 0] @ inside + net.real_out.bias[b, 0]

    for row in parts:
        for a, x in row.items():
            first, _, last = net.type_of
            told.append(cross_entropy(last.weight @ gelu(first.weight @ x + first.bias) + last.bias, a))
            real.append(-torch.sigmoid(logit(x, a)).log())
            for b in range(len(net.names)):
                if a == b:
                    continue
                fake = translated(net, x, a, b)
                made.append(-(1 - torch.sigmoid(logit(fake, b))).log())
                cycle.append((translated(net, fake, b, a) - x).abs().mean())
                if b in row:
                    paired.append((fake - row[b]).abs().mean())

    def mean(values: list[Tensor]) -> float:
        return torch.stack(values).mean().item() * net.strength if values else 0.0

    return {"modality": mean(told), "gan": mean(real) + mean(made), "cycle": mean(cycle), "paired": mean(paired)}


@pytest.mark.parametrize("which", ["all", "never both"])
def test_adversarial_losses_are_those_of_every_row_and_pair(which) -> None:
    schema = SCHEMA.extend(NodeType("voice", 1))
    model = Fusion(schema, 6, layers=1, heads=2, method="adversarial").double()
    randomize(model, scale=0.3)
    chosen = samples(9)
    if which == "never both":
        chosen = [without(s, "face") if "word" in s.nodes else s for s in chosen]
    out = model.train()(GraphBuilder(schema, torch.float64)(chosen))
    parts = [
        {i: out.parts[n][b].detach() for i, n in enumerate(schema.nodes) if n in s.nodes} for b, s in enumerate(chosen)
    ]
    expected = adversarial_losses(model.network, parts)
    assert set(out.losses) == set(expected)
    for name, value in expected.items():
        assert out.losses[name].item() == pytest.approx(value, abs=1e-10), name


def gradients(model: Fusion, name: str, graph: Any) -> dict[str, Tensor]:
    model.zero_grad()
    model(graph).losses[name].backward()
    return {n.removeprefix("network."): p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_discriminators_go_down_their_loss_and_those_they_judge_go_up() -> None:
    model = Fusion(SCHEMA, 8, layers=1, heads=2, method="adversarial").double().train()
    randomize(model, scale=0.3)
    graph = GraphBuilder(SCHEMA, torch.float64)(samples(12))
    for name, judge, judged in (
        ("modality", ("type_of",), ("pooling", "blocks")),
        ("gan", ("real_",), ("translate_",)),
    ):
        grads = gradients(model, name, graph)
        for group, falls in ((judge, True), (judged, False)):
            moved = copy.deepcopy(model)
            with torch.no_grad():
                for n, p in moved.network.named_parameters():
                    if n.startswith(group):
                        p -= 1e-4 * grads[n]
            before, after = model(graph).losses[name].item(), moved(graph).losses[name].item()
            assert (after < before) == falls, (name, group)


def test_only_the_modality_loss_moves_the_encoders() -> None:
    model = Fusion(SCHEMA, 8, layers=1, heads=2, method="adversarial").double().train()
    randomize(model, scale=0.3)
    graph = GraphBuilder(SCHEMA, torch.float64)(samples(12))
    for name in ("modality", "gan", "cycle", "paired"):
        moved = {n.split(".")[0] for n, g in gradients(model, name, graph).items() if bool((g != 0).any())}
        assert ("blocks" in moved) == (name == "modality")
        assert ("translate_in" in moved) == (name != "modality")


def test_a_reversed_gradient_is_the_gradient_with_the_other_sign() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    (reversed_gradient(x) ** 2).sum().backward()
    assert torch.equal(x.grad, -2 * x.detach())


def test_losses_of_a_method_are_there_in_training_only() -> None:
    graph = GraphBuilder(SCHEMA)(samples(6))
    for method in METHODS:
        model = make(method).fusion
        assert bool(model.train()(graph).losses) == (method == "adversarial")
        assert model.eval()(graph).losses == {}
    lonely = Fusion(Schema([NodeType("a", 1)]), 8, method="adversarial").train()
    assert lonely(GraphBuilder(lonely.schema)([Sample(a=[[1.0]])])).losses == {}


def first_loss(model: Predictor, chosen: list[Sample], **options: Any) -> float:
    settings = TrainingSettings(epochs=1, batch_size=len(chosen), standardize=False, **options)
    return fit(model, chosen, settings=settings, progress=False).loss[0]


def test_the_losses_of_the_method_are_added_to_that_of_the_task() -> None:
    model, chosen = make("adversarial"), samples(12)
    out = copy.deepcopy(model).train()(GraphBuilder(SCHEMA)(chosen))
    task = CLASSES.losses(out.scores, CLASSES.encode([s.target for s in chosen], "s" * 12)).mean().item()
    assert first_loss(model, chosen) == pytest.approx(
        task + sum(loss.item() for loss in out.fused.losses.values()), rel=1e-5
    )


# ---- a loss per modality ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_per_modality_starts_at_that_of_a_guess(method) -> None:
    chosen = samples(12)
    plain = first_loss(make(method), chosen)
    assert first_loss(make(method), chosen, modality_loss=0.5) == pytest.approx(plain + 0.5 * math.log(2), rel=1e-5)


TARGETS = {
    "class": (CLASSES, "high"),
    "labels": (MultiLabel(("a", "b")), ["b"]),
    "number": (Regression(("x",), (1.0,), (2.0,)), 3.0),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_the_loss_per_modality_is_the_mean_over_those_that_are_present(kind) -> None:
    objective, answer = TARGETS[kind]
    model = make("attention", objective)
    heads = ModalityHeads(model)
    randomize(heads)
    chosen = samples(8)
    out = model(GraphBuilder(SCHEMA)(chosen)).fused
    target = objective.encode([answer] * 8, [str(s.id) for s in chosen])
    for b, sample in enumerate(chosen):
        losses = [
            objective.losses((heads.weight[i] @ out.parts[name][b] + heads.bias[i])[None], target[b : b + 1])
            for i, name in enumerate(SCHEMA.nodes)
            if name in sample.nodes
        ]
        mean = (sum(losses) / len(losses)).item()
        assert heads.losses(out, target)[b].item() == pytest.approx(mean, rel=1e-4, abs=1e-5)


def test_rankings_compare_the_samples_that_have_the_modality() -> None:
    model = make("sum", Ranking())
    heads = ModalityHeads(model)
    randomize(heads)
    chosen = [without(s, "face") for s in samples(8) if "word" in s.nodes]
    out = model(GraphBuilder(SCHEMA)(chosen)).fused
    target = torch.arange(len(chosen)).float()
    scores = out.parts["word"] @ heads.weight[0].T + heads.bias[0]
    close(heads.losses(out, target), Ranking().losses(scores, target), 1e-5)


def test_the_heads_per_modality_are_gone_after_training_whatever_happens(tmp_path) -> None:
    model = make("concat")
    names, config = set(model.state_dict()), model.to_config()
    settings = TrainingSettings(epochs=2, modality_loss=1.0, average=0.9)
    fit(model, samples(12), valid=samples(6, 1), settings=settings, folder=tmp_path, progress=False)
    assert model.auxiliary is None
    assert set(model.state_dict()) == names
    assert model.to_config() == config
    with pytest.raises(HetgraphError, match="'broken'"):
        fit(model, [*samples(3), Sample(id="broken", word=[[1.0, 2.0, 3.0]])], settings=settings, progress=False)
    assert model.auxiliary is None


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(value) -> None:
    with pytest.raises(HetgraphError, match="modality_loss must be a weight"):
        TrainingSettings(modality_loss=value)


# ---- restarts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["adversarial", "late", "coattention"])
def test_a_run_with_losses_of_its_own_ends_the_same_after_an_interruption(method, tmp_path) -> None:
    schema = Schema([NodeType("word", 2), NodeType("face", 3)])
    options = {"modality_loss": 0.5, "average": 0.9}

    def fresh() -> Predictor:
        torch.manual_seed(1)
        fusion = Fusion(schema, 8, layers=1, heads=2, dropout=0.2, method=method, temporal="gru")
        return Predictor(fusion, Classification(("a", "b")))

    model = fresh()
    expected = result(model, train(model, None, **options))
    for last in range(BEFORE + 3, BEFORE + SAMPLES * EPOCHS, 5 * BATCH - 1):
        folder = tmp_path / str(last)
        with pytest.raises(Interruption):
            train(fresh(), folder, last=last, **options)
        model = fresh()
        assert result(model, train(model, folder, **options)) == expected, last
