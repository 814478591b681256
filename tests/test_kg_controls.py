"""Graphs that say nothing: what they keep of the graph they stand against, and that they differ from it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetgraph.kg import KnowledgeError, KnowledgeGraph, load_kg, permute_relations, permute_tails, random_arcs

NAMES = [f"e{i}" for i in range(12)]
RELATIONS = ["likes", "near", "part of"]


@st.composite
def graphs(draw: st.DrawFn) -> KnowledgeGraph:
    """Sparse ones: of 12 * 3 * 12 possible arcs at most 60."""
    one = st.tuples(st.integers(0, 11), st.integers(0, 2), st.integers(0, 11))
    arcs = draw(st.lists(one, max_size=60))
    heads, kinds, tails = ([arc[i] for arc in arcs] for i in range(3))
    integers = [np.array(part, np.int64) for part in (heads, kinds, tails)]
    return KnowledgeGraph.from_arcs(*integers, NAMES, RELATIONS)


def pairs(kg: KnowledgeGraph) -> Counter[tuple[str, str]]:
    return Counter((head, tail) for head, _, tail in kg.arcs())


def incoming(kg: KnowledgeGraph) -> set[tuple[str, str, str]]:
    found = set()
    for tail in range(kg.num_entities):
        for row in range(kg.into.offsets[tail], kg.into.offsets[tail + 1]):
            head, kind = kg.into.nodes[row], kg.into.types[row]
            found.add((kg.entities[int(head)], kg.relations[int(kind)], kg.entities[tail]))
    return found


@given(graphs(), st.integers(0, 5))
def test_permuted_relations_keep_who_is_connected(kg: KnowledgeGraph, seed: int) -> None:
    other = permute_relations(kg, seed)
    assert pairs(other) == pairs(kg)
    assert other.relation_counts() == kg.relation_counts()
    assert incoming(other) == set(other.arcs())
    assert len(set(other.arcs())) == len(other) == len(kg)
    assert list(permute_relations(kg, seed).arcs()) == list(other.arcs())


@given(graphs(), st.integers(0, 5))
def test_permuted_tails_keep_how_often_an_entity_is_at_which_end(kg: KnowledgeGraph, seed: int) -> None:
    other = permute_tails(kg, seed)
    for end in (0, 2):
        ends = [Counter((arc[end], arc[1]) for arc in graph.arcs()) for graph in (kg, other)]
        assert ends[0] == ends[1]
    assert incoming(other) == set(other.arcs())
    assert len(set(other.arcs())) == len(other) == len(kg)


@given(graphs(), st.integers(0, 5))
def test_random_arcs_keep_how_many_there_are_of_a_relation(kg: KnowledgeGraph, seed: int) -> None:
    connected = np.flatnonzero(kg.degree())
    other = random_arcs(kg, seed)
    assert other.relation_counts() == kg.relation_counts()
    assert incoming(other) == set(other.arcs())
    assert len(other) == len(kg)
    assert set(np.flatnonzero(other.degree())) <= set(connected)
    assert list(random_arcs(kg, seed).arcs()) == list(other.arcs())


def test_names_labels_and_numbers_stay() -> None:
    lines = [f'<urn:{i}> <http://www.w3.org/2000/01/rdf-schema#label> "{i}" .' for i in range(30)]
    lines += [f"<urn:{i}> <urn:r{i % 3}> <urn:{(7 * i + 1) % 30}> ." for i in range(30)]
    kg = load_kg("\n".join(lines).encode(), format="nt")
    for other in (permute_relations(kg), permute_tails(kg), random_arcs(kg)):
        assert list(other.entities) == list(kg.entities)
        assert other.labels == kg.labels
        assert set(other.arcs()) != set(kg.arcs())


def test_another_seed_gives_another_graph() -> None:
    rng = np.random.default_rng(0)
    heads, tails = rng.integers(0, 12, (2, 40))
    kg = KnowledgeGraph.from_arcs(heads, rng.integers(0, 3, 40), tails, NAMES, RELATIONS)
    assert set(permute_relations(kg, 0).arcs()) != set(permute_relations(kg, 1).arcs())
    assert set(permute_tails(kg, 0).arcs()) != set(permute_tails(kg, 1).arcs())
    assert set(random_arcs(kg, 0).arcs()) != set(random_arcs(kg, 1).arcs())


def test_what_cannot_be_drawn_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, kinds, tails = (np.arange(8) >> shift & 1 for shift in range(3))
    kg = KnowledgeGraph.from_arcs(heads, kinds, tails, NAMES[:2], RELATIONS[:2])
    assert set(random_arcs(kg).arcs()) == set(kg.arcs())  # all eight there can be
    monkeypatch.setattr("hetgraph.kg.controls.ATTEMPTS", 1)
    for control in (random_arcs, permute_relations, permute_tails):
        with pytest.raises(KnowledgeError, match=r"8 .*different"):
            [control(kg, seed) for seed in range(20)]
