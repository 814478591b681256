"""A sample is drawn with all its media and edges, whatever is missing, long, odd or unreadable."""

from __future__ import annotations

import json
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hetgraph import pipeline
from hetgraph.encoders import HashWords, ImagePatches, LogMel
from hetgraph.errors import HetgraphError, ManifestError
from hetgraph.kg import read_triples
from hetgraph.manifest import read_manifest
from hetgraph.pipeline import Pipeline
from hetgraph.showing import Bundle, Panel, _chosen, _legend, _spectrogram, _wrapped, draw_panels, show_sample

GRID = np.array([(x / 2, y / 2, x / 2 + 0.5, y / 2 + 0.5) for y in range(2) for x in range(2)])
TIMES = np.array([(0, 0.5), (0.5, 1.0)])
PANELS = {
    "image": Panel("image: a.png", "region", "image", np.full((20, 30, 3), 90, np.uint8), 4, GRID),
    "text": Panel("text", "token", "text", "two words", 2, np.array([(0, 3), (4, 9)])),
    "audio": Panel("audio: a.wav", "frame", "audio", np.sin(np.arange(16_000) / 9).astype(np.float32), 2, TIMES),
    "entity": Panel("2 entities", "entity", "entity", ["cat", "pet"], 2),
    "table": Panel("table: t.csv", "cell", "table", [["a", "b"], ["1", "2"]], 2),
    "video": Panel("video: v.mp4", "clip", "video", None, 2, TIMES),
}
ENCODERS = {"image": ImagePatches(2, 2), "text": HashWords(8), "audio": LogMel(stack=20)}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def drawn(tmp_path: Path, panels: list[Panel], bundles: list[Bundle] | None = None, **options: str) -> np.ndarray:
    return pixels(draw_panels(tmp_path / "p.png", panels, bundles or [], options.get("title", "t"), dpi=40))


@pytest.mark.parametrize("kind", PANELS)
def test_every_medium_leaves_a_mark_alone_and_beside_the_others(tmp_path, kind) -> None:
    empty = drawn(tmp_path, [])
    alone = drawn(tmp_path, [PANELS[kind]])
    assert alone.shape[1] == empty.shape[1] == 512
    assert alone.shape[0] > empty.shape[0]
    everything = drawn(tmp_path, list(PANELS.values()))
    without = drawn(tmp_path, [panel for name, panel in PANELS.items() if name != kind])
    assert everything.shape[0] > without.shape[0]


def test_edges_of_every_relation_are_drawn_in_a_colour_of_their_own(tmp_path) -> None:
    bundles = [Bundle("region", f"r{k}", "token", [(k, 0)]) for k in range(4)]
    pictures = [drawn(tmp_path, [PANELS["image"], PANELS["text"]], bundles[: k + 1]) for k in range(4)]
    for one, more in pairwise(pictures):
        shape = min(len(one), len(more))
        assert (one[:shape] != more[:shape]).any()
    colours = [colour for colour, _ in _legend(bundles)]
    assert len(set(colours)) == 4
    assert [text for _, text in _legend(bundles)] == [f"r{k}: 1 edge" for k in range(4)]


def test_too_many_edges_are_thinned_from_all_over_and_the_legend_says_so() -> None:
    pairs = [(i, j) for i in range(40) for j in range(40)]
    chosen = _chosen(Bundle("a", "near", "a", pairs), 40)
    assert len(chosen) == len(set(chosen)) <= 40
    assert set(chosen) <= {(i, j) for i, j in pairs if i != j}
    assert {i // 10 for i, _ in chosen} == {0, 1, 2, 3}
    few = Bundle("a", "next", "a", [(0, 0), (0, 1), (1, 2)])
    assert _chosen(few, 40) == [(0, 1), (1, 2)]
    all_pairs = Bundle("a", "with", "b", [(0, 0)], True)
    words = [text for _, text in _legend([Bundle("a", "near", "a", pairs), few, all_pairs])]
    assert words == [f"near: 1,560 edges ({len(chosen)} drawn)", "next: 2 edges", "all pairs of 1 kind (a few drawn)"]


def test_long_texts_are_wrapped_and_cut_with_a_word_about_the_rest() -> None:
    text = "word " * 700
    spans = np.array([(5 * i, 5 * i + 4) for i in range(700)])
    lines = _wrapped(Panel("text", "token", "text", text, 700, spans))
    assert all(line[k][2] < line[k + 1][2] < 124 for line in lines for k in range(len(line) - 1))
    shown = [node for line in lines for _, node, _ in line if node is not None]
    assert shown == list(range(len(shown)))
    assert lines[-1][-1][0] == f"\u2026 and {700 - len(shown)} more"
    # what no node stands for is written too
    pieces = _wrapped(Panel("text", "token", "text", "a (b) c", 1, np.array([(3, 4)])))[0]
    assert [(text, node) for text, node, _ in pieces] == [("a", None), ("(", None), ("b", 0), (")", None), ("c", None)]


def test_odd_signs_many_nodes_and_strange_shapes_are_drawn_without_a_warning(tmp_path) -> None:
    odd = "$x^2 日本 \U0001f642 \x00 cafe\u0301 " + "_" * 300
    shapes = [(2, 900), (900, 2), (1, 1), (50, 60)]
    panels = [Panel(odd, f"p{i}", "image", np.zeros((*s, 3), np.uint8), 4, GRID) for i, s in enumerate(shapes)]
    panels += [
        Panel("p", "many", "image", np.zeros((9, 9, 3), np.uint8), 2000, np.tile(GRID, (500, 1))),
        Panel(odd, "token", "text", odd, 1, np.array([(0, len(odd))])),
        Panel(odd, "bare", "text", odd, 3, None),
        Panel(odd, "entity", "entity", [odd] * 200, 200),
        Panel(odd, "s", "audio", np.zeros(1, np.float32), 1, np.array([(0, 0.025)])),
        Panel(odd, "l", "audio", np.zeros(16_000 * 90, np.float32), 9000, None),
        Panel(odd, "cell", "table", [[odd] * 30] * 30, 900),
        Panel(odd, "row", "table", [[]], 1),
        Panel(odd, "gone", "none", None, 0),
    ]
    bundles = [
        Bundle("token", "r", "entity", [(0, i) for i in range(200)]),
        Bundle("many", "w", "l", [(1, 8999)], True),
    ]
    picture = drawn(tmp_path, panels, bundles, title=odd * 3)
    assert picture.shape[1] == 512


def test_an_edge_without_its_nodes_is_refused_and_writes_nothing(tmp_path) -> None:
    for bundle in (Bundle("token", "r", "smell", [(0, 0)]), Bundle("token", "r", "token", [(0, 2)])):
        with pytest.raises(HetgraphError, match="no such node is drawn"):
            draw_panels(tmp_path / "p.png", [PANELS["text"]], [bundle], "t")
    assert not list(tmp_path.iterdir())


def test_the_spectrogram_has_its_ridge_where_the_tone_is() -> None:
    for hertz in (500, 2000, 6000):
        tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
        found = _spectrogram(tone)
        assert set(found.argmax(0) * 16_000 / 512) == {hertz}
        assert found.max() == pytest.approx(0)
    assert _spectrogram(np.zeros(16_000 * 60)).shape[1] <= 1201


@pytest.fixture
def manifest(tmp_path) -> Path:
    Image.new("RGB", (16, 8), "red").save(tmp_path / "a.png")
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes((3000 * np.sin(np.arange(4000))).astype("<i2").tobytes())
    rows = [
        {"id": "all/of it", "image": "a.png", "text": "a cat", "audio:x": "s.wav", "label": "y", "split": "test"},
        {"id": "words", "text": "a cat"},
        {"id": "broken", "image": "gone.png", "text": "a cat", "audio:x": "a.png"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "m.jsonl"


@pytest.mark.parametrize("name", ["all/of it", "words", "broken"])
def test_a_sample_of_a_manifest_is_drawn_whatever_it_lacks(manifest, tmp_path, name) -> None:
    rows = read_manifest(manifest, check_files=False)
    graph = read_triples(
        b'<u:cat> <http://www.w3.org/2000/01/rdf-schema#label> "cat" . <u:cat> <u:is> <u:pet> .', format="ttl"
    )
    reader = Pipeline.for_columns(rows.columns, encoders=ENCODERS, graph=graph)
    path = show_sample(rows, name, reader, tmp_path / "p.png", dpi=40)
    assert (pixels(path) < 100).all(axis=2).sum() > 50


def test_an_unknown_sample_is_refused_with_those_of_a_similar_name(manifest, tmp_path) -> None:
    rows = read_manifest(manifest, check_files=False)
    with pytest.raises(ManifestError, match=r"no sample 'word'; did you mean 'words'\?"):
        show_sample(rows, "word", Pipeline.for_columns(rows.columns, encoders=ENCODERS), tmp_path / "p.png")


def test_show_is_a_command(manifest, tmp_path, typed, monkeypatch) -> None:
    for kind, encoder in ENCODERS.items():
        monkeypatch.setitem(pipeline.DEFAULTS, kind, lambda encoder=encoder: encoder)
    monkeypatch.chdir(tmp_path)
    code, out, err = typed("show", manifest, "--id", "all/of it")
    assert (code, err) == (0, "")
    assert "picture in outputs/show/all_of_it.png" in " ".join(out.split())
    assert pixels(tmp_path / "outputs" / "show" / "all_of_it.png").shape[1] == 1408
    code, out, err = typed("show", manifest, "--id", "nobody")
    assert code == 2
    assert "no sample 'nobody'" in err
