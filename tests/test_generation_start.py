"""The closed-form start of a translator against independent ridge regressions, and what training may do to it."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import Ridge

from hetgraph import GraphBuilder, HetgraphError, Sample
from hetgraph.builders import media
from hetgraph.objectives import Regression
from hetgraph.pretrained import WEIGHTS
from hetgraph.tasks import generation
from hetgraph.tasks.datasets import Dataset
from hetgraph.tasks.generation import fitting, imputation, scoring, start
from hetgraph.tasks.generation.networks import GeneratorNetwork
from hetgraph.tasks.ridge import ridge
from hetgraph.training import TrainingSettings


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def dataset() -> Dataset:
    """Three regions that are linear in the mean token and the mean frame, and noise; some samples lack frames."""
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(10, 3, 5, generator=draw) / 2

    def sample(part: str, i: int) -> Sample:
        token = torch.randn(2 + i % 3, 4, generator=draw) + 1
        frame = torch.randn(3, 6, generator=draw)
        heard = torch.cat([token.mean(0), frame.mean(0) * (i % 4 != 0)])
        region = torch.einsum("f,fnd->nd", heard, maps) + 0.5 * torch.randn(3, 5, generator=draw)
        nodes = {"token": token, "region": region, **({"frame": frame} if i % 4 else {})}
        return Sample(id=f"{part}{i}", target=0.0, **nodes)

    parts = [[sample(part, i) for i in range(size)] for part, size in (("a", 40), ("b", 24), ("c", 24))]
    schema = media(token=("text", 4), region=("image", 5), frame=("audio", 6))
    return Dataset("pairs", schema, *parts, Regression(("none",)))


# as many components as there are: nothing of the target is left out
SMALL = generation.GenerationSettings(
    width=8,
    layers=1,
    heads=2,
    components=15,
    noise=2,
    hidden=16,
    steps=20,
    batch=16,
    paired=1.0,
    adversarial=0.1,
    anchor=True,
    training=TrainingSettings(epochs=1, batch_size=8, lr=0.01),
)


@pytest.fixture(scope="module")
def source() -> generation.Translation:
    return generation.translation(dataset(), "region", groups={"b0": "same", "b1": "same"})


@pytest.fixture(scope="module")
def model(source) -> generation.Translator:
    return generation.train(source, SMALL, progress=False)


def silenced(source: generation.Translation) -> generation.Translator:
    model = generation.train(source, replace(SMALL, steps=1), progress=False)
    model.generator.silence()
    return model


def rows(source: generation.Translation, part: str) -> np.ndarray:
    """Mean nodes side by side, by a loop."""
    found = []
    for sample in source.samples(part):
        cells = []
        for name, node in source.data.schema.nodes.items():
            own = sample.nodes[name]["x"].double().numpy() if name in sample.nodes else np.zeros((1, node.dim))
            cells.append(sum(own) / len(own))
        found.append(np.concatenate(cells))
    return np.array(found)


def chosen_strength(source: generation.Translation) -> float:
    """The strength that finds most on the validation part, one item per group, by least squares and a loop."""
    x, y = rows(source, "train"), source.train.double().numpy()
    heard, own = rows(source, "valid"), source.valid.double().numpy()
    kept = [i for i, s in enumerate(source.samples("valid")) if s.id != "b1"]
    found = []
    for strength in scoring.STRENGTHS:
        made = predicted(x, y, heard, strength)[kept]
        a, b = ((v - y.mean(0)).reshape(-1, 3, 5).mean(1) for v in (made, own[kept]))
        cosines = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
        found.append(np.mean((cosines >= np.diag(cosines)[:, None]).sum(1) <= 10))
    return scoring.STRENGTHS[int(np.argmax(found))]


def predicted(x: np.ndarray, y: np.ndarray, heard: np.ndarray, strength: float) -> np.ndarray:
    """Ridge regression as least squares with a row ``sqrt(strength)`` more for every feature."""
    center, mean = x.mean(0), y.mean(0)
    more = np.sqrt(strength) * np.eye(x.shape[1])
    weights = np.linalg.lstsq(np.vstack([x - center, more]), np.vstack([y - mean, np.zeros((len(more), y.shape[1]))]))
    return (heard - center) @ weights[0] + mean


def test_the_start_is_the_ridge_regression(source) -> None:
    silent = silenced(source)
    assert silent.kept_start
    expected = predicted(
        rows(source, "train"), source.train.double().numpy(), rows(source, "test"), chosen_strength(source)
    )
    samples = source.samples("test")
    assert any("frame" not in s.nodes for s in samples)
    made = generation.generate(silent, samples)
    assert np.allclose(made.flatten(1).double().numpy(), expected, atol=1e-4)
    assert torch.allclose(silent(GraphBuilder(silent.schema)(samples)), made, atol=1e-5)
    # no noise is heard
    several = generation.generate(silent, samples, draws=2)
    assert torch.equal(several[:, 0], several[:, 1])


def test_a_silent_generator_finds_what_the_regression_finds(source) -> None:
    silent = silenced(source)
    for part in ("valid", "test"):
        found = generation.evaluate(silent, source, part)
        assert {name: found[name] for name in ("recall@1", "recall@5", "recall@10", "median_rank")} == (
            pytest.approx(scoring.regression(source, part))
        )


def test_the_middle_strength_without_a_validation_part(source) -> None:
    lonely = replace(source, data=replace(source.data, valid=None), valid=source.valid[:0])
    silent = silenced(lonely)
    x, y = rows(source, "train"), source.train.double().numpy()
    expected = predicted(x, y, rows(source, "test"), start.MIDDLE)
    made = generation.generate(silent, source.samples("test")).flatten(1).double().numpy()
    assert np.allclose(made, expected, atol=1e-4)


def test_what_is_left_out_by_a_loop() -> None:
    x, y = torch.randn(12, 4) + 2, torch.randn(12, 3)
    found = start.left_out(x, y, 3.0)
    for i in range(12):
        others = torch.arange(12) != i
        model = Ridge(3.0).fit(x[others].double().numpy(), y[others].double().numpy())
        assert np.allclose(found[i], model.predict(x[i : i + 1].double().numpy())[0])


def test_the_generator_adds_to_the_start(source, monkeypatch) -> None:
    # whatever it finds, what was trained stays
    monkeypatch.setattr(fitting, "features", lambda *_: {"recall@10": 1.0})
    trained = generation.train(source, SMALL, progress=False)
    assert not trained.kept_start
    samples = source.samples("test")
    heard = trained.hear(samples)
    assert heard.start is not None
    silent = silenced(source)
    closed = silent.hear(samples).start
    assert closed is not None
    assert torch.equal(heard.start, closed)
    noise = torch.randn(1, len(samples), 2, generator=torch.Generator().manual_seed(0))[0]
    with torch.inference_mode():
        expected = trained.decode(heard.start + trained.generator(heard.z, noise))
    assert torch.allclose(generation.generate(trained, samples), expected, atol=1e-6)
    assert not torch.allclose(expected, generation.generate(silent, samples), atol=1e-3)
    several = generation.generate(trained, samples, draws=2)
    assert not torch.equal(several[:, 0], several[:, 1])


@pytest.mark.parametrize(("after", "kept"), [(0.4, True), (0.5, False), (0.6, False)])
def test_the_start_is_kept_where_training_finds_less(source, monkeypatch, after, kept) -> None:
    told = iter([0.5, after])
    asked: list[str] = []

    def features(model, source, part, seed) -> dict[str, float]:
        asked.append(part)
        return {"recall@10": next(told)}

    monkeypatch.setattr(fitting, "features", features)
    assert generation.train(source, replace(SMALL, steps=3), progress=False).kept_start == kept
    assert asked == ["valid", "valid"]


def test_a_trained_model_finds_no_less_than_the_regression_on_the_validation_part(source, model) -> None:
    found = generation.evaluate(model, source, "valid")["recall@10"]
    assert found >= scoring.regression(source, "valid")["recall@10"]


def test_the_critic_and_the_losses_judge_the_sum(source) -> None:
    silent = silenced(source)
    starts = torch.randn(40, 15)
    game = fitting._Game(silent, source, SMALL, torch.zeros(40, 1, 8), False, starts)
    places = torch.tensor([3, 7, 3])
    assert torch.equal(game._made(torch.randn(3, 8), torch.randn(3, 2), places), starts[places])
    seen = []
    game.critic.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    game._critic_step()
    assert all((starts == row).all(1).any() for row in seen[0][len(seen[0]) // 2 :])


def test_saving_keeps_the_start_and_older_models_load(source, model, tmp_path) -> None:
    samples = source.samples("test")
    for number, one in enumerate((model, silenced(source))):
        one.save_pretrained(tmp_path / str(number))
        loaded = generation.Translator.from_pretrained(tmp_path / str(number))
        assert loaded.kept_start == one.kept_start
        assert torch.equal(generation.generate(loaded, samples), generation.generate(one, samples))
    plain = generation.train(source, replace(SMALL, steps=1, anchor=False), progress=False)
    assert plain.hear(samples).start is None
    assert not plain.kept_start
    plain.save_pretrained(tmp_path / "plain")
    # as it was written before there was an anchor
    path = tmp_path / "plain" / WEIGHTS
    with safetensors.safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["hetgraph"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert not any(name.startswith("start_") for name in state)
    del config["generator"]["anchor"]
    safetensors.torch.save_file(state, path, {"hetgraph": json.dumps(config)})
    older = generation.Translator.from_pretrained(tmp_path / "plain")
    assert torch.equal(generation.generate(older, samples), generation.generate(plain, samples))


def test_an_anchored_model_imputes(source, model) -> None:
    sample = source.samples("test")[0]
    full = generation.impute(model, sample)
    assert torch.equal(full.nodes["region"]["x"], generation.generate(model, [sample])[0])


def test_a_silent_generator_is_one() -> None:
    network = GeneratorNetwork(3, 2, 8, 4).eval()
    assert not network.silent
    network.silence()
    assert network.silent
    assert not network(torch.randn(5, 3), torch.randn(5, 2)).any()


def test_exchanged_targets_have_no_anchor(source) -> None:
    with pytest.raises(HetgraphError, match="anchor needs a target of every sample's own"):
        generation.train(replace(source, exchange=True), SMALL, progress=False)


def test_what_is_anchored() -> None:
    assert generation.suggested("tuxpaint").anchor
    assert generation.suggested("tuxpaint_back").anchor
    assert not generation.suggested("digits").anchor
    assert {name: imputation.settings_of(name).anchor for name in imputation.CASES} == {
        name: not exchange for name, (_, _, exchange) in imputation.CASES.items()
    }


def test_absent_types_and_types_without_nodes_are_zeros(source) -> None:
    bare = Sample(id="bare", token=torch.ones(2, 4), frame=torch.zeros(0, 6))
    one = replace(source, data=replace(source.data, test=[bare]))
    expected = torch.cat([torch.ones(4) if name == "token" else torch.zeros(6) for name in one.data.schema.nodes])
    assert torch.equal(scoring.heard_means(one, "test")[0], expected)
    assert torch.equal(ridge(torch.zeros(3, 2), torch.ones(3, 1), 1.0)[1], torch.ones(1).double())
