"""Computational sequences: equal to plain h5py, aligned as a loop over rows aligns them, damaged ones refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readers import genuine

from hetgraph.errors import HetgraphError
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets import official
from hetgraph.tasks.datasets.official.csd import ComputationalSequence, Rows, align

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'hetgraph[csd]'")
LABELS = "CMU_MOSI_Opinion_Labels.csd"
ROWS = {
    "v1": (np.arange(6, dtype=np.float32).reshape(3, 2), np.array([[0, 1], [1, 2.5], [2.5, 4]], np.float32)),
    "v2": (np.ones((1, 2), np.float32), np.array([[3, 5]], np.float32)),
}


def put(path: Path, rows: dict = ROWS, root: str = "Labels", metadata: bool = True) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group(root)
        for video, (features, intervals) in rows.items():
            own = group.create_group(f"data/{video}")
            own["features"], own["intervals"] = features, intervals
        if metadata:
            group.create_group("metadata")
            for key, value in {"root name": json.dumps(root), "plain": "not JSON"}.items():
                group["metadata"].create_dataset(key, data=[value], dtype=h5py.string_dtype())
    return path


def test_rows_and_metadata_are_those_of_the_file(tmp_path) -> None:
    with ComputationalSequence(put(tmp_path / "a.csd")) as sequence:
        assert (sequence.root, list(sequence), len(sequence)) == ("Labels", ["v1", "v2"], 2)
        for video, (features, intervals) in ROWS.items():
            np.testing.assert_array_equal(sequence[video].features, features)
            np.testing.assert_array_equal(sequence[video].intervals, intervals)
        assert sequence.metadata == {"root name": "Labels", "plain": "not JSON"}
        assert "v3" not in sequence
        with pytest.raises(KeyError, match="v3"):
            sequence["v3"]


def test_a_damaged_video_is_found_when_it_is_asked_for(tmp_path) -> None:
    rows = {"good": ROWS["v1"], "short": (np.ones((2, 2)), np.ones((3, 2)))}
    with ComputationalSequence(put(tmp_path / "a.csd", rows)) as sequence:
        assert len(sequence["good"]) == 3
        with pytest.raises(
            HetgraphError, match=r"video 'short': expected features \[n, d\].*\[2, 2\] and float64 \[3, 2\]"
        ):
            sequence["short"]


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        (np.array([[0, 1], [3, 2.0]]), r"row 1: an interval begins before it ends, got \[3.0, 2.0\]"),
        (np.array([[np.nan, 1], [1, 2.0]]), r"row 0: an interval begins before it ends"),
        (np.array([[b"a", b"b"]] * 2), r"intervals \[n, 2\], got float64 \[2, 1\] and \|S1"),
    ],
)
def test_wrong_intervals_are_refused_with_the_row(tmp_path, intervals, message) -> None:
    path = put(tmp_path / "a.csd", {"v": (np.ones((2, 1)), intervals)})
    with ComputationalSequence(path) as sequence, pytest.raises(HetgraphError, match=message):
        sequence["v"]


def test_other_files_are_refused(tmp_path) -> None:
    with pytest.raises(HetgraphError, match=r"no file .*a\.csd"):
        ComputationalSequence(tmp_path / "a.csd")
    (tmp_path / "a.csd").write_bytes(b"no HDF5")
    with pytest.raises(HetgraphError, match=r"a\.csd cannot be read"):
        ComputationalSequence(tmp_path / "a.csd")
    with pytest.raises(HetgraphError, match="expected a group 'metadata' in 'Labels'"):
        ComputationalSequence(put(tmp_path / "b.csd", metadata=False))
    with h5py.File(tmp_path / "c.csd", "w") as file:
        file.create_group("a")
        file.create_group("b")
    with pytest.raises(HetgraphError, match=r"expected one group, the root, got \['a', 'b'\]"):
        ComputationalSequence(tmp_path / "c.csd")
    with h5py.File(put(tmp_path / "d.csd"), "a") as file:
        del file["Labels/data/v1/intervals"]
    with (
        ComputationalSequence(tmp_path / "d.csd") as sequence,
        pytest.raises(HetgraphError, match=r"'v1': .* cannot be read"),
    ):
        sequence["v1"]


# alignment


def overlapping(start: float, end: float, begin: float, stop: float) -> bool:
    """Whether a row shares more than a point with an interval, or lies in it without length."""
    return begin <= start < stop if start == end else max(start, begin) < min(end, stop)


def loop(rows: Rows, targets: np.ndarray) -> tuple[np.ndarray, list[int]]:
    out, counts = [], []
    for begin, stop in targets.tolist():
        inside = []
        for feature, (start, end) in zip(rows.features.tolist(), rows.intervals.tolist(), strict=True):
            if overlapping(start, end, begin, stop):
                inside.append([value if np.isfinite(value) else 0.0 for value in feature])
        out.append(np.mean(inside, 0) if inside else np.zeros(rows.features.shape[1]))
        counts.append(len(inside))
    return np.array(out), counts


numbers = st.integers(0, 12).map(lambda n: n / 2)
intervals = st.lists(st.tuples(numbers, numbers).map(sorted), min_size=1, max_size=6).map(lambda v: np.array(v, float))


@given(targets=intervals, own=intervals, seed=st.integers(0, 99))
def test_alignment_is_the_mean_over_the_rows_that_overlap(targets, own, seed) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(own), 2))
    features[rng.random(features.shape) < 0.1] = -np.inf
    sequences = {"labels": {"v": Rows(np.zeros((len(targets), 1)), targets)}, "audio": {"v": Rows(features, own)}}
    aligned = align(sequences, "labels", "v")
    expected, counts = loop(sequences["audio"]["v"], targets)
    np.testing.assert_allclose(aligned["audio"].features, expected, atol=1e-12)
    assert aligned["audio"].count.tolist() == counts
    assert list(aligned) == ["labels", "audio"]


def test_what_cannot_be_aligned_is_named() -> None:
    rows = Rows(np.array([[b"word"]]), np.array([[0.0, 1.0]]))
    with pytest.raises(HetgraphError, match="no sequence 'x'; there are a"):
        align({"a": {"v": rows}}, "x", "v")
    with pytest.raises(HetgraphError, match="sequence 'b' has no video 'v'"):
        align({"a": {"v": rows}, "b": {}}, "a", "v")
    with pytest.raises(HetgraphError, match=r"'a': features must be numbers to be averaged, got \|S4"):
        align({"a": {"v": rows}}, "a", "v")


# a folder, and the genuine file


def test_a_folder_opens_files_when_they_are_asked_for(tmp_path) -> None:
    put(tmp_path / LABELS)
    (tmp_path / "CMU_MOSI_COVAREP.csd").write_bytes(b"damaged")
    sequences = datasets.open("mosi_csd", tmp_path)
    assert list(sequences) == ["CMU_MOSI_COVAREP", "CMU_MOSI_Opinion_Labels"]
    assert len(sequences["CMU_MOSI_Opinion_Labels"]["v1"]) == 3
    assert sequences["CMU_MOSI_Opinion_Labels"] is sequences["CMU_MOSI_Opinion_Labels"]
    with pytest.raises(HetgraphError, match=r"COVAREP\.csd cannot be read"):
        sequences["CMU_MOSI_COVAREP"]
    sequences.close()
    assert [(f.file, f.fault) for f in official.missing("mosi_csd", tmp_path)] == [
        (LABELS, "size"),
        ("CMU_MOSI_COVAREP.csd", "damaged"),
    ]


def test_the_genuine_labels_are_those_of_plain_h5py(tmp_path) -> None:
    folder = genuine("cmu_mosi")
    sequences = datasets.open("mosi_csd", folder)
    sequence = sequences["CMU_MOSI_Opinion_Labels"]
    with h5py.File(folder / LABELS) as file:
        plain = file["Opinion Segment Labels"]
        assert list(sequence) == list(plain["data"])
        for video in sequence:
            np.testing.assert_array_equal(sequence[video].features, plain["data"][video]["features"][:])
            np.testing.assert_array_equal(sequence[video].intervals, plain["data"][video]["intervals"][:])
        assert sequence.metadata["root name"] == "Opinion Segment Labels"
        assert set(sequence.metadata) == set(plain["metadata"])
    assert sequences.counts() == {"CMU_MOSI_Opinion_Labels": {"videos": 93, "rows": 2199}}
    # the labels on their own intervals: segments follow each other, so that nearly every one is alone in its own
    video = sequence.videos[0]
    aligned = align({"labels": sequence}, "labels", video)["labels"]
    assert aligned.count[0] == 1
    np.testing.assert_allclose(aligned.features[0], sequence[video].features[0])
    sequences.close()
    assert official.missing("mosi_csd", folder) == []


def test_a_truncated_genuine_file_is_reported(tmp_path) -> None:
    whole = (genuine("cmu_mosi") / LABELS).read_bytes()
    (tmp_path / LABELS).write_bytes(whole[: len(whole) // 2])
    [finding] = official.missing("mosi_csd", tmp_path)
    assert finding.fault == "damaged"
    assert LABELS in finding.text
