"""The demo's parts on a few scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from hetgraph import GraphBuilder
from hetgraph.pipeline import Pipeline, label_of
from hetgraph.predictor import Predictor
from hetgraph.tasks import demo
from hetgraph.tasks.datasets.scenes import ANSWERS, QUESTIONS, chance, generate
from hetgraph.tasks.datasets.scenes_lexicon import NAMESPACE
from hetgraph.training import TrainingSettings, without

QUICK = TrainingSettings(epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def world():
    scenes = generate(train=2 * len(QUESTIONS), valid=0, test=len(QUESTIONS), seed=3)
    pipeline = demo.scene_pipeline(scenes)
    return scenes, pipeline, demo.scene_samples(pipeline, scenes.items)


def test_a_sample_has_the_picture_the_words_the_sound_and_the_entities_of_its_scene(world) -> None:
    scenes, pipeline, samples = world
    features = {m.node: m.encoder for m in pipeline.media}
    for scene, sample in zip(scenes, samples, strict=True):
        assert (sample.id, sample.target) == (scene.id, scene.answer)
        assert list(sample.nodes) == ["region", "token", "frame", "entity"]
        assert torch.equal(sample.nodes["region"]["x"], features["region"]([scene.picture])[0]["x"])
        assert torch.equal(sample.nodes["frame"]["x"], features["frame"]([(scene.sound, scene.rate)])[0]["x"])
        assert torch.equal(sample.nodes["token"]["x"], features["token"]([scene.question])[0]["x"])
        spans = sample.nodes["token"]["span"].long().tolist()
        assert [scene.question[a:b].lower() for a, b in spans] == [word.lower() for word in scene.words]
        labels = [features["token"]([entity.label])[0]["x"].mean(0) for entity in scene.entities]
        assert torch.equal(sample.nodes["entity"]["x"], torch.stack(labels)), "entities in the order of the scene"


def test_every_fact_of_the_scene_is_there_in_both_directions(world) -> None:
    scenes, pipeline, samples = world
    for scene, sample in zip(scenes, samples, strict=True):
        facts = sorted((f.head, NAMESPACE + f.relation, f.tail) for f in scene.facts)
        for name, turned in (("fact", False), ("fact_of", True)):
            edges = sample.edges["entity", name, "entity"]
            found = [
                ((t, pipeline.relations[r], h) if turned else (h, pipeline.relations[r], t))
                for (h, t), r in zip(edges["index"].T.tolist(), edges["relation"].tolist(), strict=True)
            ]
            assert sorted(found) == facts


def test_words_that_are_labels_are_connected_with_their_entity(world) -> None:
    scenes, _, samples = world
    linked = 0
    for scene, sample in zip(scenes, samples, strict=True):
        labels = [entity.label for entity in scene.entities]
        expected = {(i, labels.index(word)) for i, word in enumerate(scene.words) if word in labels}
        edges = sample.edges["token", "mentions", "entity"]["index"]
        assert {tuple(pair) for pair in edges.T.tolist()} == expected
        assert torch.equal(sample.edges["entity", "mentioned", "token"]["index"], edges.flip(0))
        linked += len(expected)
        if "knowledge" in scene.needs:
            assert any(
                entity.iri.startswith(f"{NAMESPACE}word/") and entity.label in scene.words for entity in scene.entities
            )
    assert linked


def test_an_ablation_takes_exactly_its_types_out(world) -> None:
    _, pipeline, samples = world
    builder = GraphBuilder(pipeline.schema)
    assert demo.ABLATIONS["all modalities"] == ()
    for removed in demo.ABLATIONS.values():
        gone = {demo.NODE_TYPES[name] for name in removed}
        cut = [without(sample, *gone) for sample in samples]
        for whole, sample in zip(samples, cut, strict=True):
            assert set(sample.nodes) == set(whole.nodes) - gone
            assert set(sample.edges) == {key for key in whole.edges if not {key[0], key[2]} & gone}
            assert (sample.target, sample.id) == (whole.target, whole.id)
        assert {name for name, count in builder(cut).counts.items() if not count.sum()} == gone


def test_ablate_counts_right_answers_by_kind_of_question(world, monkeypatch) -> None:
    scenes, pipeline, samples = world
    model, seen = demo.build_model(pipeline), []

    def answers(_, given, **__):
        """Right unless the sound is gone."""
        seen.append({name for sample in given for name in sample.nodes})
        right = "frame" in seen[-1]
        return SimpleNamespace(answers=[s.target if right else "nothing" for s in given])

    monkeypatch.setattr(demo, "predict", answers)
    rows = demo.ablate(model, scenes.items, samples)
    assert {name: row.removed for name, row in rows.items()} == demo.ABLATIONS
    for (name, row), types in zip(rows.items(), seen, strict=True):
        wanted = 0.0 if "sound" in row.removed else 1.0
        assert set(row.accuracy) == set(QUESTIONS), name
        assert set(row.accuracy.values()) == {wanted}
        assert row.overall == wanted
        assert types == {"region", "token", "frame", "entity"} - {demo.NODE_TYPES[m] for m in row.removed}


@pytest.mark.parametrize("name", demo.ABLATIONS)
@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_cell_is_as_expected_between_its_two_limits(name, kind) -> None:
    removed = demo.ABLATIONS[name]
    level = chance(kind, removed)
    assert (level == 1.0) == (not QUESTIONS[kind].needs & set(removed))

    def wrong(accuracy: float) -> int:
        return len(demo.within_chance({name: demo.Ablation(removed, {kind: accuracy}, accuracy)}, margin=0.05))

    if level == 1.0:
        assert (wrong(0.0), wrong(0.899), wrong(0.9), wrong(1.0)) == (1, 1, 0, 0)
    else:
        assert (wrong(0.0), wrong(level + 0.049), wrong(level + 0.051), wrong(1.0)) == (0, 0, 1, 1)


def test_what_is_not_as_expected_is_said_with_its_place() -> None:
    rows = {"without sound": demo.Ablation(("sound",), {"sound": 0.9, "image": 0.5}, 0.7)}
    assert len(demo.within_chance(rows)) == 2
    assert all("without sound" in line for line in demo.within_chance(rows))


def test_a_drawing_is_a_picture_with_something_on_it(world, tmp_path) -> None:
    scenes, pipeline, samples = world
    model = demo.build_model(pipeline, seed=1)
    path = demo.draw_scene(model, pipeline, scenes[0], samples[0], tmp_path / "graph.png")
    assert path == tmp_path / "graph.png"
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_a_stage_of_training_has_the_questions_that_need_no_more_than_it_allows(world, monkeypatch) -> None:
    scenes, _, samples = world
    stages = []

    def fit(model, some, *, settings, **_):
        stages.append(([sample.id for sample in some], settings))

    monkeypatch.setattr(demo, "fit", fit)
    curriculum = [demo.Stage(n, False, QUICK) for n in (0, 1, 2, 3)]
    demo.train_in_stages(None, scenes.items, samples, curriculum=curriculum, seed=2)
    for n, (names, settings) in enumerate(stages):
        assert names == [scene.id for scene in scenes if len(scene.needs) <= n]
        assert replace(settings, seed=0) == QUICK
    assert len({settings.seed for _, settings in stages}) == 4
    assert len(stages[3][0]) == len(scenes)


def test_a_bare_stage_has_the_words_and_what_the_question_needs_and_nothing_else(world, monkeypatch) -> None:
    scenes, _, samples = world
    given = {}
    monkeypatch.setattr(demo, "fit", lambda _, some, **rest: given.update({sample.id: sample for sample in some}))
    demo.train_in_stages(None, scenes.items, samples, curriculum=[demo.Stage(3, True, QUICK)])
    node = {"image": "region", "sound": "frame", "knowledge": "entity"}
    for scene in scenes:
        assert set(given[scene.id].nodes) == {"token", *(node[modality] for modality in scene.needs)}


@pytest.mark.parametrize(("learnt_after", "fitted"), [(0, 0), (2, 2), (9, 3)])
def test_training_goes_on_until_validation_scenes_are_understood(world, monkeypatch, learnt_after, fitted) -> None:
    scenes, _, samples = world
    seeds = []

    def answers(model, asked, **_):
        # the hardest kind stays wrong until the model was fitted often enough
        known = len(seeds) >= learnt_after
        told = [s.answer if known or s.kind != "image+sound+knowledge" else "?" for s in scenes.items]
        return SimpleNamespace(answers=told)

    monkeypatch.setattr(demo, "predict", answers)
    monkeypatch.setattr(demo, "fit", lambda model, some, *, settings, **_: seeds.append((len(some), settings.seed)))
    assert demo.go_on(None, samples[:3], scenes.items, samples, most=3, seed=1) == fitted == len(seeds)
    assert len(set(seeds)) == fitted
    assert all(count == 3 for count, _ in seeds)


def test_without_validation_scenes_training_does_not_go_on(world, monkeypatch) -> None:
    _, _, samples = world
    monkeypatch.setattr(demo, "fit", lambda *_, **__: pytest.fail("fitted again"))
    assert demo.go_on(None, samples, [], []) == 0


def test_the_same_seed_makes_the_same_model(world) -> None:
    _, pipeline, _ = world
    one, same, other = (demo.build_model(pipeline, seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())
    assert demo.build_model(pipeline).objective.classes == tuple(ANSWERS)


def test_the_whole_demo_writes_a_model_that_loads_and_a_picture(tmp_path) -> None:
    stages = [demo.Stage(1, True, QUICK), demo.Stage(3, False, QUICK)]
    kinds = len(QUESTIONS)
    sizes = {"train": 4 * kinds, "valid": kinds, "test": 2 * kinds}
    result = demo.run(tmp_path, **sizes, seed=1, curriculum=stages, progress=False)
    assert set(result.rows) == set(demo.ABLATIONS)
    for row in result.rows.values():
        assert set(row.accuracy) == set(QUESTIONS)
        # the test scenes take turns: every kind of question is there equally often
        assert row.overall == pytest.approx(sum(row.accuracy.values()) / len(row.accuracy))
    assert Path(result.drawing).parent == tmp_path
    with Image.open(result.drawing) as picture:
        assert picture.format == "PNG"
    loaded = Predictor.from_pretrained(tmp_path)
    scenes = generate(train=0, valid=0, test=3, seed=1)
    pipeline = demo.scene_pipeline(scenes)
    again = Pipeline.load(tmp_path, graph=pipeline.graph)
    assert again.schema == pipeline.schema == loaded.schema
    for (name, value), other in zip(loaded.state_dict().items(), result.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert label_of(again.graph, 0)
