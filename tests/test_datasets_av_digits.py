"""Audio-visual digits: a small invented folder against loops written out, and the real data if present."""

from __future__ import annotations

import csv
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hetgraph import GraphBuilder
from hetgraph.errors import HetgraphError
from hetgraph.tasks.datasets import VARIABLE, av_digits

RECORDINGS = 14  # of a digit: 0 .. 4 test, 5 .. 9 validation, the rest training
PICTURES = 10
COLUMNS = ("file", "digit", "speaker", "index", "split", "offset", "length")


def recording(digit: int, index: int) -> np.ndarray:
    """A tone of the digit's own pitch; the length says which recording it is."""
    length = 1000 + 100 * index
    wave = np.sin(2 * np.pi * (200 + 100 * digit) * np.arange(length) / 8000)
    return (8000 * wave).astype(np.int16)


def put(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), PICTURES)
    images = rng.integers(1, 256, (len(labels), 28, 28), dtype=np.uint8)
    np.savez(folder / "mnist_5k.npz", images=images, labels=labels)
    rows, sounds, offset = [], [], 0
    for digit in range(10):
        for index in range(RECORDINGS):
            sound = recording(digit, index)
            split = "test" if index < 5 else "train"
            rows.append((f"{digit}_{index}.wav", digit, "x", index, split, offset, len(sound)))
            sounds.append(sound)
            offset += len(sound)
    with open(folder / "fsdd_index.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    # the stored form: first differences of the samples, modulo 2^16, in two bytes
    delta, last = [], 0
    for value in np.concatenate(sounds).tolist():
        delta.append((value - last) % 65536)
        last = value
    low, high = np.array(delta) % 256, np.array(delta) // 256
    np.savez(folder / "fsdd_audio.npz", delta_lo=low.astype(np.uint8), delta_hi=high.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return put(tmp_path_factory.mktemp("av") / "av_digits")


@pytest.fixture(scope="module", autouse=True)
def _small() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(av_digits, "PAIRS", {"train": 6, "valid": 3, "test": 4})
        yield


def whole(cells: torch.Tensor) -> np.ndarray:
    """The picture behind 16 cells of 7 x 7."""
    picture = np.zeros((28, 28), np.float32)
    for i, cell in enumerate(cells.numpy()):
        row, column = divmod(i, 4)
        picture[row * 7 : row * 7 + 7, column * 7 : column * 7 + 7] = cell.reshape(7, 7)
    return picture


def find(folder: Path, cells: torch.Tensor) -> int:
    """Which of the folder's pictures these cells are."""
    with np.load(folder / "mnist_5k.npz") as file:
        same = (np.abs(file["images"] / 255 - whole(cells)) < 1e-6).all((1, 2))
    assert same.sum() == 1
    return int(np.flatnonzero(same)[0])


def length(sample) -> int:
    """Samples of the recording, from the end of its last frame (whole windows of 256, 64 apart)."""
    return round(float(sample.nodes["frame"]["time"][-1, 1]) * 8000)


def test_a_pair_is_a_picture_and_a_recording_of_the_same_digit_in_the_same_part(folder) -> None:
    data = av_digits.digits(folder, noisy=False)
    pictures = {"train": range(7), "valid": range(7, 8), "test": range(8, 10)}
    recordings = {"train": range(10, 14), "valid": range(5, 10), "test": range(5)}
    for part in ("train", "valid", "test"):
        samples = getattr(data, part)
        count = av_digits.PAIRS[part]
        assert Counter(s.target for s in samples) == dict.fromkeys("0123456789", count)
        for sample in samples:
            picture = find(folder, sample.nodes["region"]["x"])
            assert picture // PICTURES == int(sample.target)
            assert picture % PICTURES in pictures[part]
            ends = {(1000 + 100 * i - 256) // 64 * 64 + 256 for i in recordings[part]}
            assert length(sample) in ends
    # the strongest band is where the digit's tone is
    loudest = {s.target: int(s.nodes["frame"]["x"].mean(0).argmax()) for s in data.test}
    bands = [loudest[str(digit)] for digit in range(10)]
    assert bands == sorted(bands)
    assert bands[0] < bands[-1]


def test_no_picture_and_recording_comes_twice_before_all_have_come(folder) -> None:
    data = av_digits.digits(folder, noisy=False, train=7)
    for digit in "0123456789":
        own = [s for s in data.train if s.target == digit]
        assert len({find(folder, s.nodes["region"]["x"]) for s in own}) == 7
        counts = Counter(length(s) for s in own)
        assert sorted(counts.values()) == [1, 2, 2, 2]


def test_the_frames_are_means_over_stretches_of_the_log_mel_spectrum(folder) -> None:
    from hetgraph.encoders import LogMel

    sample = av_digits.digits(folder, noisy=False, train=1).test[0]
    digit = int(sample.target)
    index = next(i for i in range(5) if (1000 + 100 * i - 256) // 64 * 64 + 256 == length(sample))
    sound = recording(digit, index).astype(np.float32) / 32768
    [full] = LogMel(rate=8000, bands=32, window=0.032, hop=0.008)([(sound, 8000)])
    frame, count = sample.nodes["frame"], len(full["x"])
    assert len(frame["x"]) == min(16, count)
    bounds = [round(i * count / len(frame["x"])) for i in range(len(frame["x"]) + 1)]
    for i, (a, b) in enumerate(pairwise(bounds)):
        torch.testing.assert_close(frame["x"][i], full["x"][a:b].mean(0))
        assert frame["time"][i].tolist() == [full["time"][a, 0], full["time"][b - 1, 1]]


def test_the_degraded_set_has_the_same_pairs_with_half_the_pixels_and_as_much_noise_as_voice(folder) -> None:
    clean, noisy = av_digits.clean(folder, seed=3), av_digits.degraded(folder, seed=3)
    assert (clean.name, noisy.name) == ("av_digits_clean", "av_digits")
    for part in ("train", "valid", "test"):
        for a, b in zip(getattr(clean, part), getattr(noisy, part), strict=True):
            assert (a.id, a.target) == (b.id, b.target)
            before, after = whole(a.nodes["region"]["x"]), whole(b.nodes["region"]["x"])
            assert int((after == 0).sum()) == 28 * 28 // 2  # the invented pictures have no black pixel of their own
            np.testing.assert_array_equal(after[after > 0], before[after > 0])
            assert torch.equal(a.nodes["frame"]["time"], b.nodes["frame"]["time"])
            assert not torch.equal(a.nodes["frame"]["x"], b.nodes["frame"]["x"])


def test_the_noise_has_the_power_of_the_voice() -> None:
    sound = recording(3, 80).astype(np.float32) / 32768
    noise = av_digits._disturb(sound, np.random.default_rng(0)) - sound
    assert np.mean(noise**2) / np.mean(sound**2) == pytest.approx(1.0, rel=0.05)
    assert abs(np.corrcoef(noise, sound)[0, 1]) < 0.05


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        x.target == y.target and all(torch.equal(x.nodes[n]["x"], y.nodes[n]["x"]) for n in ("region", "frame"))
        for x, y in zip(a, b, strict=True)
    )


def test_a_seed_gives_the_same_samples_and_another_one_other_pairs_and_noise(folder) -> None:
    one, again, other = (av_digits.degraded(folder, seed=s) for s in (1, 1, 2))
    for part in ("train", "valid", "test"):
        assert same(getattr(one, part), getattr(again, part))
        assert not same(getattr(one, part), getattr(other, part))


def test_the_size_of_the_training_part_changes_no_other_part(folder) -> None:
    one, other = (av_digits.digits(folder, seed=1, train=n) for n in (2, 5))
    assert (len(one.train), len(other.train)) == (20, 50)
    assert same(one.valid, other.valid)
    assert same(one.test, other.test)


def test_samples_fit_the_schema(folder) -> None:
    data = av_digits.degraded(folder)
    graph = GraphBuilder(data.schema)(data.test)
    assert data.modalities == ("region", "frame")
    assert graph.x["region"].shape == (40 * 16, 49)


def edit(folder: Path, tmp_path: Path, column: str, value: str) -> Path:
    """A copy of the folder whose first recording has another value in one column."""
    for name in ("mnist_5k.npz", "fsdd_audio.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    lines = [line.split(",") for line in (folder / "fsdd_index.csv").read_text().splitlines()]
    lines[1][COLUMNS.index(column)] = value
    (tmp_path / "fsdd_index.csv").write_text("\n".join(",".join(line) for line in lines))
    return tmp_path


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("digit", "ten", "'0_0.wav': digit, index, offset and length are whole numbers"),
        ("digit", "11", "'0_0.wav': digit, index, offset and length are whole numbers"),
        ("split", "dev", "'0_0.wav': split is train or test, got 'dev'"),
        ("length", "0", "'0_0.wav': samples 0 .. 0 of"),
        ("offset", "999999999", "'0_0.wav': samples 999999999 .. .* are not there"),
    ],
)
def test_a_wrong_index_is_refused_with_the_recording(folder, tmp_path, column, value, message) -> None:
    with pytest.raises(HetgraphError, match=f"AV digits: .*{message}"):
        av_digits.clean(edit(folder, tmp_path, column, value))


@pytest.mark.parametrize("name", ["mnist_5k.npz", "fsdd_audio.npz", "fsdd_index.csv"])
def test_a_missing_file_is_named(folder, tmp_path, name) -> None:
    edit(folder, tmp_path, "speaker", "y")
    (tmp_path / name).unlink()
    with pytest.raises(HetgraphError, match=f"AV digits: no file .*{name}"):
        av_digits.clean(tmp_path)


def test_arrays_of_another_form_and_digits_without_pictures_are_named(folder, tmp_path) -> None:
    edit(folder, tmp_path, "speaker", "y")
    images, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20) % 5
    np.savez(tmp_path / "mnist_5k.npz", images=images.astype(float), labels=labels)
    with pytest.raises(HetgraphError, match=r"mnist_5k\.npz: images are uint8 \[N, 28, 28\].*got float64"):
        av_digits.clean(tmp_path)
    np.savez(tmp_path / "mnist_5k.npz", images=images, labels=labels)
    with pytest.raises(HetgraphError, match="digit 5 has 0 pictures and 4 recordings in the train part"):
        av_digits.clean(tmp_path)
    np.savez(tmp_path / "fsdd_audio.npz", delta_lo=np.zeros(4, np.uint8), delta_hi=np.zeros(5, np.uint8))
    with pytest.raises(HetgraphError, match=r"fsdd_audio\.npz: delta_lo and delta_hi are uint8"):
        av_digits.clean(tmp_path)


def test_the_real_recordings_are_read_whole() -> None:
    base = Path(os.environ.get(VARIABLE) or Path(__file__).parents[2] / "shared" / "data")
    if not (base / "av_digits" / "fsdd_audio.npz").is_file():
        pytest.skip(f"the audio-visual digits are not here; {VARIABLE} names the folder that holds av_digits/")
    data = av_digits.digits(base / "av_digits", train=2)
    assert {len(s.nodes["region"]["x"]) for s in data.train} == {16}
    assert {len(s.nodes["frame"]["x"]) for s in data.test} <= set(range(14, 17))
    spoken = av_digits._spoken(base / "av_digits")
    # speech starts and ends in near silence: a wrong sum of differences would drift away instead
    ends = np.concatenate([spoken.sound[spoken.offset], spoken.sound[spoken.offset + spoken.length - 1]])
    assert np.abs(ends.astype(float)).mean() < 1000
    assert Counter(spoken.part.tolist()) == {"train": 2400, "valid": 300, "test": 300}
