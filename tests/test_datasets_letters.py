"""Spelling as vectors."""

from __future__ import annotations

import numpy as np
import pytest

from hetgraph.errors import HetgraphError
from hetgraph.tasks.datasets.letters import LENGTHS, Letters

TEXTS = ["A lion", "Un lion", "El león", "a tree", "an apple tree", "les lions"]


def brute(text: str, texts: list[str], least: int = 2) -> dict[str, float]:
    """Weights of the known runs of letters of a text, by loops."""

    def runs(one: str) -> list[str]:
        padded = " " + one.lower().replace("ó", "o") + " "
        return [padded[i : i + n] for n in LENGTHS for i in range(len(padded) - n + 1)]

    found = {}
    for run in set(runs(text)):
        having = sum(run in runs(other) for other in texts)
        if having >= least:
            found[run] = (1 + np.log(runs(text).count(run))) * np.log(len(texts) / having)
    length = sum(value**2 for value in found.values()) ** 0.5
    return {run: value / length for run, value in found.items()}


def test_products_of_vectors_are_those_of_the_centred_weights() -> None:
    letters = Letters(TEXTS, dim=6)
    weights = [brute(text, TEXTS) for text in TEXTS]
    known = sorted({run for one in weights for run in one})
    assert known == sorted(letters.index)
    rows = np.array([[one.get(run, 0.0) for run in known] for one in weights])
    rows -= rows.mean(0)
    made = letters(TEXTS)
    assert made.dtype == np.float32
    assert np.allclose(made @ made.T, rows @ rows.T, atol=1e-5)


def test_the_same_word_in_two_languages_is_near() -> None:
    made = Letters(TEXTS, dim=3)(["LION!", "lión", "tree", "qq"])
    assert made.shape == (4, 3)
    assert np.array_equal(made[0], made[1])
    assert np.linalg.norm(made[0] - made[1]) < np.linalg.norm(made[0] - made[2])
    assert np.array_equal(made[3], Letters(TEXTS, dim=3)([""])[0])


def test_texts_that_share_nothing_are_refused() -> None:
    with pytest.raises(HetgraphError, match="no run of letters is in 2 of the 2"):
        Letters(["ab", "cd"])
