"""Generation: the two players on toy data, what stands in for a modality, the command, the page."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from test_datasets_av_digits import put

from hetgraph import GraphBuilder, HetgraphError, Sample
from hetgraph.builders import media
from hetgraph.errors import CheckpointError
from hetgraph.objectives import Classification
from hetgraph.predictor import Predictor
from hetgraph.tasks import generation
from hetgraph.tasks.datasets import Dataset, av_digits, scenes_fusion
from hetgraph.tasks.generation import fitting, imputation, translations
from hetgraph.tasks.generation.networks import Average, Critic, GeneratorNetwork, Posterior, Space, hinge
from hetgraph.tasks.generation.picture import draw, grid
from hetgraph.tasks.running import suggested, train
from hetgraph.training import TrainingSettings


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


KINDS = ("bright", "dark")


def dataset(count: int = 24) -> Dataset:
    """A frame type that says the class by its sign; 4 cells of 4 pixels, bright or dark."""
    draw_ = torch.Generator().manual_seed(0)

    def sample(part: str, i: int) -> Sample:
        kind = i % 2
        level = 0.2 + 0.5 * (1 - kind)
        return Sample(
            id=f"{part}{i}",
            target=KINDS[kind],
            frame=(1 - 2 * kind) + 0.3 * torch.randn(3, 5, generator=draw_),
            region={
                "x": level + 0.2 * torch.rand(4, 4, generator=draw_),
                "box": torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 4),
            },
        )

    parts = [[sample(part, i) for i in range(size)] for part, size in (("a", count), ("b", 8), ("c", 12))]
    schema = media(region=("image", 4), frame=("audio", 5))
    return Dataset("toy", schema, *parts, Classification(KINDS))


SMALL = generation.GenerationSettings(
    width=8,
    layers=1,
    heads=2,
    dropout=0.0,
    components=4,
    noise=2,
    hidden=16,
    steps=200,
    batch=16,
    generator_lr=5e-3,
    critic_lr=5e-3,
    average=0.9,
    training=TrainingSettings(epochs=4, batch_size=8, lr=0.02),
)


@pytest.fixture(scope="module")
def source() -> generation.Translation:
    return generation.translation(dataset(), "region", exchange=True)


@pytest.fixture(scope="module")
def model(source) -> generation.Translator:
    return generation.train(source, replace(SMALL, auxiliary=0.5, recovered=4.0, stretch=1.0, mask=1), progress=False)


# what is translated into what


def test_the_target_is_apart_and_in_the_order_of_the_samples(source) -> None:
    data = dataset()
    assert list(source.data.schema.nodes) == ["frame"]
    assert (source.nodes, source.dim, source.name) == (4, 4, "frame->region")
    for part in ("train", "valid", "test"):
        full = getattr(data, part)
        assert [s.id for s in source.samples(part)] == [s.id for s in full]
        assert torch.equal(source.targets(part), torch.stack([s.nodes["region"]["x"].flatten() for s in full]))
        assert all(list(s.nodes) == ["frame"] for s in source.samples(part))
        assert source.labels(part).tolist() == [KINDS.index(s.target) for s in full]
    assert torch.equal(source.places["box"], data.train[0].nodes["region"]["box"])


def test_nodes_of_different_number_are_averaged() -> None:
    data = dataset()
    first = data.train[0]
    fewer = Sample(id="x", target="bright", frame=torch.zeros(1, 5), region=first.nodes["region"]["x"][:2])
    lonely = Sample(id="y", target="bright", frame=torch.zeros(1, 5))
    found = generation.translation(replace(data, train=[*data.train, fewer, lonely]), "region")
    assert (found.nodes, found.places) == (1, {})
    assert [s.id for s in found.samples("train")][-1] == "x"
    assert torch.allclose(found.train[-1], first.nodes["region"]["x"][:2].mean(0))
    with pytest.raises(HetgraphError, match=r"\[2, 4\] nodes; only their mean"):
        generation.translation(replace(data, train=[*data.train, fewer]), "region", pooled=False)


def test_impossible_translations_are_refused() -> None:
    data = dataset()
    with pytest.raises(HetgraphError, match="expected a target apart from"):
        generation.translation(data, "region", ["region"])
    with pytest.raises(HetgraphError, match="expected node types out of"):
        generation.translation(data, "region", ["frame", "word"])
    bare = replace(data, train=[Sample(id="z", target="dark", frame=torch.zeros(1, 5))])
    with pytest.raises(HetgraphError, match="no training sample has 'region'"):
        generation.translation(bare, "region")
    with pytest.raises(HetgraphError, match="no translation 'words'; known: digits"):
        generation.load("words")


# the networks


def test_the_space_is_that_of_principal_components() -> None:
    targets = torch.randn(40, 6) @ torch.randn(6, 6) + 3
    space = Space(6, 3)
    space.fit(targets)
    other = PCA(3).fit(targets.double().numpy())
    codes = space.encode(targets)
    assert np.allclose(space.decode(codes), other.inverse_transform(other.transform(targets.double())), atol=1e-4)
    # one scale for all components: they keep their proportions
    expected = np.sqrt(np.mean(other.transform(targets.double()) ** 2))
    assert float(space.scale) == pytest.approx(expected, rel=1e-4)
    assert float(codes.square().mean()) == pytest.approx(1, rel=1e-4)
    bounded = Space(6, 6, bounded=True)
    bounded.fit(targets)
    assert torch.allclose(bounded.decode(bounded.encode(targets)), targets.clamp(0, 1), atol=1e-4)


def test_the_space_refuses_what_has_no_components() -> None:
    with pytest.raises(HetgraphError, match="from 1 to 6 components, got 7"):
        Space(6, 7)
    with pytest.raises(HetgraphError, match="3 components need as many training targets, got 2"):
        Space(6, 3).fit(torch.randn(2, 6))
    with pytest.raises(HetgraphError, match="are alike"):
        Space(6, 3).fit(torch.ones(9, 6))


def test_the_posterior_is_apart_from_the_noise_by_the_divergence() -> None:
    posterior = Posterior(5, 3, 8, 2)
    y, z = torch.randn(4, 5), torch.randn(4, 3)
    drawn, apart = posterior(y, z)
    mean, log_variance = posterior.out(posterior.inside(torch.cat([y, z], 1))).chunk(2, 1)
    own = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(apart, expected, atol=1e-5)
    draws = torch.stack([posterior(y, z)[0] for _ in range(2000)])
    assert drawn.shape == (4, 2)
    assert torch.allclose(draws.mean(0), mean, atol=0.15)
    assert torch.allclose(draws.std(0), own.stddev, atol=0.15)


@torch.no_grad()
def test_the_critic_is_a_projection() -> None:
    critic = Critic(5, 3, 8, classes=2).eval()
    y, z = torch.randn(4, 5), torch.randn(4, 3)
    score, kind = critic(y, z)
    seen = critic.inside(y)
    expected = [
        float(critic.real.weight[0] @ f + critic.real.bias[0] + (critic.heard.weight @ c) @ f)
        for f, c in zip(seen, z, strict=True)
    ]
    assert score.tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(kind, critic.kind(seen))
    assert Critic(5, 3, 8)(y, z)[1] is None
    for _ in range(50):
        critic.train()(y, z)
    assert float(torch.linalg.matrix_norm(critic.inside[0].weight, 2)) == pytest.approx(1, abs=1e-2)


def test_the_hinge_and_the_average() -> None:
    assert float(hinge(torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0]))) == pytest.approx(0.25 + 0.5)
    network = torch.nn.Linear(1, 1, bias=False)
    average, expected = Average(network, 0.5), network.weight.item()
    for step, value in enumerate((1.0, 5.0, 3.0), 1):
        network.weight.data.fill_(value)
        average.step()
        keep = min(0.5, step / (step + 9))
        expected = keep * expected + (1 - keep) * value
    average.put()
    assert network.weight.item() == pytest.approx(expected)


def test_the_generator_hears_z_and_noise() -> None:
    network = GeneratorNetwork(3, 2, 8, 4).eval()
    z, noise = torch.randn(5, 3, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    network(z, noise).sum().backward()
    assert (z.grad != 0).all()
    assert (noise.grad != 0).all()


def test_samples_are_disturbed_in_order_and_not_in_place() -> None:
    ramp = Sample(id="r", target="bright", frame=torch.arange(8.0)[:, None].expand(8, 5).clone())
    heard = fitting.Disturbed([ramp], stretch=2.0, mask=0)[0].nodes["frame"]["x"]
    steps = heard[:, 0].diff()
    assert torch.allclose(steps, steps[0].expand(7), atol=1e-5)
    assert 0 <= heard[0, 0] <= 2
    assert 5 <= heard[-1, 0] <= 7
    masked = fitting.Disturbed([ramp], stretch=0.0, mask=2)
    found = [masked[0].nodes["frame"]["x"] for _ in range(50)]
    assert any((x[:, 0] != ramp.nodes["frame"]["x"][:, 0]).any() for x in found)
    assert max(int((x != ramp.nodes["frame"]["x"]).any(1).sum()) for x in found) <= 2
    assert ramp.nodes["frame"]["x"][:, 0].tolist() == list(range(8))


def test_partners_are_any_of_the_same_class(source) -> None:
    model = generation.train(source, replace(SMALL, steps=1), progress=False)
    views = torch.zeros(len(source.train), 1, 8)
    game = fitting._Game(model, source, SMALL, views, False)
    places = torch.arange(len(source.train))
    drawn = torch.stack([game._partners(places) for _ in range(300)])
    kinds = source.labels("train")
    assert torch.equal(kinds[drawn], kinds.expand_as(drawn))
    for place in places.tolist():
        assert set(drawn[:, place].tolist()) == set((kinds == kinds[place]).nonzero().flatten().tolist())
    own = fitting._Game(model, replace(source, exchange=False), SMALL, views, False)
    assert torch.equal(own._partners(places), places)


# training and making


def test_what_is_made_is_of_the_class_that_is_heard_and_differs(source, model) -> None:
    samples, kinds = source.samples("test"), source.labels("test")
    made = generation.generate(model, samples, draws=3)
    assert made.shape == (12, 3, 4, 4)
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    level = made.mean((1, 2, 3))
    assert bool((level[kinds == 0] > 0.6).all())
    assert bool((level[kinds == 1] < 0.5).all())
    assert float((made[:, 0] - made[:, 1]).abs().mean()) > 0.001
    assert torch.equal(generation.generate(model, samples), generation.generate(model, samples, draws=1)[:, 0])
    assert not torch.equal(generation.generate(model, samples, seed=1), generation.generate(model, samples))
    graph = GraphBuilder(model.schema)(samples)
    assert model(graph).shape == (12, 4, 4)
    with pytest.raises(HetgraphError, match="at least one draw, got 0"):
        generation.generate(model, samples, draws=0)
    with pytest.raises(HetgraphError, match="sample 'deaf': expected some of the node types"):
        generation.generate(model, [Sample(id="deaf", region=torch.zeros(4, 4))])


def test_the_same_seed_gives_the_same_and_saving_keeps_it(source, model, tmp_path) -> None:
    settings = replace(SMALL, auxiliary=0.5, recovered=4.0, stretch=1.0, mask=1)
    samples = source.samples("test")
    made = generation.generate(model, samples)
    assert torch.equal(generation.generate(generation.train(source, settings, progress=False), samples), made)
    other = generation.train(source, settings, seed=1, progress=False)
    assert not torch.equal(generation.generate(other, samples), made)
    model.save_pretrained(tmp_path)
    loaded = generation.Translator.from_pretrained(tmp_path)
    assert torch.equal(generation.generate(loaded, samples), made)
    assert torch.equal(loaded.places["box"], source.places["box"])
    with pytest.raises(CheckpointError, match="holds a Translator, not a Predictor"):
        Predictor.from_pretrained(tmp_path)


def test_paired_targets_are_approached(source) -> None:
    paired = replace(source, exchange=False)
    settings = replace(SMALL, paired=5.0, adversarial=0.1, steps=100)
    errors = []
    for chosen in (settings, replace(settings, steps=1)):
        trained = generation.train(paired, chosen, progress=False)
        made = generation.generate(trained, paired.samples("train")).flatten(1)
        errors.append(float((made - paired.train).abs().mean()))
    assert errors[0] < 0.8 * errors[1]
    found = generation.evaluate(trained, paired)
    assert set(found) == {"recall@1", "recall@5", "recall@10", "median_rank", "cosine"}


def test_classes_are_needed_where_targets_are_exchanged(source) -> None:
    from hetgraph.objectives import Regression

    wrong = replace(source, data=replace(source.data, objective=Regression()))
    with pytest.raises(HetgraphError, match="exchanged within classes"):
        generation.train(wrong, SMALL, progress=False)


def test_settings_can_be_changed_and_are_checked() -> None:
    assert generation.suggested("digits", steps=7, lr=0.5, method="sum").training.lr == 0.5
    assert generation.suggested("digits", steps=7).steps == 7
    with pytest.raises(HetgraphError, match="no setting 'colour'"):
        generation.suggested("digits", colour=1)
    for name, value in {"steps": 0, "batch": 1, "auxiliary": -1.0, "critic_lr": 0.0, "average": 1.0}.items():
        with pytest.raises(HetgraphError, match=f"impossible setting of the generator: {name}"):
            generation.suggested("digits", **{name: value})


# what stands in


def test_imputing_adds_what_is_absent_and_leaves_the_rest(source, model) -> None:
    sample = source.samples("test")[0]
    full = generation.impute(model, sample)
    assert list(sample.nodes) == ["frame"]
    assert torch.equal(full.nodes["region"]["x"], generation.generate(model, [sample])[0])
    assert torch.equal(full.nodes["region"]["box"], source.places["box"])
    assert torch.equal(full.nodes["frame"]["x"], sample.nodes["frame"]["x"])
    assert (full.id, full.target) == (sample.id, sample.target)
    assert generation.impute(model, full) is full
    GraphBuilder(dataset().schema)([full])


def test_stand_ins_are_scored_on_the_same_samples(source, model) -> None:
    data = dataset()
    lonely = Sample(id="lonely", target="dark", frame=torch.zeros(1, 5))
    found = imputation.stand_ins(model, source, [*data.test, lonely])
    assert list(found) == list(imputation.CONDITIONS)
    assert {tuple(s.id for s in chosen) for chosen in found.values()} == {tuple(s.id for s in data.test)}
    assert torch.allclose(found["mean"][3].nodes["region"]["x"].flatten(), source.train.mean(0))
    assert torch.equal(
        found["generated"][5].nodes["region"]["x"],
        generation.generate(model, source.samples("test"))[5],
    )
    assert all("region" not in s.nodes for s in found["absent"])
    settings = suggested("toy", width=8, layers=1, heads=2, epochs=4, batch_size=8, lr=0.02)
    classifier = train(data, settings, progress=False)
    scores = imputation.measure(classifier, model, source, data.test)
    assert all(0 <= scores[name]["accuracy"] <= 1 for name in imputation.CONDITIONS)
    with pytest.raises(HetgraphError, match="no sample has 'region'"):
        imputation.stand_ins(model, source, [lonely])


# a command on invented digits


@pytest.fixture
def digits(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(av_digits, "PAIRS", {"train": 6, "valid": 3, "test": 4})
    monkeypatch.setattr(av_digits, "WRITTEN", (0.0, 0.6, 0.8))
    monkeypatch.setattr(translations, "WRITTEN", 6)
    return put(tmp_path / "av_digits")


def test_the_command_makes_scores_and_draws(digits, tmp_path, typed) -> None:
    words = ("task", "generation", "digits", "--data", digits, "--output", tmp_path / "out", "--seeds", 2)
    small = ("--epochs", 1, "--steps", 3, "--width", 8, "--layers", 1, "--heads", 2, "--hidden", 16)
    code, out, err = typed(*words, *small, "--json", tmp_path / "s.json", "--picture", tmp_path / "p.png")
    assert (code, err) == (0, "")
    assert "digits, graph, 2 seeds" in out
    assert max(map(len, out.splitlines())) <= 100
    result = json.loads((tmp_path / "s.json").read_text())
    assert len(result["runs"]) == 2
    assert {"accuracy", "accuracy_real", "accuracy_heard", "diversity", "frechet"} <= set(result["runs"][0])
    # what is heard is said of the floor too: its accuracy is the head's, read by the judge
    assert result["beside"]["mean picture"]["diversity"] < result["beside"]["training picture"]["diversity"]
    source = generation.load("digits", digits, seed=1)
    loaded = generation.Translator.from_pretrained(tmp_path / "out" / "seed-1")
    assert generation.evaluate(loaded, source, seed=1) == pytest.approx(result["runs"][1])
    pictures, names = grid(loaded, source)
    assert pictures.shape == (10, 12, 28, 28)
    assert names == [str(d) for d in range(10)]
    with Image.open(tmp_path / "p.png") as image:
        pixels = np.asarray(image)
    drawn = 255 - np.asarray((255 - pictures[3, 2] * 255).round()).astype(np.uint8)
    margin, high = pixels.shape[1] - 12 * 60, 60
    shown = 255 - pixels[4 + 3 * high : 60 + 3 * high : 2, margin + 2 * 60 : margin + 2 * 60 + 56 : 2]
    assert np.array_equal(shown, drawn)


def test_the_command_refuses_what_it_does_not_know(typed) -> None:
    code, _, err = typed("task", "generation", "mosi")
    assert code != 0
    assert "no translation 'mosi'" in err
    code, _, err = typed("task", "generation", "tuxpaint", "--picture", "x.png")
    assert code != 0
    assert "features have no picture" in err


def test_a_grid_needs_names(tmp_path) -> None:
    with pytest.raises(HetgraphError, match="a name per row"):
        draw(torch.zeros(2, 3, 4, 4), ["one"], tmp_path / "x.png")


def test_the_benchmark_goes_on_where_it_was(digits, tmp_path, monkeypatch) -> None:
    from rich.console import Console

    from benchmarks import generation as benchmark
    from benchmarks.generation import measure, table

    changes = {"epochs": 1, "steps": 2, "width": 8, "layers": 1, "heads": 2, "hidden": 16}
    path = tmp_path / "runs.json"
    told: list[str] = []
    measure("digits", path, digits, methods=["graph"], seeds=2, changes=changes, watch=told.append)
    result = measure("digits", path, digits, methods=["graph", "sum"], seeds=2, changes=changes, watch=told.append)
    assert len(told) == len(result["runs"]) == 4
    console = Console(width=100, record=True)
    console.print(table("digits", result))
    text = console.export_text()
    assert "…" not in text
    assert all(name in text for name in ("graph", "sum", "mean picture", "training picture"))
    # a run with other edges would pass for one of the method graph, and the other way round
    with pytest.raises(HetgraphError, match=r"other settings \(edges\)"):
        measure("digits", path, digits, seeds=1, edges=True, changes=changes)
    other = tmp_path / "edges.json"
    monkeypatch.setattr(benchmark, "EDGES", ("no edges",))
    found = measure("digits", other, digits, seeds=1, edges=True, changes=changes)
    assert [(run["method"], run["edges"]) for run in found["runs"]] == [("graph", "no edges")]
    with pytest.raises(HetgraphError, match=r"other settings \(edges\)"):
        measure("digits", other, digits, methods=["graph"], seeds=1, changes=changes)


# the page

PAGE = (Path(__file__).parents[1] / "docs" / "tasks" / "generation.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_runs(monkeypatch, capsys) -> None:
    monkeypatch.setattr(scenes_fusion, "PER_KIND", {"train": 16, "valid": 16, "test": 16})
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(codes) == 1
    exec(compile(codes[0], "docs/tasks/generation.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert 0 <= float(printed[0]) <= 1
    assert printed[1:] == re.findall(r"print\(.*\) +# (.*)", codes[0])


def test_the_page_names_every_translation_and_score() -> None:
    for name in (
        *generation.NAMES,
        *imputation.CASES,
        "accuracy_heard",
        "diversity_features",
        "frechet",
        "median_rank",
    ):
        assert f"`{name}`" in PAGE
