"""Words with times: from the manifest to nodes that are connected with what is heard and seen while they are said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import pairs_of

from hetgraph import GraphBuilder, builders, rules
from hetgraph.encoders import Cached, HashWords, LogMel, TimedWords, encoder_from_config
from hetgraph.errors import HetgraphError, ManifestError, MediaError
from hetgraph.manifest import read_manifest
from hetgraph.pipeline import Pipeline
from hetgraph.workflow import encode_rows

SAID = [
    {"word": "don't", "start": 0.1, "end": 0.3},
    {"word": " stop! ", "start": 0.3, "end": 0.5, "score": 0.9},
    {"word": "go", "start": 0.75, "end": 0.75},
]
times = st.floats(0, 100, width=32).flatmap(lambda a: st.tuples(st.just(a), st.floats(a, 101, width=32)))
spoken = st.lists(
    st.tuples(st.sampled_from(["a", "don't", "well,", "e-mail", "猫", "(x)"]), times), min_size=1, max_size=6
)


def words_of(said) -> list[dict]:
    return [{"word": word, "start": start, "end": end} for word, (start, end) in said]


def test_nodes_are_those_of_the_text_with_the_times_of_their_words() -> None:
    [nodes] = TimedWords(HashWords(4))([SAID])
    [plain] = HashWords(4)(["don't stop! go"])
    assert torch.equal(nodes["x"], plain["x"])
    assert torch.equal(nodes["span"], plain["span"])
    expected = [[0.1, 0.3], [0.3, 0.5], [0.3, 0.5], [0.75, 0.75]]  # the exclamation mark is said with its word
    assert torch.allclose(nodes["time"], torch.tensor(expected))


@given(spoken)
def test_every_word_gives_its_time_to_all_its_nodes(said) -> None:
    encoder = HashWords(3)
    expected = [times for word, times in said for _ in encoder([word])[0]["x"]]
    [nodes] = TimedWords(encoder)([words_of(said)])
    assert torch.equal(nodes["time"], torch.tensor(expected))
    assert torch.equal(nodes["x"], torch.cat([encoder([word])[0]["x"] for word, _ in said]))


def test_a_text_has_no_times_and_the_two_can_be_mixed(tmp_path) -> None:
    encoder = TimedWords(HashWords(4))
    (tmp_path / "a.txt").write_text("read me")
    nodes = encoder(["go", SAID, tmp_path / "a.txt"])
    assert nodes[0]["time"].isnan().all()
    assert [len(one["x"]) for one in nodes] == [1, 4, 2]


def test_what_was_said_at_another_time_is_another_content(tmp_path) -> None:
    cached = Cached(TimedWords(HashWords(4)), tmp_path)
    later = [{**one, "start": one["start"] + 1, "end": one["end"] + 1} for one in SAID]
    first, second = cached([SAID, later])
    assert torch.allclose(second["time"], first["time"] + 1)
    assert cached.misses == 2
    scored = [{**one, "score": 0.1} for one in SAID]
    assert torch.equal(cached([scored])[0]["time"], first["time"])
    assert cached.misses == 2, "what is not read makes no other content"


def test_other_things_are_refused() -> None:
    encoder = TimedWords(HashWords(4))
    for bad in (
        [],
        [{"word": "a"}],
        [{"word": " ", "start": 0, "end": 1}],
        [{"word": "a", "start": 2, "end": 1}],
        ["a"],
    ):
        with pytest.raises(MediaError, match=r"^item 0: expected words as"):
            encoder([bad])
    for inner in (LogMel(), TimedWords(HashWords(4)), None):
        with pytest.raises(HetgraphError, match="expected an encoder of texts"):
            TimedWords(inner)
    assert encoder_from_config(encoder.config()).fingerprint == encoder.fingerprint
    assert TimedWords(HashWords(5)).fingerprint != encoder.fingerprint


# ---- in a manifest ----------------------------------------------------------------------------------------------


def spoken_manifest(folder: Path, suffix: str = ".jsonl") -> Path:
    """A sound of a second with the words of it; a second sample has other sounds, and words in one of them."""
    rng = np.random.default_rng(0)
    for name in ("1", "2", "3"):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    rows = [
        {"id": "a", "audio": "1.wav", "words": SAID, "text": "a remark", "label": "x"},
        {"id": "b", "audio:left": "2.wav", "audio:right": "3.wav", "words:left": SAID[:1], "label": "y"},
    ]
    path = folder / f"m{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(
            "id,audio,words,text,label,audio:left,audio:right,words:left\n"
            "a,1.wav,don't 0.1 0.3| stop! 0.3 0.5|go 0.75 0.75,a remark,x,,,\n"
            "b,,,,y,2.wav,3.wav,don't 0.1 0.3\n"
        )
    return path


ENCODERS = {"audio": LogMel(stack=10), "text": HashWords(4), "words": TimedWords(HashWords(6))}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_words_are_connected_with_what_is_heard_meanwhile(tmp_path, suffix) -> None:
    path = spoken_manifest(tmp_path, ".csv" if suffix == ".csv" else ".jsonl")
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        from pyarrow import parquet

        rows = [json.loads(line) for line in path.read_text().splitlines()]
        parquet.write_table(
            pyarrow.Table.from_pylist([{**rows[1], **rows[0]}, {**rows[0], **rows[1]}]), tmp_path / "m.parquet"
        )
        # a table knows every column in every row: here the media of one row are those of both
        path = tmp_path / "m.parquet"
    manifest = read_manifest(path)
    assert manifest.columns["words"] == manifest.columns["words:left"] == "words"
    pipeline = Pipeline.for_columns(manifest.columns, encoders=ENCODERS)
    assert {medium.column: medium.node for medium in pipeline.media}["words"] == "word"
    keys = pipeline.schema.edges
    during = {(a, b) for a, relation, b in keys if relation == "during"}
    assert during == {("word", "frame"), ("frame", "word"), ("left_word", "left"), ("left", "left_word")}
    assert ("token", "with", "frame") in keys, "a text without times is not said at any time"
    samples = encode_rows(pipeline, manifest.rows, None, None, "all")
    graph = GraphBuilder(pipeline.schema)(samples[:1])
    word, frame = (samples[0].nodes[name]["time"].tolist() for name in ("word", "frame"))
    expected = [(i, j) for i, (a, b) in enumerate(word) for j, (c, d) in enumerate(frame) if max(a, c) < min(b, d)]
    assert expected
    assert pairs_of(graph.edge_index["word", "during", "frame"]) == expected
    assert pairs_of(graph.edge_index["frame", "during", "word"]) == sorted((j, i) for i, j in expected)


def test_damaged_words_are_faults_with_line_and_column(tmp_path) -> None:
    rows = [{"words": SAID}, {"words": [{"word": "a", "start": 1, "end": 0}]}, {"words": "a b c"}, {"words": [3]}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ManifestError, match="3 faults") as caught:
        read_manifest(tmp_path / "m.jsonl")
    for line in (2, 3, 4):
        assert f"line {line}, column words: expected a list of {{" in str(caught.value)
    (tmp_path / "m.csv").write_text("id,words\n1,a 0 1|b 1\n2,a 0 x\n3,\n")
    with pytest.raises(ManifestError, match="3 faults") as caught:
        read_manifest(tmp_path / "m.csv")
    assert "line 4, column words: expected at least one of words, got none" in str(caught.value)


# ---- in a schema ------------------------------------------------------------------------------------------------


def test_types_on_one_clock_are_connected_by_time_and_others_as_before() -> None:
    parts = {"said": ("text", 2), "heard": ("audio", 3), "seen": ("video", 4), "shown": ("image", 5)}
    schema = builders.media(("said", "heard"), ("heard", "seen"), **parts)
    same = {("said", "heard"), ("heard", "said"), ("heard", "seen"), ("seen", "heard")}
    plain = builders.media(**parts)
    assert len(schema.edges) == len(plain.edges)
    for a, relation, b in plain.edges:
        key = (a, "during" if (a, b) in same else relation, b)
        assert schema.edges[key].rule == (rules.during if (a, b) in same else plain.edges[a, relation, b].rule)


@pytest.mark.parametrize("name", ["shown", "nobody"])
def test_only_types_with_times_have_a_clock(name) -> None:
    with pytest.raises(HetgraphError, match=rf"some of \['said'\], got '{name}'"):
        builders.media(("said", name), said=("text", 2), shown=("image", 5))
