"""Data sets by name: what all of them promise, MSRC-v1, MOSI's standard split, Tux Paint and scenes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from readers import write_table

from hetgraph import GraphBuilder
from hetgraph.encoders import HashWords, ImagePatches, LogMel
from hetgraph.errors import HetgraphError
from hetgraph.manifest import read_manifest
from hetgraph.objectives import Classification, Sentiment
from hetgraph.pipeline import Pipeline
from hetgraph.tasks.datasets import (
    DATASETS,
    VARIABLE,
    Dataset,
    load,
    mosi,
    mosi_standard,
    msrc,
    scenes_fusion,
    tuxpaint,
)
from hetgraph.workflow import encode_rows

NAMES = ["mosi_bclstm", "mosi_standard", "av_digits", "av_digits_clean", "msrc_v1", "tuxpaint", "scenes"]
NAMES += ["daquar", "daquar_all", "daquar_recall", "vqa_rad", "vqa_rad_disjoint", "shapes"]
FOLDERS = {"mosi_bclstm": "cmu_mosi", "msrc_v1": "msrc_v1"}


def check(data: Dataset) -> None:
    """What a model may rely on: samples fit the schema, the objective reads all targets, no id is in two parts."""
    parts = [part for part in (data.train, data.valid, data.test) if part is not None]
    ids = [sample.id for part in parts for sample in part]
    assert len(set(ids)) == len(ids)
    builder = GraphBuilder(data.schema)
    for part in parts:
        assert len(builder(part[:8])) == len(part[:8])
        truth = data.objective.encode([s.target for s in part], [str(s.id) for s in part])
        rows = sum(len(s.nodes[data.modalities[0]]["x"]) for s in part) if data.group else len(part)
        assert len(truth) == rows
    assert data.modalities == tuple(data.schema.nodes)


def equal(a: list, b: list) -> bool:
    return [s.id for s in a] == [s.id for s in b] and all(
        x.nodes.keys() == y.nodes.keys() and all(torch.equal(x.nodes[n]["x"], y.nodes[n]["x"]) for n in x.nodes)
        for x, y in zip(a, b, strict=True)
    )


def test_every_data_set_has_a_name_and_unknown_ones_are_refused() -> None:
    assert list(DATASETS) == NAMES
    with pytest.raises(HetgraphError, match=r"unknown data set 'imagenet'; known: mosi_bclstm, .*, shapes"):
        load("imagenet")


def test_the_documentation_lists_every_data_set() -> None:
    text = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert [row for row in rows if row in DATASETS][: len(DATASETS)] == NAMES
    assert all(
        f"**{name}.**" in text for name in NAMES if name not in ("av_digits_clean", "daquar_all", "vqa_rad_disjoint")
    )


@pytest.mark.parametrize("seed", [-1, 1.0, True, "0"])
def test_an_impossible_seed_is_refused(seed) -> None:
    with pytest.raises(HetgraphError, match="'scenes': seed must be a whole number >= 0"):
        load("scenes", seed=seed)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "scenes"])
def test_a_folder_that_is_not_there_is_named(name, tmp_path, monkeypatch) -> None:
    with pytest.raises(HetgraphError, match=r"no folder .*nowhere"):
        load(name, tmp_path / "nowhere")
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(HetgraphError, match=f"give its folder, or set {VARIABLE}"):
        load(name)
    with pytest.raises(HetgraphError, match="no file"):
        load(name, tmp_path)


def test_importing_the_data_sets_imports_no_reader() -> None:
    code = (
        "import sys, hetgraph\n"
        "before = set(sys.modules)\n"
        "import hetgraph.tasks.datasets\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hetgraph.tasks", "hetgraph.tasks.datasets"]


# MSRC-v1


def put_views(folder: Path, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(1, 8), 30))
    arrays = {key: rng.normal(size=(210, 2 + i)).astype(np.float32) for i, key in enumerate(msrc.VIEWS.values())}
    folder.mkdir(exist_ok=True)
    np.savez(folder / "msrc_v1.npz", **{"labels_cvcl": labels, **arrays, **changes})
    return folder


def test_a_fifth_of_every_class_is_known_and_a_third_of_that_validates(tmp_path) -> None:
    data = load("msrc_v1", put_views(tmp_path), seed=5)
    check(data)
    for part, count in (("train", 4), ("valid", 2), ("test", 24)):
        assert Counter(s.target for s in getattr(data, part)) == dict.fromkeys("1234567", count)
    with np.load(tmp_path / "msrc_v1.npz") as file:
        for sample in data.train + data.valid + data.test:
            assert sample.target == str(file["labels_cvcl"][int(sample.id)])
            for view, key in msrc.VIEWS.items():
                np.testing.assert_array_equal(sample.nodes[view]["x"][0], file[key][int(sample.id)])


def test_the_seed_draws_the_split(tmp_path) -> None:
    one, again, other = (load("msrc_v1", put_views(tmp_path), seed=s) for s in (1, 1, 2))
    assert equal(one.train, again.train)
    assert equal(one.test, again.test)
    assert {s.id for s in one.test} != {s.id for s in other.test}


GIST = np.zeros((210, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cvcl_gist512": GIST[:-1]}, r"'cvcl_gist512' must hold finite floats \[210, width\], got float32 \[209, 4\]"),
        ({"cvcl_gist512": GIST.astype(int)}, "'cvcl_gist512' must hold finite floats"),
        ({"cvcl_gist512": GIST + np.nan}, "'cvcl_gist512' must hold finite floats"),
        ({"labels_cvcl": np.zeros(210)}, "labels_cvcl are whole numbers"),
        ({"labels_cvcl": np.arange(210)}, "class 0 has 1 pictures, too few to split"),
    ],
)
def test_wrong_views_are_named(tmp_path, changes, message) -> None:
    with pytest.raises(HetgraphError, match=f"MSRC-v1: .*{message}"):
        load("msrc_v1", put_views(tmp_path, **changes))


# MOSI on its standard split

UTTERANCES = [
    {"utterance_id": "a_1", "fold_standard": "train", "sentiment": "-2.0", "transcript": "IT WAS BAD"},
    {"utterance_id": "a_2", "fold_standard": "train", "sentiment": "1.6", "transcript": "I LOVED IT"},
    {"utterance_id": "b_1", "fold_standard": "valid", "sentiment": "0.0", "transcript": "UM"},
    {"utterance_id": "c_1", "fold_standard": "test", "sentiment": "3.0", "transcript": "GREAT MOVIE REALLY"},
]


def put_utterances(folder: Path, at: int = 0, **changes: str) -> Path:
    rows = [dict(row) for row in UTTERANCES]
    rows[at] |= changes
    write_table(folder / "utterances.csv", rows)
    names = [row["utterance_id"] for row in UTTERANCES[::-1]]
    audio = np.array([[100.0, 7.0], [2.0, 7.0], [3.0, 7.0], [1.0, 7.0]], np.float32)
    np.savez(folder / "features.npz", utterance_id=np.array(names), audio=audio)
    return folder


def test_an_utterance_is_its_words_and_one_audio_node(tmp_path) -> None:
    data = mosi_standard.standard(put_utterances(tmp_path), encoder=HashWords(8))
    check(data)
    assert [[s.id for s in part] for part in (data.train, data.valid, data.test)] == [["a_1", "a_2"], ["b_1"], ["c_1"]]
    assert [s.target.item() for s in data.train + data.test] == pytest.approx([-2.0, 1.6, 3.0])
    # a_1 has 1, a_2 has 3 in the first column: mean 2, deviation 1; c_1 is clipped; the second column never varies
    audio = [s.nodes["audio"]["x"].tolist() for s in data.train + data.valid + data.test]
    assert audio == [[[-1.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]], [[5.0, 0.0]]]
    [words] = HashWords(8)(["great movie really"])
    assert torch.equal(data.test[0].nodes["token"]["x"], words["x"])
    assert data.objective == Sentiment(mean=data.objective.mean, std=data.objective.std)
    assert data.objective.mean == pytest.approx((-0.2,))
    assert data.objective.std == pytest.approx((1.8,))


def test_encoded_transcripts_are_kept(tmp_path) -> None:
    class Counting(HashWords):
        calls = 0

        def encode(self, items):
            self.calls += len(items)
            return super().encode(items)

    folder, encoder = put_utterances(tmp_path), Counting(8)
    one, two = (mosi_standard.standard(folder, cache=tmp_path / "cache", encoder=encoder) for _ in range(2))
    assert encoder.calls == len(UTTERANCES)
    assert equal(one.train + one.test, two.train + two.test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold_standard": "dev"}, "'a_1': fold_standard is one of .*got 'dev'"),
        ({"sentiment": "good"}, "'a_1': sentiment is a number from -3 to 3, got 'good'"),
        ({"sentiment": "3.5"}, "'a_1': sentiment is a number from -3 to 3, got '3.5'"),
        ({"sentiment": "nan"}, "'a_1': sentiment is a number"),
        ({"utterance_id": "a_2"}, "an utterance is there twice"),
        ({"utterance_id": "z"}, "no features of utterance 'z'"),
        ({"at": 2, "fold_standard": "test"}, r"needs utterances in .*found none in \['valid'\]"),
        ({"transcript": " "}, "a_1: text is empty"),
    ],
)
def test_wrong_utterances_are_named(tmp_path, changes, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        mosi_standard.standard(put_utterances(tmp_path, **changes), encoder=HashWords(8))


# Tux Paint


def put_stamps(folder: Path, split: str = "valid") -> Path:
    rows = [
        {"id": "0", "top_category": "animals", "caption_en": "A frog", "split": "train", "group": "0"},
        {"id": "3", "top_category": "food", "caption_en": "A peach", "split": split, "group": "1"},
        {"id": "12", "top_category": "food", "caption_en": "A ripe pear", "split": "test", "group": "2"},
    ]
    for name in ("speech_fr", "effects"):
        (folder / name).mkdir(parents=True)
    write_table(folder / "stamps.csv", rows)
    rng = np.random.default_rng(0)
    np.savez(folder / "images_96.npz", images=rng.integers(0, 256, (3, 6, 6, 3), dtype=np.uint8))
    for name in ("speech_fr/0000.ogg", "speech_fr/0012.ogg", "effects/0012.ogg"):
        soundfile.write(folder / name, rng.uniform(-0.5, 0.5, 3000), 16000, format="OGG", subtype="VORBIS")
    return folder


def encoders() -> dict:
    return {"image": ImagePatches(grid=2, size=3), "text": HashWords(8), "audio": LogMel(stack=10)}


def test_stamps_are_what_a_manifest_of_them_gives(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    folder = put_stamps(tmp_path / "data")
    data = tuxpaint.stamps(folder, cache=tmp_path / "cache", encoders=encoders())
    check(data)
    assert data.objective == Classification(("animals", "food"))
    assert data.modalities == ("region", "token", "speech", "effect")
    manifest = read_manifest(tuxpaint.write_manifest(tmp_path / "raw", folder), target="top_category")
    pipeline = Pipeline.for_columns(manifest.columns, encoders=encoders())
    for part in ("train", "valid", "test"):
        mine, theirs = getattr(data, part), encode_rows(pipeline, manifest.split(part), data.objective, None, part)
        assert [(s.id, s.target) for s in mine] == [(s.id, s.target) for s in theirs]
        assert equal(mine, theirs)
    assert set(data.valid[0].nodes) == {"region", "token"}


def test_a_stamp_in_no_split_is_named(tmp_path) -> None:
    with pytest.raises(HetgraphError, match=r"Tux Paint: stamp 3: split is one of .*got 'dev'"):
        tuxpaint.stamps(put_stamps(tmp_path, "dev"), encoders=encoders())


# Scenes


def test_scenes_have_every_kind_and_answer_equally_often(monkeypatch) -> None:
    monkeypatch.setattr(scenes_fusion, "PER_KIND", {"train": 16, "valid": 16, "test": 16})
    data, again, other = (load("scenes", seed=s) for s in (0, 0, 1))
    check(data)
    assert data.modalities == ("region", "token", "frame", "entity")
    kinds = list(scenes_fusion.QUESTIONS)
    half = len(data.train) // 2
    bare, full = data.train[:half], data.train[half:]
    for part in (bare, full, data.valid, data.test):
        found = Counter((kinds[int(str(s.id).split("-")[1]) % len(kinds)], s.target) for s in part)
        assert {kind for kind, _ in found} == set(scenes_fusion.KINDS)
        assert set(found.values()) == {4}
    node = {"image": "region", "sound": "frame", "knowledge": "entity"}
    for little, much in zip(bare, full, strict=True):
        needs = scenes_fusion.QUESTIONS[kinds[int(str(much.id).split("-")[1]) % len(kinds)]].needs
        assert set(little.nodes) == {"token", *(node[need] for need in needs)}
        assert set(much.nodes) == {"token", *node.values()}
        assert all(torch.equal(little.nodes[name]["x"], much.nodes[name]["x"]) for name in little.nodes)
    assert equal(data.test, again.test)
    assert not equal(data.test, other.test)


@pytest.mark.parametrize("kinds", [(), ("image", "smell")])
def test_unknown_kinds_of_questions_are_refused(kinds) -> None:
    with pytest.raises(HetgraphError, match="kinds of questions are some of"):
        scenes_fusion.scenes(kinds=kinds)


# the real files


@pytest.mark.parametrize(
    ("name", "sizes", "widths"),
    [
        ("mosi_bclstm", (62, None, 31), {"text": 100, "audio": 73, "video": 100}),
        ("msrc_v1", (28, 14, 168), {"colour_moment": 24, "hog": 576, "gist": 512, "lbp": 256, "centrist": 254}),
    ],
)
def test_real_files_have_their_sizes(name, sizes, widths) -> None:
    folder = real(FOLDERS[name])
    data = load(name, folder)
    check(data)
    assert tuple(None if part is None else len(part) for part in (data.train, data.valid, data.test)) == sizes
    assert {node: data.schema.nodes[node].dim for node in data.modalities} == widths


def test_the_real_standard_split_has_its_published_size_and_leaves_the_leaking_features_alone() -> None:
    data = mosi_standard.standard(real("cmu_mosi"), encoder=HashWords(16))
    check(data)
    assert (len(data.train), len(data.valid), len(data.test)) == (1284, 229, 686)
    assert {name: node.dim for name, node in data.schema.nodes.items()} == {"token": 16, "audio": 73}
    videos = [{str(s.id).rpartition("_")[0] for s in part} for part in (data.train, data.valid, data.test)]
    assert not videos[0] & videos[1]
    assert not videos[0] & videos[2]
    # what predicts the mean of the training targets is known to do this on the test part
    truth = data.objective.encode([s.target for s in data.test], [str(s.id) for s in data.test])
    found = data.objective.metrics(torch.zeros(len(truth), 1), truth)
    expected = np.abs(np.array([s.target.item() for s in data.test]) - data.objective.mean[0]).mean()
    assert found["mae"] == pytest.approx(expected, abs=1e-5)


def test_the_bclstm_split_says_why_there_is_no_validation() -> None:
    data = load("mosi_bclstm", real("cmu_mosi"))
    assert data.valid is None
    assert "validation" in data.notes
    assert (data.group, data.standardize) == ("group", False)
    assert equal(data.test, mosi.load(real("cmu_mosi")).test)


def real(name: str) -> Path:
    folder = Path(os.environ.get(VARIABLE) or Path(__file__).parents[2] / "shared" / "data") / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not here; {VARIABLE} names the folder that holds it")
    return folder
