"""Words and their hashed vectors, and texts that cannot be read."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetgraph.encoders import HashWords, words
from hetgraph.errors import MediaError


def test_words_and_punctuation_with_their_offsets():
    assert words("Don't stop, it's 5.0!") == [
        ("don't", 0, 5),
        ("stop", 6, 10),
        (",", 10, 11),
        ("it's", 12, 16),
        ("5", 17, 18),
        (".", 18, 19),
        ("0", 19, 20),
        ("!", 20, 21),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ÜBER-ich", ["über", "-", "ich"]),
        ("don\u2019t", ["don't"]),
        ("猫が好き。", ["猫が好き", "。"]),
        ("a😀b", ["a", "😀", "b"]),
        ("'quoted'", ["'", "quoted", "'"]),
        ("", []),
    ],
)
def test_words_of_any_script(text, expected):
    assert [word for word, _, _ in words(text)] == expected


@given(st.text())
def test_words_cover_every_visible_character_once_and_in_order(text):
    spans = [(start, end) for _, start, end in words(text)]
    covered = [i for start, end in spans for i in range(start, end)]
    assert covered == sorted(set(covered))
    assert "".join(text[i] for i in covered) == "".join(text.split())


def test_the_same_word_has_the_same_vector_everywhere():
    [one, other] = HashWords()(["The dog sat", "a dog, THE DOG!"])
    assert torch.equal(one["x"][1], other["x"][1])
    assert torch.equal(one["x"][0], other["x"][3])
    assert not torch.equal(one["x"][0], one["x"][1])
    assert other["span"].tolist() == [[0, 1], [2, 5], [5, 6], [7, 10], [11, 14], [14, 15]]


def test_vectors_are_the_same_in_another_process():
    code = "from hetgraph.encoders import HashWords; print(HashWords(5)(['dog'])[0]['x'].tolist())"
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert other.stdout.strip() == str(HashWords(5)(["dog"])[0]["x"].tolist())


def test_vectors_have_mean_zero_and_variance_one_and_are_nearly_orthogonal():
    x = HashWords(256)([" ".join(f"word{i}" for i in range(200))])[0]["x"]
    assert x.mean().abs() < 0.02
    assert x.var().item() == pytest.approx(1.0, abs=0.02)
    cosines = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).T
    off_diagonal = cosines[~torch.eye(200, dtype=torch.bool)]
    assert off_diagonal.std().item() == pytest.approx(256**-0.5, rel=0.1)


def test_a_string_a_file_and_bytes_give_the_same(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("Grüße an dich".encode())
    marked = tmp_path / "marked.txt"
    marked.write_bytes("\ufeffGrüße an dich".encode())
    results = HashWords()(["Grüße an dich", path, path.read_bytes(), marked])
    assert all(torch.equal(nodes["x"], results[0]["x"]) for nodes in results)
    assert all(torch.equal(nodes["span"], results[0]["span"]) for nodes in results)


def test_a_string_is_never_taken_for_a_path(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("hello")
    assert len(HashWords()([str(path)])[0]["x"]) > 1


@pytest.mark.parametrize("text", ["", "  \n\t ", b"", b" ", "\u3000"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(MediaError, match="item 1: text is empty"):
        HashWords()(["a", text])


@pytest.mark.parametrize("data", [b"caf\xe9", b"\xff\xfeh\x00i\x00"])
def test_invalid_utf8_is_refused_by_path(tmp_path, data):
    path = tmp_path / "latin.txt"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"latin\.txt': expected UTF-8 text, got byte 0x.. at \d"):
        HashWords()([path])


def test_a_lone_surrogate_is_refused():
    with pytest.raises(MediaError, match="item 0: expected Unicode text, got a lone surrogate at 1"):
        HashWords()(["a\ud800"])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, fault in ((tmp_path / "gone.txt", "no such file"), (tmp_path, "got a folder")):
        with pytest.raises(MediaError, match=fault):
            HashWords()([path])
