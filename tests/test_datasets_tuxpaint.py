"""Tux Paint stamps as the raw files and the manifest that a user would have."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readers import write_table

from hetgraph.errors import HetgraphError
from hetgraph.manifest import read_manifest
from hetgraph.tasks.datasets import VARIABLE, tuxpaint

ROWS = [
    {"id": "0", "top_category": "animals", "caption_en": "A frog, green", "split": "train", "group": "0", "more": "x"},
    {"id": "3", "top_category": "food", "caption_en": "Une pêche", "split": "valid", "group": "1", "more": ""},
    {"id": "12", "top_category": "food", "caption_en": "A pear", "split": "test", "group": "2", "more": ""},
]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def put(folder: Path, rows: list[dict[str, str]] = ROWS, images: np.ndarray = IMAGES) -> Path:
    for name in ("speech_fr", "effects"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_table(folder / "stamps.csv", rows)
    np.savez(folder / "images_96.npz", images=images)
    for name in ("speech_fr/0000.ogg", "speech_fr/0012.ogg", "effects/0012.ogg"):
        (folder / name).write_bytes(f"sound of {name}".encode())
    return folder


def test_every_stamp_becomes_a_line_with_the_files_it_has(tmp_path) -> None:
    path = tuxpaint.write_manifest(tmp_path / "out", put(tmp_path / "data"))
    assert path == tmp_path / "out" / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sounds = [("audio:speech",), (), ("audio:speech", "audio:effect")]
    for line, row, pixels, has in zip(lines, ROWS, IMAGES, sounds, strict=True):
        assert {key: line[key] for key in ("id", "top_category", "split", "group")} == {
            key: row[key] for key in ("id", "top_category", "split", "group")
        }
        assert line["text"] == row["caption_en"]
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / line["image"])), pixels)
        assert tuple(key for key in line if key.startswith("audio")) == has
        for key in has:
            assert (tmp_path / "out" / line[key]).read_bytes() == (tmp_path / "data" / line[key]).read_bytes()


def test_the_manifest_reader_accepts_it(tmp_path) -> None:
    path = tuxpaint.write_manifest(tmp_path / "out", put(tmp_path / "data"))
    manifest = read_manifest(path, target="top_category")
    assert manifest.columns == {"image": "image", "audio:speech": "audio", "text": "text", "audio:effect": "audio"}
    assert [(row.id, row.label, row.split) for row in manifest.rows] == [
        ("0", "animals", "train"),
        ("3", "food", "valid"),
        ("12", "food", "test"),
    ]


def test_the_folder_is_found_by_the_environment_and_from_the_shell(tmp_path, monkeypatch, capsys) -> None:
    put(tmp_path / "tuxpaint_stamps")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["tuxpaint", "--output", str(tmp_path / "out")])
    tuxpaint.main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "manifest.jsonl")
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl").rows) == 3


def without(name: str) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != name} for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "images", "message"),
    [
        (without("caption_en"), IMAGES, r"lacks the columns \['caption_en'\]"),
        (ROWS, IMAGES[:2], "2 pictures for 3 stamps"),
        (ROWS, IMAGES.astype(float), r"pictures are uint8 \[N, height, width, 3\], got float64"),
        (ROWS, IMAGES[..., 0], r"pictures are uint8 \[N, height, width, 3\]"),
        ([*ROWS[:2], ROWS[1]], IMAGES, "expected a new number as id, got '3'"),
        ([*ROWS[:2], ROWS[2] | {"id": "../x"}], IMAGES, r"expected a new number as id, got '\.\./x'"),
    ],
    ids=["column", "count", "floats", "grey", "twice", "path as id"],
)
def test_files_that_do_not_fit_together_are_refused_and_nothing_is_written(tmp_path, rows, images, message) -> None:
    with pytest.raises(HetgraphError, match=f"Tux Paint: .*{message}"):
        tuxpaint.write_manifest(tmp_path / "out", put(tmp_path / "data", rows, images))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken off", b"no archive"])
def test_damaged_or_missing_files_are_named(tmp_path, data) -> None:
    folder = put(tmp_path / "data")
    (folder / "images_96.npz").write_bytes(data)
    with pytest.raises(HetgraphError, match=r"images_96\.npz cannot be read"):
        tuxpaint.write_manifest(tmp_path / "out", folder)
    np.savez(folder / "images_96.npz", pictures=IMAGES)
    with pytest.raises(HetgraphError, match=r"images_96\.npz cannot be read: .*images"):
        tuxpaint.write_manifest(tmp_path / "out", folder)
    (folder / "images_96.npz").unlink()
    with pytest.raises(HetgraphError, match=r"no file .*images_96\.npz"):
        tuxpaint.write_manifest(tmp_path / "out", folder)
    (folder / "stamps.csv").write_bytes(b"id,top_category,caption_en,split,group\n0,\xff,a,train,0\n")
    with pytest.raises(HetgraphError, match=r"stamps\.csv cannot be read"):
        tuxpaint.write_manifest(tmp_path / "out", folder)
    (folder / "stamps.csv").unlink()
    with pytest.raises(HetgraphError, match=r"no file .*stamps\.csv"):
        tuxpaint.write_manifest(tmp_path / "out", folder)
    assert not (tmp_path / "out").exists()


def test_captions_in_a_language_that_is_not_there(tmp_path) -> None:
    with pytest.raises(HetgraphError, match="no column 'caption_de'"):
        tuxpaint.stamps(put(tmp_path), language="de")


def test_the_manifest_appears_last(tmp_path, monkeypatch) -> None:
    folder, done = put(tmp_path / "data"), []

    def full(path, data, *rest) -> None:
        done.append(Path(path).name)
        if Path(path).suffix == ".ogg":
            raise HetgraphError("could not write")

    monkeypatch.setattr(tuxpaint, "write_atomically", full)
    with pytest.raises(HetgraphError, match="could not write"):
        tuxpaint.write_manifest(tmp_path / "out", folder)
    assert "manifest.jsonl" not in done


@pytest.fixture(scope="module")
def real() -> Path:
    base = Path(os.environ.get(VARIABLE) or Path(__file__).parents[2] / "shared" / "data")
    if not (base / "tuxpaint_stamps" / "stamps.csv").is_file():
        pytest.skip(f"the Tux Paint stamps are not here; {VARIABLE} names the folder that holds tuxpaint_stamps/")
    return base / "tuxpaint_stamps"


def test_the_real_stamps_are_written_bit_for_bit_and_groups_stay_within_a_split(real, tmp_path) -> None:
    path = tuxpaint.write_manifest(tmp_path, real)
    manifest = read_manifest(path, target="top_category")
    assert len(manifest.rows) == 924
    assert Counter(row.split for row in manifest.rows) == {"train": 653, "valid": 86, "test": 185}
    splits: dict[str, set[str | None]] = {}
    for row in manifest.rows:
        splits.setdefault(row.extra["group"], set()).add(row.split)
    assert len(splits) == 707
    assert {len(found) for found in splits.values()} == {1}
    with np.load(real / "images_96.npz") as file:
        images = file["images"]
    for row, pixels in zip(manifest.rows, images, strict=True):
        with Image.open(row.media["image"]) as picture:
            assert np.array_equal(np.asarray(picture), pixels)
    for column, place in (("audio:speech", "speech_fr"), ("audio:effect", "effects")):
        copied = [row.media[column] for row in manifest.rows if column in row.media]
        assert sorted(file.name for file in copied) == sorted(file.name for file in (real / place).glob("*.ogg"))
        assert all(file.read_bytes() == (real / place / file.name).read_bytes() for file in copied)
