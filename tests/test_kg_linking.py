"""Linking finds the longest labels, on whole words, whatever the case."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetgraph.kg.linking import Linker
from hetgraph.kg.triples import TripleGraph


def graph_with(labels: list[list[str]]) -> TripleGraph:
    none = np.empty(0, dtype=np.int64)
    names = tuple(f"u:{i}" for i in range(len(labels)))
    return TripleGraph(names, (), none, none, none, {i: found for i, found in enumerate(labels) if found})


def test_longest_label_wins_and_mentions_do_not_overlap() -> None:
    linker = Linker(graph_with([["New York"], ["York"], ["new york city"], ["city hall"]]))
    text = "From York to New  York City Hall, NEW YORK."
    mentions = [(text[a:b], entity) for a, b, entity in linker.link(text)]
    assert mentions == [("York", 1), ("New  York City", 2), ("NEW YORK", 0)]


def test_mentions_are_whole_words_only() -> None:
    linker = Linker(graph_with([["cat"], ["c++"], ["don't"]]))
    assert linker.link("concatenate cats") == []
    text = "a cat, C++ and don't"
    assert [(text[a:b], e) for a, b, e in linker.link(text)] == [("cat", 0), ("C++", 1), ("don't", 2)]


def test_case_and_composition_of_accents_do_not_matter_and_offsets_fit_the_given_text() -> None:
    linker = Linker(graph_with([["Straße"], [unicodedata.normalize("NFC", "café")]]))
    text = "the STRASSE, a " + unicodedata.normalize("NFD", "CAFÉ") + "!"
    assert [text[a:b] for a, b, _ in linker.link(text)] == ["STRASSE", unicodedata.normalize("NFD", "CAFÉ")]


def test_entities_with_the_same_label_all_appear_once_in_the_order_of_the_graph() -> None:
    linker = Linker(graph_with([["bank"], ["river"], ["Bank", "BANK"], ["", "  "]]))
    assert linker.link("a bank") == [(2, 6, 0), (2, 6, 2)]
    assert linker.link("") == linker.link("nothing") == []
    assert linker.link_words(["the", "River", "Bank"]) == [(1, 2, 1), (2, 3, 0), (2, 3, 2)]


WORDS = st.sampled_from(["a", "b", "C", "ab"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=6), st.lists(WORDS, max_size=10))
def test_links_equal_a_leftmost_longest_regular_expression(labels, words) -> None:
    names = [" ".join(label) for label in labels]
    text = "  ".join(words)
    distinct = sorted({name.lower() for name in names}, key=len, reverse=True)
    expected = []
    if distinct:
        either = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in distinct)
        for match in re.finditer(rf"\b(?:{either})\b", text, re.IGNORECASE):
            said = " ".join(match.group().lower().split())
            expected += [(*match.span(), i) for i, name in enumerate(names) if name.lower() == said]
    assert Linker(graph_with([[name] for name in names])).link(text) == expected


@pytest.mark.parametrize("text", ["x" * 200_000, "a " * 100_000, "\u0301" * 100_000, ". " * 100_000])
def test_long_texts_are_linked_in_linear_time(text) -> None:
    Linker(graph_with([["a b c d e f g h"], ["a a"]])).link(text)
