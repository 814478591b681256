"""A sample's graph is drawn whole, whatever is missing, and only onto a file that is complete."""

from __future__ import annotations

import threading
from itertools import product

import numpy as np
import pytest
from PIL import Image

from hetgraph.drawing import draw_sample
from hetgraph.errors import HetgraphError

GREY = np.full((24, 24, 3), 128, dtype=np.uint8)
SOUND = np.sin(np.arange(8000) / 5.0).astype(np.float32)
PARTS = {
    "region": {"picture": GREY, "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]},
    "frame": {"sound": SOUND, "frames": [[0, 0.1], [0.1, 0.2]]},
    "token": {"words": ["what", "colour"]},
    "entity": {"entities": ["red", "blicket"]},
}
EDGES = [(src, 0, "to", dst, 1, 0.1 + 0.1 * k) for k, (src, dst) in enumerate(product(PARTS, PARTS))]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("present", list(product((True, False), repeat=4)))
def test_any_modality_may_be_missing(tmp_path, present) -> None:
    parts = {k: v for kind, on in zip(PARTS, present, strict=True) if on for k, v in PARTS[kind].items()}
    path = draw_sample(tmp_path / "g.png", **parts, edges=EDGES, title="t", dpi=40)
    assert pixels(path).shape == (344, 512, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["g.png"]


@pytest.mark.parametrize("kind", PARTS)
def test_every_modality_leaves_a_mark_of_its_own(tmp_path, kind) -> None:
    none = pixels(draw_sample(tmp_path / "none.png", dpi=40))
    one = pixels(draw_sample(tmp_path / "one.png", **PARTS[kind], dpi=40))
    assert (none != one).any(axis=2).sum() > 100


def test_picture_and_regions_or_sound_and_frames_come_alone_too(tmp_path) -> None:
    for kind in ("region", "frame"):
        for name, value in PARTS[kind].items():
            pixels(draw_sample(tmp_path / "g.png", **{name: value}, edges=EDGES, dpi=40))
    for picture in (GREY[..., 0], GREY / 255.0, np.zeros((5, 400, 3)), np.zeros((400, 5), dtype=np.uint8)):
        pixels(draw_sample(tmp_path / "g.png", picture=picture, dpi=40))


def _drawn(tmp_path, edges, **options) -> np.ndarray:
    parts = {k: v for part in PARTS.values() for k, v in part.items()}
    return pixels(draw_sample(tmp_path / "g.png", **parts, edges=edges, dpi=40, **options))


def test_self_loops_are_left_out_and_only_the_strongest_edges_are_drawn(tmp_path) -> None:
    loop = ("token", 0, "self", "token", 0, 9.0)
    strong, weak = ("region", 0, "sees", "token", 0, 0.9), ("frame", 0, "hears", "entity", 1, 0.1)
    assert np.array_equal(_drawn(tmp_path, [loop]), _drawn(tmp_path, []))
    assert np.array_equal(_drawn(tmp_path, [weak, loop, strong], strongest=1), _drawn(tmp_path, [strong]))
    assert not np.array_equal(_drawn(tmp_path, [weak, strong]), _drawn(tmp_path, [strong]))


def test_a_heavier_edge_is_drawn_with_more_ink(tmp_path) -> None:
    # One edge of weight 1 sets the scale; the other, in a corner of its own, is varied.
    scale = ("token", 0, "a", "entity", 0, 1.0)
    empty = _drawn(tmp_path, [scale, ("region", 0, "b", "region", 1, 0.0)])
    ink = [
        np.abs(_drawn(tmp_path, [scale, ("region", 0, "b", "region", 1, w)]) - empty)[60:230, :220].sum()
        for w in (0.25, 0.5, 1.0)
    ]
    assert 0 < ink[0] < ink[1] < ink[2]


def test_odd_texts_are_drawn_without_a_warning(tmp_path) -> None:
    texts = ["$x^2", "日本", "\U0001f642", "a\nb\tc", "", "_" * 200, "\x00", "cafe\u0301"]
    draw_sample(
        tmp_path / "g.png",
        words=texts * 20,
        entities=texts * 6,
        edges=[("token", 159, texts[k % 8], "entity", k, 0.5) for k in range(48)]
        + [("token", k, f"r{k}", "token", k + 1, 0.5) for k in range(50)],
        title=" ".join(texts * 5),
        answer=" ".join(texts * 5),
        dpi=40,
    )


def test_long_sounds_and_many_nodes_are_drawn(tmp_path) -> None:
    frames = np.stack([np.arange(3000), np.arange(3000) + 1.0], axis=1) / 100
    cells = np.array([(x, y, x + 0.1, y + 0.1) for x in np.arange(0, 1, 0.1) for y in np.arange(0, 1, 0.1)])
    edges = [("frame", k, "with", "region", k % 100, k / 3000) for k in range(3000)]
    draw_sample(tmp_path / "g.png", sound=np.zeros(480_000), frames=frames, boxes=cells, edges=edges, dpi=40)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"picture": np.zeros((4, 4, 4))}, "picture"),
        ({"picture": np.full((4, 4), np.nan)}, "picture"),
        ({"boxes": [[0, 0, 1]]}, "boxes"),
        ({"sound": [[0.0, 1.0]]}, "sound"),
        ({"sound": [np.inf]}, "sound"),
        ({"sound": ["loud"]}, "sound"),
        ({"frames": [0.0, 1.0]}, "frames"),
        ({"rate": 0}, "rate"),
        ({"words": ["a"], "edges": [("token", 0, "r", "smell", 0, 1.0)]}, "smell"),
        ({"words": ["a"], "edges": [("token", 0, "r", "token", 1, 1.0)]}, "1 nodes"),
        ({"words": ["a", "b"], "edges": [("token", -1, "r", "token", 1, 1.0)]}, "2 nodes"),
        ({"words": ["a", "b"], "edges": [("token", 0, "r", "token", 1, np.nan)]}, "weight"),
        ({"words": ["a", "b"], "edges": [("token", 0, "r", "token", 1, -0.1)]}, "weight"),
    ],
)
def test_bad_input_is_refused_by_name_and_writes_nothing(tmp_path, wrong, said) -> None:
    with pytest.raises(HetgraphError, match=said):
        draw_sample(tmp_path / "g.png", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file_and_leaves_no_scraps(tmp_path, monkeypatch) -> None:
    path = tmp_path / "g.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hetgraph.files.os.fsync", full)
    with pytest.raises(HetgraphError, match="No space left"):
        draw_sample(path, words=["a"])
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["g.png"]
    monkeypatch.undo()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HetgraphError, match="file"):
        draw_sample(tmp_path / "file" / "g.png", words=["a"])


def test_same_input_gives_the_same_file_and_threads_do_not_disturb_each_other(tmp_path) -> None:
    parts = {k: v for part in PARTS.values() for k, v in part.items()}

    def draw(name: str) -> None:
        draw_sample(tmp_path / name, **parts, edges=EDGES, dpi=40)

    draw("0.png")
    threads = [threading.Thread(target=draw, args=(f"{k}.png",)) for k in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(tmp_path / f"{k}.png").read_bytes() for k in range(4)} == {(tmp_path / "0.png").read_bytes()}
