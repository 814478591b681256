"""CMU-MOSI: a small invented folder, every way in which the two files can be wrong, and the real data if present."""

from __future__ import annotations

import csv
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hetgraph import GraphBuilder
from hetgraph.errors import HetgraphError
from hetgraph.tasks.datasets import VARIABLE, data_folder, mosi

COLUMNS = ("utterance_id", "video_id", "segment", "split_bclstm", "label_binary")
WIDTHS = {"text": 4, "audio": 3, "video": 2}
# video -> (part, segments in the order of the file); two of them are not in the order of time
VIDEOS = {"a": ("train", [2, 1, 10]), "b": ("test", [1]), "c": ("train", [1, 2]), "d": ("test", [3, 2, 1])}


def table() -> list[dict[str, str]]:
    rows = []
    for video, (part, segments) in VIDEOS.items():
        for s in segments:
            values = (f"{video}_{s}", video, str(s), part, str((s + len(video)) % 2))
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def arrays() -> dict[str, np.ndarray]:
    """Features in another order than the table's, on different scales."""
    names = sorted((row["utterance_id"] for row in table()), reverse=True)
    rng = np.random.default_rng(0)
    made = {name: rng.normal(7, 3, (len(names), width)).astype(np.float32) for name, width in WIDTHS.items()}
    made["audio"][:, 0] = 5  # a column without spread
    return {"utterance_id": np.array(names), **made}


def put(folder: Path, rows: list[dict[str, str]] | None = None, features: dict[str, np.ndarray] | None = None) -> Path:
    with open(folder / "utterances.csv", "w", newline="", encoding="utf-8") as file:
        rows = table() if rows is None else rows
        out = csv.DictWriter(file, list(rows[0]) if rows else COLUMNS)
        out.writeheader()
        out.writerows(rows)
    np.savez(folder / "features.npz", **(arrays() if features is None else features))
    return folder


def changed(at: int = 0, **values: str) -> list[dict[str, str]]:
    rows = table()
    rows[at] |= values
    return rows


def test_videos_are_samples_with_their_utterances_in_the_order_of_time(tmp_path) -> None:
    data = mosi.load(put(tmp_path))
    assert [s.id for s in data.train] == ["a", "c"]
    assert [s.id for s in data.test] == ["b", "d"]
    labels = {(row["video_id"], int(row["segment"])): int(row["label_binary"]) for row in table()}
    for sample in data.train + data.test:
        segments = sorted(VIDEOS[sample.id][1])
        assert sample.target.tolist() == [labels[sample.id, s] for s in segments]
        for name, width in WIDTHS.items():
            assert sample.nodes[name]["x"].shape == (len(segments), width)
            assert sample.nodes[name]["group"].tolist() == list(range(len(segments)))


def test_features_are_standardised_on_the_training_part_and_clipped(tmp_path) -> None:
    features = arrays()
    features["text"][features["utterance_id"].tolist().index("d_2"), 1] = 1e6
    data = mosi.load(put(tmp_path, features=features))
    place = {name: i for i, name in enumerate(features["utterance_id"].tolist())}
    train = [place[f"{v}_{s}"] for v, (part, segments) in VIDEOS.items() if part == "train" for s in segments]
    for name in WIDTHS:
        mean, std = features[name][train].mean(0), features[name][train].std(0)
        std[std < 1e-6] = 1
        for sample in data.train + data.test:
            for i, s in enumerate(sorted(VIDEOS[sample.id][1])):
                expected = np.clip((features[name][place[f"{sample.id}_{s}"]] - mean) / std, -5, 5)
                np.testing.assert_allclose(sample.nodes[name]["x"][i], expected, rtol=1e-4, atol=1e-4)
    assert data.test[1].nodes["text"]["x"][1, 1] == 5


def test_the_test_part_does_not_change_the_training_features(tmp_path) -> None:
    one = mosi.load(put(tmp_path)).train
    features = arrays()
    held = [name.startswith(("b", "d")) for name in features["utterance_id"].tolist()]
    for name in WIDTHS:
        features[name][held] *= 100
    for a, b in zip(one, mosi.load(put(tmp_path, features=features)).train, strict=True):
        assert all(torch.equal(a.nodes[name]["x"], b.nodes[name]["x"]) for name in WIDTHS)


@pytest.mark.parametrize("names", [("text",), ("video", "audio"), mosi.MODALITIES])
def test_the_schema_joins_neighbours_in_time_and_the_same_utterance(tmp_path, names) -> None:
    data = mosi.load(put(tmp_path), modalities=names, past=1, future=2)
    assert list(data.schema.nodes) == list(names)
    assert {n: data.schema.nodes[n].dim for n in names} == {n: WIDTHS[n] for n in names}
    graph = GraphBuilder(data.schema)(data.train)
    # video a has nodes 0, 1, 2 and video c nodes 3, 4
    for name in names:
        past = {tuple(pair) for pair in graph.edge_index[name, "past", name].T.tolist()}
        future = {tuple(pair) for pair in graph.edge_index[name, "future", name].T.tolist()}
        assert past == {(0, 1), (1, 2), (3, 4)}
        assert future == {(1, 0), (2, 0), (2, 1), (4, 3)}
        for other in set(names) - {name}:
            same = graph.edge_index[name, "same", other].T.tolist()
            assert sorted(same) == [[i, i] for i in range(5)]


BROKEN = {
    "column": (
        [{k: v for k, v in row.items() if k != "segment"} for row in table()],
        r"lacks the columns \['segment'\]",
    ),
    "split": (changed(split_bclstm="dev"), r"split_bclstm is train or test, got \['dev'\]"),
    "twice": (changed(1, utterance_id="a_2"), "utterance 'a_2' is there twice"),
    "label": (changed(label_binary="2"), "'a_2': label_binary is 0 or 1, got '2'"),
    "empty cell": (changed(label_binary=""), "'a_2': label_binary is 0 or 1, got ''"),
    "segment": (changed(segment="first"), "'a_2': segment is a whole number, got 'first'"),
    "both parts": (changed(1, split_bclstm="test"), "'a_1': video 'a' is in both parts"),
    "one part": (table()[:3], r"needs videos in train and test, got \['train'\]"),
    "no rows": ([], r"needs videos in train and test, got \[\]"),
    "unknown": (changed(utterance_id="z_9"), "no features of utterance 'z_9'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_wrong_table_is_refused_with_what_is_wrong(tmp_path, fault) -> None:
    rows, message = BROKEN[fault]
    with pytest.raises(HetgraphError, match=f"CMU-MOSI: .*{message}"):
        mosi.load(put(tmp_path, rows))


def test_a_row_that_breaks_off_is_refused(tmp_path) -> None:
    put(tmp_path)
    path = tmp_path / "utterances.csv"
    path.write_text(path.read_text() + "e_1,e\n")
    with pytest.raises(HetgraphError, match="split_bclstm is train or test"):
        mosi.load(tmp_path)
    path.write_bytes(b"utterance_id\n\xff\n")
    with pytest.raises(HetgraphError, match=r"utterances\.csv cannot be read"):
        mosi.load(tmp_path)


@pytest.mark.parametrize("name", ["text", "audio", "utterance_id"])
def test_missing_arrays_are_named(tmp_path, name) -> None:
    features = {key: value for key, value in arrays().items() if key != name}
    with pytest.raises(HetgraphError, match=rf"features\.npz cannot be read: .*{name}"):
        mosi.load(put(tmp_path, features=features))


def test_arrays_of_another_length_kind_or_with_nan_are_named(tmp_path) -> None:
    good = arrays()
    for bad in (good["audio"][:-1], good["audio"][:, 0], good["audio"].astype(int)):
        with pytest.raises(HetgraphError, match=r"'audio' must hold floats \[9, width\], got "):
            mosi.load(put(tmp_path, features={**good, "audio": bad}))
    good["video"][good["utterance_id"].tolist().index("c_2"), 1] = np.nan
    with pytest.raises(HetgraphError, match="'video' of utterance 'c_2' is not finite"):
        mosi.load(put(tmp_path, features=good))
    assert len(mosi.load(tmp_path, modalities=("text",)).train) == 2


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04 broken off"])
def test_a_damaged_archive_is_named(tmp_path, data) -> None:
    put(tmp_path)
    (tmp_path / "features.npz").write_bytes(data)
    with pytest.raises(HetgraphError, match=r"CMU-MOSI: .*features\.npz cannot be read"):
        mosi.load(tmp_path)


def test_missing_files_folders_and_modalities_are_named(tmp_path, monkeypatch) -> None:
    put(tmp_path)
    for wrong in ((), ("text", "smell")):
        with pytest.raises(HetgraphError, match="modalities are some of"):
            mosi.load(tmp_path, modalities=wrong)
    for name in ("features.npz", "utterances.csv"):
        (tmp_path / name).unlink()
        with pytest.raises(HetgraphError, match=f"CMU-MOSI: no file .*{name}"):
            mosi.load(tmp_path)
    with pytest.raises(HetgraphError, match=r"'cmu_mosi': no folder .*nowhere"):
        mosi.load(tmp_path / "nowhere")
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(HetgraphError, match=f"'cmu_mosi': give its folder, or set {VARIABLE}"):
        mosi.load()


def test_the_folder_is_found_by_the_environment(tmp_path, monkeypatch) -> None:
    (tmp_path / "cmu_mosi").mkdir()
    put(tmp_path / "cmu_mosi")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert data_folder("cmu_mosi") == tmp_path / "cmu_mosi"
    assert len(mosi.load().test) == 2


@pytest.fixture(scope="module")
def real() -> Path:
    base = Path(os.environ.get(VARIABLE) or Path(__file__).parents[2] / "shared" / "data")
    folder = base / "cmu_mosi"
    if not (folder / "features.npz").is_file():
        pytest.skip(f"CMU-MOSI is not here; {VARIABLE} names the folder that holds cmu_mosi/")
    return folder


def test_the_real_data_have_their_published_size(real) -> None:
    data = mosi.load(real)
    assert (len(data.train), len(data.test)) == (62, 31)
    assert sum(len(s.target) for s in data.train) == 1447
    assert sum(len(s.target) for s in data.test) == 752
    assert {name: node.dim for name, node in data.schema.nodes.items()} == {"text": 100, "audio": 73, "video": 100}
    assert not {s.id for s in data.train} & {s.id for s in data.test}


def test_the_real_features_are_standardised_on_training_only_and_in_time_order(real) -> None:
    data = mosi.load(real)
    with np.load(real / "features.npz") as file:
        place = {name: i for i, name in enumerate(file["utterance_id"].tolist())}
        raw = {name: file[name].astype(np.float64) for name in mosi.MODALITIES}
    with open(real / "utterances.csv", newline="", encoding="utf-8") as table_file:
        rows = list(csv.DictReader(table_file))
    train = [place[row["utterance_id"]] for row in rows if row["split_bclstm"] == "train"]
    assert len(train) == 1447
    samples = {s.id: s for s in data.train + data.test}
    started: dict[str, list[float]] = {}
    for name in mosi.MODALITIES:
        mean, std = raw[name][train].mean(0), raw[name][train].std(0)
        std[std == 0] = 1
        expected = np.clip((raw[name] - mean) / std, -5, 5)
        for sample in samples.values():
            own = sorted((r for r in rows if r["video_id"] == sample.id), key=lambda r: int(r["segment"]))
            np.testing.assert_allclose(
                sample.nodes[name]["x"], expected[[place[r["utterance_id"]] for r in own]], rtol=1e-4, atol=1e-5
            )
            assert sample.target.tolist() == [int(r["label_binary"]) for r in own]
            started[sample.id] = [float(r["t_start"]) for r in own]
    # segments are numbered in the order of time, but for four places in two videos
    back = {video: sum(b < a for a, b in pairwise(times)) for video, times in started.items()}
    assert {video: count for video, count in back.items() if count} == {"VbQk4H8hgr0": 1, "d6hH302o4v8": 3}
