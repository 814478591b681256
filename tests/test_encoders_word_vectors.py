"""Static word vectors: both formats of the files against what was written, and files that cannot be read."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from hetgraph.encoders import HashWords, WordVectors, words
from hetgraph.errors import HetgraphError, MediaError

RNG = np.random.default_rng(0)
VECTORS = {
    word: RNG.normal(size=6).astype(np.float32) for word in ("the", "cat", "Berlin", "berlin", "don't", "!", "猫")
}


def lines(vectors=VECTORS):
    return [f"{word} {' '.join(repr(float(v)) for v in vector)}" for word, vector in vectors.items()]


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("\n".join(lines()) + "\n")
    return path


@pytest.mark.parametrize("form", ["glove", "word2vec", "windows", "no last newline", "trailing spaces"])
def test_words_have_the_vectors_of_the_file_in_both_formats(tmp_path, form):
    text = "\n".join(lines())
    text = {
        "glove": text + "\n",
        "word2vec": f"{len(VECTORS)} 6\n{text}\n",
        "windows": text.replace("\n", "\r\n") + "\r\n",
        "no last newline": text,
        "trailing spaces": text.replace("\n", " \n") + " \n",
    }[form]
    path = tmp_path / "vectors"
    path.write_bytes(text.encode())
    encoder = WordVectors(path)
    [nodes] = encoder(["The cat, Berlin BERLIN don\u2019t 猫 !"])
    found = ["the", "cat", None, "Berlin", "berlin", "don't", "猫", "!"]
    assert encoder.dim == 6
    for row, word in zip(nodes["x"].numpy(), found, strict=True):
        if word is not None:
            np.testing.assert_array_equal(row, VECTORS[word])
    assert nodes["span"].tolist() == [[a, b] for _, a, b in words("The cat, Berlin BERLIN don\u2019t 猫 !")]


def test_unknown_words_are_hashed_with_the_usual_length_or_zero(glove):
    hashed, zero = WordVectors(glove), WordVectors(glove, unknown="zero")
    [nodes] = hashed(["cat dog dog"])
    assert torch.equal(nodes["x"][1], nodes["x"][2])
    length = np.mean([np.linalg.norm(vector) for vector in VECTORS.values()])
    expected = HashWords(6)(["dog"])[0]["x"][0] * length / 6**0.5
    torch.testing.assert_close(nodes["x"][1], expected, check_dtype=False)
    [nodes] = zero(["cat dog"])
    assert nodes["x"][1].tolist() == [0.0] * 6
    assert (hashed.unknown_words, zero.unknown_words) == (2, 1)


def test_only_so_many_words_are_read_and_no_line_more(tmp_path):
    path = tmp_path / "vectors"
    path.write_text("\n".join([*lines()[:2], "this line is broken"]))
    encoder = WordVectors(path, max_words=2)
    assert encoder([" ".join(VECTORS)])[0]["x"].shape == (7, 6)
    assert encoder.unknown_words == 5
    with pytest.raises(HetgraphError, match="line 3"):
        WordVectors(path, max_words=3)


def test_a_word_with_spaces_and_a_repeated_word_are_kept_apart(tmp_path):
    path = tmp_path / "vectors"
    path.write_text("a 1 2 3\n. . 4 5 6\na 7 8 9\nb 1 1 1\n")
    encoder = WordVectors(path)
    assert encoder(["a b"])[0]["x"].tolist() == [[1, 2, 3], [1, 1, 1]]


def test_many_words_over_several_blocks_are_read(tmp_path):
    path = tmp_path / "vectors"
    path.write_text("".join(f"w{i} {i} {-i}\n" for i in range(20_000)))
    encoder = WordVectors(path)
    assert encoder(["w0 w4095 w4096 w19999"])[0]["x"][:, 0].tolist() == [0, 4095, 4096, 19999]


def test_the_fingerprint_follows_what_was_read_and_not_the_place(glove, tmp_path):
    here = WordVectors(glove)
    copy = shutil.copy(glove, tmp_path / "copy")
    assert WordVectors(copy).fingerprint == here.fingerprint
    assert WordVectors(copy, unknown="zero").fingerprint != here.fingerprint
    with open(copy, "a") as file:
        file.write("more 1 2 3 4 5 6\n")
    assert WordVectors(copy).fingerprint != here.fingerprint
    assert WordVectors(copy, max_words=7).weights == WordVectors(glove, max_words=7).weights


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", ".*got no line"),
        (b"\n\n", ".*got no line"),
        (b"5 300\n", ".*got no line"),
        (b"1 0\n", "line 1: expected vectors of 1 to 4096 numbers, got 0"),
        (b"1 99999999\nx 1\n", "line 1: expected vectors of 1 to 4096 numbers, got 99999999"),
        (b"word\n", "line 1: expected a word and some numbers, got 0"),
        (b"a 1 2\nb 1\n", "line 2: expected a word and 2 numbers, got 1"),
        (b"a 1 2\nb 1 x\n", "line 2: expected a word and 2 numbers: could not convert"),
        (b"a 1 2\nb 1 nan\n", "line 2: expected finite numbers for 'b'"),
        (b"a 1 2\nb 1 inf\n", "line 2: expected finite numbers for 'b'"),
        (b"a 1 2\nb 1 1e99\n", "line 2: expected finite numbers for 'b'"),
        (b"a 1 2\n\xff\xfe 1 2\n", "line 2: expected a word and 2 numbers: 'utf-8' codec"),
        (b"a 1 2\nb" + b" 1" * 200_000, "line 2: (longer than|expected a word and 2 numbers)"),
        (b"x" * 300_000, "line 1: longer than 131072 bytes"),
        (b"\x80\x04\x95cos\nsystem\n", "line 1: expected a word"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_line(tmp_path, data, fault):
    path = tmp_path / "vectors"
    path.write_bytes(data)
    with pytest.raises(HetgraphError, match=f"^word vectors '.*vectors': {fault}"):
        WordVectors(path)


def test_a_missing_file_and_wrong_settings_are_refused(glove, tmp_path):
    with pytest.raises(MediaError, match="gone': no such file"):
        WordVectors(tmp_path / "gone")
    with pytest.raises(HetgraphError, match="unknown must be one of hash, zero, got 'mean'"):
        WordVectors(glove, unknown="mean")
    with pytest.raises(HetgraphError, match="max_words"):
        WordVectors(glove, max_words=0)
    with pytest.raises(HetgraphError, match="expected a path as file, got int"):
        WordVectors(3)
