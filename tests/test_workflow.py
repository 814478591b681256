"""Fit, evaluate and embed from a manifest, with encoders that have no weights."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from extras import needs_av
from PIL import Image
from safetensors.torch import load_file
from videos import save_video

from hetgraph import GraphBuilder, rules, training, workflow
from hetgraph.encoders import HashWords, ImageCrops, ImagePatches, LogMel, VideoFrames, VideoSound
from hetgraph.errors import CheckpointError, HetgraphError, ManifestError
from hetgraph.kg import read_triples
from hetgraph.manifest import Manifest, Row, read_manifest
from hetgraph.objectives import Classification, MultiLabel, Regression
from hetgraph.pipeline import Pipeline
from hetgraph.training import TrainingSettings, evaluate, predict
from hetgraph.workflow import (
    ModelSettings,
    choose_objective,
    embed_samples,
    encode_rows,
    evaluate_manifest,
    fit_manifest,
    load_model,
    rows_for,
    with_splits,
)

SIZES = ModelSettings(width=16, layers=1, heads=2, dropout=0.1)
QUICK = TrainingSettings(epochs=3, batch_size=8, lr=1e-2, patience=12)
ENCODERS = {"image": ImagePatches(grid=(2, 2), size=2), "text": HashWords(8), "audio": LogMel(stack=20)}


def write(folder: Path, rows: list[dict], name: str = "m.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def coloured(
    folder: Path, count: int = 24, splits: tuple[str, ...] = ("train", "train", "valid", "test")
) -> list[dict]:
    """Rows whose picture, word or both say whether the label is red or blue; a few have a sound."""
    rows = []
    for i in range(count):
        label = ("red", "blue")[i % 2]
        row = {"id": f"s{i}", "label": label, "split": splits[i // 2 % len(splits)]}
        if i % 3 != 1:
            Image.new("RGB", (8, 8), label).save(folder / f"{i}.png")
            row["image"] = f"{i}.png"
        if i % 3 != 0:
            row["text"] = f"a {label} thing"
        if i % 7 == 0:
            with wave.open(str(folder / f"{i}.wav"), "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", ""))
                file.writeframes((1000 * np.sin(np.arange(4000))).astype("<i2").tobytes())
            row["audio"] = f"{i}.wav"
        rows.append(row)
    return rows


def run(manifest: Manifest, output: Path, **options):
    columns = options.get("columns") or manifest.columns
    options.setdefault(
        "pipeline", Pipeline.for_columns({name: manifest.columns[name] for name in columns}, encoders=ENCODERS)
    )
    return fit_manifest(manifest, output, model_settings=SIZES, **{"training": QUICK, **options})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    manifest = read_manifest(write(folder, coloured(folder)))
    return manifest, folder / "model", run(manifest, folder / "model")


def labels(*values) -> list[Row]:
    return [Row(f"s{i}", i + 1, {"text": "x"}, label=value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("b", "a", "b"), Classification(("a", "b"))),
        (("true", "false"), Classification(("false", "true"))),
        ((3, 1, 1), Classification(("1", "3"))),
        ((3.0, 1, 3), Classification(("1", "3"))),
        (("10", "9", "10"), Classification(("10", "9"))),
        (tuple(str(i) for i in range(20)), Classification(tuple(sorted(str(i) for i in range(20))))),
        ((["x"], ["y", "x"], []), MultiLabel(("x", "y"))),
    ],
)
def test_few_names_or_whole_numbers_are_classes_and_lists_are_many_labels(values, expected) -> None:
    notes: list[str] = []
    assert choose_objective(labels(*values), "auto", notes) == expected
    assert len(notes) == 1
    assert notes[0].startswith("task: ")


@pytest.mark.parametrize(
    "values", [(0.5, 1, 2), ("0.5", "1", "-2e1"), tuple(range(21)), tuple(str(i) for i in range(21))]
)
def test_fractions_and_many_numbers_are_regression_scaled_by_their_mean_and_spread(values) -> None:
    found = choose_objective(labels(*values), "auto", [])
    numbers = np.array([float(value) for value in values])
    assert isinstance(found, Regression)
    assert found.mean == pytest.approx((numbers.mean(),))
    assert found.std == pytest.approx((numbers.std(),))


def test_the_task_can_be_chosen() -> None:
    assert choose_objective(labels(1, 2, 2), "regression", []).mean == pytest.approx((5 / 3,))
    assert choose_objective(labels(0.5, 2.0), "classification", []).classes == ("0.5", "2")


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ((), "auto", "no training sample has a label"),
        (("a", "a"), "auto", "at least two different classes"),
        ((["a"], ["b"]), "classification", "one label a sample, got a list"),
        (("a", "b"), "multilabel", "needs a list of labels"),
        (([], []), "auto", "different label names"),
        (("1", "two"), "regression", "line 2: regression needs a number, got 'two'"),
        (("1", "inf", "2"), "auto", "sample 's1': target is not finite"),
        (("1", "nan", "2"), "auto", "sample 's1': target is not finite"),
        (("a", "b"), "ranking", "unknown task 'ranking'"),
    ],
)
def test_labels_that_do_not_suit_the_task_are_refused(values, task, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        choose_objective(labels(*values), task, [])


class Stop(Exception):
    pass


def parts(monkeypatch, rows: list[Row], seed: int = 0) -> dict[str, list[str]]:
    """Which samples fit_manifest encodes for which part."""
    found: dict[str, list[str]] = {}

    def record(pipeline, rows, objective, encoding, title, quarantine):
        found[title] = [row.id for row in rows]

    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr(workflow, "encode_rows", record)
    monkeypatch.setattr(workflow, "fit", stop)
    manifest = Manifest(Path("m.jsonl"), rows, {"text": "text"}, [])
    with pytest.raises(Stop):
        run(manifest, Path("nowhere"), training=TrainingSettings(seed=seed))
    return found


def many(count: int, *values, split: str | None = None) -> list[Row]:
    return [Row(f"s{i}", i + 1, {"text": "x"}, label=values[i % len(values)], split=split) for i in range(count)]


def test_without_a_split_column_parts_are_drawn_by_the_seed_and_disjoint(monkeypatch) -> None:
    rows = many(50, "a", "b")
    found = parts(monkeypatch, rows)
    assert {name: len(ids) for name, ids in found.items()} == {"train": 40, "valid": 5, "test": 5}
    assert sorted(name for ids in found.values() for name in ids) == sorted(row.id for row in rows)
    assert found == parts(monkeypatch, rows)
    assert {n: set(i) for n, i in found.items()} == {n: set(i) for n, i in parts(monkeypatch, rows[::-1]).items()}
    assert set(found["test"]) != set(parts(monkeypatch, rows, seed=1)["test"])


def test_a_missing_validation_part_is_drawn_from_the_training_part_only(monkeypatch) -> None:
    rows = many(30, "a", "b", split="train") + [
        Row(f"t{i}", 31 + i, {"text": "x"}, label="a", split="test") for i in (1, 2)
    ]
    found = parts(monkeypatch, rows)
    assert found["test"] == ["t1", "t2"]
    assert (len(found["train"]), len(found["valid"])) == (27, 3)
    assert sorted(found["train"] + found["valid"]) == sorted(row.id for row in rows[:30])
    assert found == parts(monkeypatch, rows)
    assert "valid" not in parts(monkeypatch, rows[:8])


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("seed", range(5))
def test_a_drawn_part_has_no_label_that_training_lacks(monkeypatch, split, seed) -> None:
    rows = many(40, "a", "b", split=split)
    rare = {3: "c", 17: "d", 29: "e"}
    rows = [Row(r.id, r.line, r.media, label=rare.get(i, r.label), split=split) for i, r in enumerate(rows)]
    found = parts(monkeypatch, rows, seed)
    assert {f"s{i}" for i in rare} <= set(found["train"])
    lists = [Row(r.id, r.line, r.media, label=[r.label, "a"], split=split) for r in rows]
    assert {f"s{i}" for i in rare} <= set(parts(monkeypatch, lists, seed)["train"])


def test_given_splits_are_kept_and_samples_without_one_are_for_training(monkeypatch) -> None:
    rows = [Row(f"s{i}", i, {"text": "x"}, label="ab"[i % 2], split=(None, "valid", "test")[i // 2]) for i in range(6)]
    assert parts(monkeypatch, rows) == {"train": ["s0", "s1"], "valid": ["s2", "s3"], "test": ["s4", "s5"]}


def test_samples_without_a_label_are_left_out_of_every_part(monkeypatch) -> None:
    rows = [Row(f"s{i}", i, {"text": "x"}, label=(None, "a", "b")[i % 3], split="train") for i in range(9)]
    assert parts(monkeypatch, rows) == {"train": ["s1", "s2", "s4", "s5", "s7", "s8"]}


def test_a_manifest_without_training_samples_is_refused(tmp_path) -> None:
    manifest = read_manifest(write(tmp_path, [{"text": "x", "label": "a", "split": "test"}]))
    with pytest.raises(HetgraphError, match="no training samples"):
        run(manifest, tmp_path / "out")


def test_what_fit_reports_is_what_evaluate_finds(fitted) -> None:
    manifest, folder, done = fitted
    assert set(done.scores) == {"valid", "test"}
    model, pipeline = load_model(folder)
    for split in ("valid", "test"):
        assert evaluate_manifest(manifest, model, pipeline, split) == done.scores[split]
    written = json.loads((folder / "history.json").read_text())
    assert written["scores"] == done.scores
    assert written["loss"] == done.history.loss
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "checkpoint.safetensors",
        "config.json",
        "history.json",
        "model.safetensors",
        "pipeline.json",
        "splits.json",
    ]


def test_the_score_is_the_share_of_right_answers(fitted) -> None:
    manifest, folder, done = fitted
    model, pipeline = load_model(folder)
    rows = manifest.split("test")
    answers = predict(model, encode_rows(pipeline, rows, None, None, "")).answers
    right = [answer == row.label for answer, row in zip(answers, rows, strict=True)]
    assert done.scores["test"]["accuracy"] == pytest.approx(sum(right) / len(right))


def test_the_notes_say_what_was_decided(fitted) -> None:
    _, _, done = fitted
    notes = "\n".join(done.notes)
    for part in ("task: classification", "image", "HashWords", "token", "region", "LogMel", "frame"):
        assert part in notes


@pytest.mark.parametrize("column", ["image", "text", "audio"])
def test_any_sample_may_lack_any_medium_and_all_samples_too(tmp_path, column) -> None:
    rows = coloured(tmp_path, 12)
    kept = [row for row in rows if set(row) & ({"image", "text", "audio"} - {column})]
    manifest = read_manifest(write(tmp_path, rows))
    done = run(manifest, tmp_path / "model", training=TrainingSettings(epochs=1))
    model, pipeline = load_model(tmp_path / "model")
    without = read_manifest(
        write(tmp_path, [{k: v for k, v in row.items() if k != column} for row in kept], "without.jsonl")
    )
    scores = evaluate_manifest(without, model, pipeline, "all")
    assert all(np.isfinite(value) for value in scores.values())
    assert set(scores) == set(done.scores["test"])


def test_only_the_wanted_columns_are_used(tmp_path) -> None:
    rows = [row | {"text": row.get("text", "a thing")} for row in coloured(tmp_path)]
    manifest = read_manifest(write(tmp_path, rows))
    done = fit_manifest(
        manifest,
        tmp_path / "model",
        columns=["text"],
        pipeline=Pipeline.for_columns({"text": "text"}, encoders=ENCODERS),
        model_settings=SIZES,
        training=QUICK,
    )
    assert list(done.model.schema.nodes) == ["token"]
    with pytest.raises(HetgraphError, match="no column 'sound'; the manifest has "):
        fit_manifest(manifest, tmp_path / "other", columns=["sound"])
    assert not (tmp_path / "other").exists()


def test_columns_choose_what_the_default_pipeline_reads(tmp_path, monkeypatch) -> None:
    seen = {}

    def record(columns, **options):
        seen.update(columns=columns, **options)
        raise Stop

    monkeypatch.setattr(Pipeline, "for_columns", record)
    manifest = read_manifest(write(tmp_path, coloured(tmp_path)))
    graph = object()
    with pytest.raises(Stop):
        fit_manifest(manifest, tmp_path / "m", columns=["text", "image"], cache=tmp_path / "c", graph=graph)
    assert seen == {"columns": {"text": "text", "image": "image"}, "graph": graph, "cache": tmp_path / "c"}


def test_a_sample_that_has_none_of_the_wanted_columns_is_named(tmp_path) -> None:
    rows = [{"id": f"s{i}", "text": "x", "label": "ab"[i % 2], "split": "train"} for i in range(4)]
    (tmp_path / "s.wav").write_bytes(b"")
    rows[2] = {"id": "s2", "audio": "s.wav", "label": "a", "split": "train"}
    manifest = read_manifest(write(tmp_path, rows))
    with pytest.raises(HetgraphError, match="'s2'"):
        run(manifest, tmp_path / "model", columns=["text"])
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_a_label_that_training_did_not_have_is_named_with_its_sample(fitted, tmp_path) -> None:
    _, folder, _ = fitted
    rows = [{"id": "a", "text": "x", "label": "red"}, {"id": "odd", "text": "x", "label": "green"}]
    model, pipeline = load_model(folder)
    message = "sample 'odd': label 'green' was not seen in training; known: blue, red"
    with pytest.raises(HetgraphError, match=message):
        evaluate_manifest(read_manifest(write(tmp_path, rows)), model, pipeline, "all")
    rows = [row | {"split": "train"} for row in coloured(tmp_path, 6, ("train",))] + [rows[1] | {"split": "valid"}]
    with pytest.raises(HetgraphError, match=message):
        run(read_manifest(write(tmp_path, rows)), tmp_path / "model")


def test_samples_without_a_label_or_a_medium_the_model_reads_are_named_by_line(fitted, tmp_path) -> None:
    _, folder, _ = fitted
    model, pipeline = load_model(folder)
    manifest = read_manifest(write(tmp_path, [{"text": "x", "label": "red"}, {"text": "x"}]))
    with pytest.raises(ManifestError, match=r"m\.jsonl: line 2: no label to compare with"):
        evaluate_manifest(manifest, model, pipeline, "all")
    (tmp_path / "s.wav").write_bytes(b"")
    manifest = read_manifest(write(tmp_path, [{"text": "x"}, {"audio:bell": "s.wav"}]))
    with pytest.raises(ManifestError, match=r"line 2: expected one of .*'image', 'text'\], got \['audio:bell'\]"):
        rows_for(manifest, pipeline, "all")
    with pytest.raises(ManifestError, match="no sample of split 'test'; it has samples without a split"):
        rows_for(manifest, pipeline, "test")


def test_other_settings_in_the_same_folder_are_refused_and_leave_the_model_alone(fitted) -> None:
    manifest, folder, _ = fitted
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"belongs to another run .* remove it or choose another folder"):
        run(manifest, folder, training=TrainingSettings(epochs=2, batch_size=8, lr=1e-2, patience=12))
    assert (folder / "model.safetensors").read_bytes() == before


def test_an_interrupted_fit_goes_on_to_the_same_weights_and_scores(fitted, tmp_path, monkeypatch) -> None:
    manifest, folder, done = fitted
    save, count = training.save_checkpoint, []

    def interrupted(*arguments):
        save(*arguments)
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(manifest, tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()
    again = run(manifest, tmp_path / "model")
    assert len(count) == QUICK.epochs, "no epoch was trained twice"
    assert again.scores == done.scores
    assert again.history.loss == done.history.loss
    one, other = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "model"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_finished_fit_is_not_trained_again(fitted, monkeypatch) -> None:
    manifest, folder, done = fitted
    monkeypatch.setattr(training, "save_checkpoint", lambda *_: pytest.fail("trained again"))
    assert run(manifest, folder).scores == done.scores


def test_numbers_are_predicted_in_their_own_unit(tmp_path) -> None:
    rows = [
        {
            "id": f"s{i}",
            "text": ("low", "high")[i % 2],
            "label": (100.5, 300.5)[i % 2],
            "split": ("train", "test")[i > 15],
        }
        for i in range(20)
    ]
    manifest = read_manifest(write(tmp_path, rows))
    settings = TrainingSettings(epochs=25, batch_size=8, lr=1e-2, seed=1)
    done = run(manifest, tmp_path / "model", training=settings)
    assert done.scores["test"]["mae"] < 40
    model, pipeline = load_model(tmp_path / "model")
    samples = encode_rows(pipeline, manifest.split("test"), model.objective, None, "")
    answers = predict(model, samples).answers
    error = np.abs(np.array(answers) - [row.label for row in manifest.split("test")]).mean()
    assert done.scores["test"]["mae"] == pytest.approx(error, rel=1e-4)


def test_many_labels_a_sample_are_learnt_from_lists(tmp_path) -> None:
    rows = [
        {"id": f"s{i}", "text": " ".join(names) or "nothing", "label": names, "split": ("train", "test")[i > 23]}
        for i, names in enumerate([["cat"], ["dog"], ["cat", "dog"], []] * 8)
    ]
    manifest = read_manifest(write(tmp_path, rows))
    done = run(manifest, tmp_path / "model", training=TrainingSettings(epochs=30, batch_size=8, lr=2e-2))
    assert done.scores["test"]["accuracy"] > 0.9
    assert done.model.objective == MultiLabel(("cat", "dog"))


KNOWLEDGE = """<u:cat> <http://www.w3.org/2000/01/rdf-schema#label> "cat" .
<u:cat> <u:is> <u:pet> .
<u:wolf> <http://www.w3.org/2000/01/rdf-schema#label> "wolf" .
<u:wolf> <u:isNot> <u:pet> .
"""


def test_a_model_with_knowledge_reads_entities_and_needs_its_graph_again(tmp_path) -> None:
    graph = read_triples(KNOWLEDGE.encode(), format="nt")
    rows = [
        {"id": f"s{i}", "text": f"a {name}", "label": name, "split": ("train", "test")[i > 7]}
        for i, name in enumerate(["cat", "wolf"] * 5)
    ]
    manifest = read_manifest(
        write(tmp_path, [*rows, {"id": "e", "entities": ["u:cat"], "label": "cat", "split": "test"}])
    )
    pipeline = Pipeline.for_columns(manifest.columns, encoders=ENCODERS, graph=graph)
    done = run(manifest, tmp_path / "model", pipeline=pipeline)
    model, loaded = load_model(tmp_path / "model", graph=graph)
    assert evaluate_manifest(manifest, model, loaded, "test") == done.scores["test"]
    with pytest.raises(CheckpointError, match="trained with a knowledge graph; pass it again"):
        load_model(tmp_path / "model")


def test_a_row_of_entities_alone_needs_a_model_with_knowledge(fitted, tmp_path) -> None:
    _, folder, _ = fitted
    _, pipeline = load_model(folder)
    manifest = read_manifest(write(tmp_path, [{"text": "x"}, {"entities": ["u:cat"]}]))
    with pytest.raises(ManifestError, match=r"line 2: expected one of the model's columns"):
        rows_for(manifest, pipeline, "all")


def test_a_pipeline_of_another_model_is_refused(fitted, tmp_path) -> None:
    _, folder, _ = fitted
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    Pipeline.for_columns({"text": "text"}, encoders={"text": HashWords(9)}).save(other)
    with pytest.raises(CheckpointError, match="other: pipeline and model differ"):
        load_model(other)
    with pytest.raises(CheckpointError, match="no folder"):
        load_model(tmp_path / "nothing")


def test_embeddings_are_those_of_every_sample_alone(fitted) -> None:
    manifest, folder, _ = fitted
    model, pipeline = load_model(folder)
    samples = encode_rows(pipeline, manifest.rows, None, None, "")
    z, nodes, owner = embed_samples(model, samples, batch_size=5)
    assert z.shape == (len(samples), SIZES.width)
    builder = GraphBuilder(model.schema)
    for i, sample in enumerate(samples):
        with torch.inference_mode():
            alone = model.fusion(builder([sample]))
        torch.testing.assert_close(z[i], alone.z[0], rtol=1e-4, atol=1e-5)
        for name, states in nodes.items():
            assert len(states) == len(owner[name])
            torch.testing.assert_close(states[owner[name] == i], alone.nodes[name], rtol=1e-4, atol=1e-5)


def test_progress_is_told_of_every_medium_of_every_part(tmp_path) -> None:
    told: dict[str, list[int]] = {}

    def encoding(title, total):
        told[title] = [total, 0]

        def advance(count):
            told[title][1] += count

        return advance

    rows = coloured(tmp_path)
    run(read_manifest(write(tmp_path, rows)), tmp_path / "m", encoding=encoding, training=TrainingSettings(epochs=1))
    for split in ("train", "valid", "test"):
        media = sum(len({"image", "text", "audio"} & set(row)) for row in rows if row["split"] == split)
        assert told[split] == [media, media]


def test_evaluate_leaves_the_same_scores_as_the_training_module(fitted) -> None:
    manifest, folder, done = fitted
    samples = encode_rows(load_model(folder)[1], manifest.split("test"), done.model.objective, None, "")
    assert evaluate(done.model, samples, batch_size=3) == pytest.approx(done.scores["test"], rel=1e-4)


def test_splits_that_were_drawn_for_a_manifest_are_known_again_at_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    lines = [{"id": f"s{i}", "text": ("good day", "bad night")[i % 2], "label": "ab"[i % 2]} for i in range(30)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    manifest = read_manifest(path)
    encoders = {"text": HashWords(8)}
    done = fit_manifest(
        manifest,
        tmp_path / "model",
        pipeline=Pipeline.for_columns(manifest.columns, encoders=encoders),
        training=TrainingSettings(epochs=1),
        model_settings=ModelSettings(width=8, layers=1, heads=2),
    )
    again = with_splits(manifest, tmp_path / "model")
    assert {row.split for row in again.rows} == {"train", "valid", "test"}
    model, pipeline = load_model(tmp_path / "model")
    assert evaluate_manifest(again, model, pipeline, "test") == pytest.approx(done.scores["test"])
    given = replace(manifest, rows=[replace(row, split="train") for row in manifest.rows])
    assert with_splits(given, tmp_path / "model") is given


@needs_av
def test_a_manifest_with_videos_is_fitted_saved_and_evaluated(tmp_path) -> None:
    """Whether the tone is low or high says the label; some videos are silent, of them the length says it."""
    rows = []
    for i in range(16):
        label, silent = ("low", "high")[i % 2], i % 8 > 5
        tone = None if silent else (300.0, 3000.0)[i % 2]
        save_video(tmp_path / f"{i}.mp4", frames=(4, 12)[i % 2], tone=tone)
        rows.append({"video": f"{i}.mp4", "label": label, "split": ("train", "train", "train", "test")[i // 4]})
    manifest = read_manifest(write(tmp_path, rows))
    encoders = {"video": VideoFrames(ImagePatches(1, 2), rate=5), "sound": VideoSound(LogMel(stack=20))}
    pipeline = Pipeline.for_columns(manifest.columns, encoders=encoders, cache=tmp_path / "cache")
    settings = TrainingSettings(epochs=15, batch_size=8, lr=1e-2)
    done = run(manifest, tmp_path / "model", pipeline=pipeline, training=settings)
    assert done.scores["test"]["accuracy"] == 1.0
    model, loaded = load_model(tmp_path / "model")
    assert list(model.schema.nodes) == ["video_frame", "video_sound"]
    assert model.schema.edges["video_frame", "during", "video_sound"].rule == rules.Overlapping("time")
    assert evaluate_manifest(manifest, model, loaded, "test") == pytest.approx(done.scores["test"])
    samples = encode_rows(loaded, manifest.rows, None, None, "")
    assert [set(sample.nodes) for sample in samples[5:8]] == [{"video_frame", "video_sound"}] + [{"video_frame"}] * 2
    graph = GraphBuilder(model.schema)(samples[:2])
    times = [graph.fields[name]["time"][graph.batch[name] == 1] for name in model.schema.nodes]
    index = graph.edge_index["video_frame", "during", "video_sound"]
    inside = index[:, graph.batch["video_frame"][index[0]] == 1]
    overlapping = sum(
        float(min(a[1], b[1])) > float(max(a[0], b[0])) for a in times[0].tolist() for b in times[1].tolist()
    )
    assert inside.shape[1] == overlapping > 0


def test_a_manifest_with_tables_is_fitted_to_its_training_rows_saved_and_evaluated(tmp_path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(32):
        label, split = ("red", "blue")[i % 2], ("train", "train", "valid", "test")[i // 8]
        cells = {"size": float(rng.normal((5.0, 9.0)[i % 2])), "sex": "fm"[i // 2 % 2], "since": f"20{10 + i}-01-01"}
        if i % 5 == 0:
            cells["sex"] = None
        table: dict | list | str = cells
        if i % 3 == 1:
            table = f"{i}.csv"
            (tmp_path / table).write_text(
                ",".join(cells) + "\n" + ",".join("" if value is None else str(value) for value in cells.values())
            )
        elif i % 3 == 2:
            table = [cells]
        rows.append({"id": f"s{i}", "table": table, "label": label, "split": split})
    manifest = read_manifest(write(tmp_path, rows))
    pipeline = Pipeline.for_columns(manifest.columns, cache=tmp_path / "cache")
    settings = TrainingSettings(epochs=15, batch_size=8, lr=1e-2)
    done = run(manifest, tmp_path / "model", pipeline=pipeline, training=settings)
    assert done.scores["test"]["accuracy"] >= 0.75
    model, loaded = load_model(tmp_path / "model")
    assert evaluate_manifest(manifest, model, loaded, "test") == pytest.approx(done.scores["test"])
    [medium] = loaded.media
    kinds = {column.name: column.kind for column in medium.encoder.columns}
    assert kinds == {"size": "number", "sex": "category", "since": "date"}
    sizes = []
    for row in rows[:16]:
        table = row["table"]
        line = (tmp_path / table).read_text().split("\n")[1] if isinstance(table, str) else None
        sizes.append(float(line.split(",")[0]) if line else (table[0] if isinstance(table, list) else table)["size"])
    assert medium.encoder.columns[0].mean == pytest.approx(np.mean(sizes)), "statistics of the training rows alone"
    assert medium.encoder.columns[0].std == pytest.approx(np.std(sizes))
    assert model.schema.nodes["cell"].optional == {"column": 0}


def test_boxes_of_a_manifest_become_nodes_beside_those_of_the_picture(tmp_path) -> None:
    rows = []
    for i in range(12):
        image = Image.new("RGB", (20, 10), "white")
        image.paste(("red", "blue")[i % 2], (10, 0, 20, 10))
        image.save(tmp_path / f"{i}.png")
        row = {"image": f"{i}.png", "label": ("red", "blue")[i % 2], "split": ("train", "train", "test")[i // 4]}
        rows.append(row | ({"boxes": [[10, 0, 20, 10], [0, 0, 20, 10]]} if i % 4 else {}))
    manifest = read_manifest(write(tmp_path, rows))
    encoders = ENCODERS | {"boxes": ImageCrops(ImagePatches(1, 2))}
    pipeline = Pipeline.for_columns(manifest.columns, encoders=encoders)
    done = run(manifest, tmp_path / "model", pipeline=pipeline)
    model, loaded = load_model(tmp_path / "model")
    assert list(model.schema.nodes) == ["region", "object"]
    assert evaluate_manifest(manifest, model, loaded, "test") == pytest.approx(done.scores["test"])
    without, one = encode_rows(loaded, manifest.rows[:2], None, None, "")
    assert set(without.nodes) == {"region"}
    assert one.nodes["object"]["box"].tolist() == [[0.5, 0, 1, 1], [0, 0, 1, 1]]
    assert one.nodes["object"]["x"][0].tolist() == pytest.approx([-1, -1, 1] * 4)
