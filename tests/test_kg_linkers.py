"""Linkers of words, vectors, regions and several in a row, each against a loop, NumPy or what can be worked out."""

# ruff: noqa: RUF001 (letters that look like others are what is tested)

from __future__ import annotations

import pickle
import sys
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hetgraph.encoders import HashWords
from hetgraph.kg import (
    AliasLinker,
    ChainLinker,
    DenseLinker,
    KnowledgeError,
    Link,
    RegionLinker,
    TypoLinker,
    load_kg,
    read_triples,
)
from hetgraph.kg.linking import TextLinker, free_of

TURTLE = """
@prefix : <u:> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
:paris rdfs:label "Paris"@en, "Parigi"@it ; :in :france . :hilton rdfs:label "Paris Hilton", "Paris"@en ; :in :usa .
:france rdfs:label "France"@en, "Frankreich"@de ; skos:altLabel "French Republic"@en ; :size "Paris" .
:usa :near :france .
"""


@pytest.fixture(scope="module")
def kg():
    return load_kg(TURTLE.encode(), format="ttl")


def said(text: str, links: list[Link]) -> list[tuple[str, int]]:
    return [(text[link.span[0] : link.span[1]], link.entity) for link in links]


# --- names --------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "ab", "É", "e\u0301", "ß", "北", "京", "!", "'", "👍", "👍🏽", "Ａ"])
NAMES = st.lists(st.tuples(st.lists(WORDS, max_size=4), st.integers(0, 4), st.sampled_from([0.5, 1, 3])), max_size=8)


def brute_force(linker: AliasLinker, rows, text: str, taken=()) -> list[tuple[int, int, int, float]]:
    """Every name at every word, the longest one first; no index of any kind."""
    words, spans = linker.spelling.split(text)
    free = [not any(a < end and b > start for start, end in taken) for a, b in spans]
    known = [(linker.spelling.split(name)[0], entity, prior) for name, entity, prior in rows]
    found, at = [], 0
    while at < len(words):
        fits = [
            len(name)
            for name, *_ in known
            if name and words[at : at + len(name)] == name and all(free[at : at + len(name)])
        ]
        if not fits:
            at += 1
            continue
        end = at + max(fits)
        priors: dict[int, float] = {}
        for name, entity, prior in known:
            if name == words[at:end]:
                priors[entity] = max(prior, priors.get(entity, 0))
        total = sum(priors.values())
        chosen = sorted(((e, p / total) for e, p in priors.items()), key=lambda pair: (-pair[1], pair[0]))
        kept = [pair for pair in chosen if pair[1] >= linker.threshold][: linker.most]
        found += [(at, end, entity, score) for entity, score in kept]
        at = end
    return found


@settings(max_examples=400, deadline=None)
@given(
    NAMES,
    st.lists(WORDS | st.just(" "), max_size=14),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from([None, 1, 2]),
    st.lists(st.tuples(st.integers(0, 10), st.integers(1, 4)), max_size=2),
    st.booleans(),
)
def test_links_are_those_of_brute_force(names, parts, threshold, most, where, accents) -> None:
    rows = [(" ".join(name), entity, prior) for name, entity, prior in names]
    text = "".join(parts)
    taken = [(start, start + length) for start, length in where]
    linker = AliasLinker(rows, threshold=threshold, most=most, accents=accents)
    found = linker.link(text, "word", taken)
    assert [(*link.nodes, link.entity, link.score) for link in found] == brute_force(linker, rows, text, taken)
    spans = linker.spelling.split(text)[1]
    for link in found:
        assert link.span == (spans[link.nodes[0]][0], spans[link.nodes[1] - 1][1])
        assert (link.method, link.type) == ("alias", "word")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=6), st.lists(st.integers(0, 9), max_size=6))
def test_what_is_taken_is_not_free(where, starts) -> None:
    taken = [(a, a + n) for a, n in where if n]
    spans = [(a, a + 2) for a in starts]
    assert free_of(taken, spans) == [not any(a < end and b > start for start, end in taken) for a, b in spans]


def test_unicode_names_are_found_and_spans_fit_the_text_as_it_is_written() -> None:
    names = ["Straße", "café", "Tokyo", "北京大学", "北京", "İstanbul", "👩\u200d💻", "ﬁsh", "Diyarbakır"]
    linker = AliasLinker((name, i) for i, name in enumerate(names))
    text = (
        "STRASSE ＴＯＫＹＯ 我在北京大学、北京 "
        + unicodedata.normalize("NFD", "CAFÉ")
        + " 👩\u200d💻👩 FISH İSTANBUL ISTANBUL"
    )
    expected = [
        "STRASSE",
        "ＴＯＫＹＯ",
        "北京大学",
        "北京",
        unicodedata.normalize("NFD", "CAFÉ"),
        "👩\u200d💻",
        "FISH",
        "İSTANBUL",
    ]
    assert said(text, linker.link(text)) == list(zip(expected, [0, 2, 3, 4, 1, 6, 7, 5], strict=True))
    assert linker.link("DIYARBAKIR istanbul cafe") == []
    loose = AliasLinker(((name, i) for i, name in enumerate(names)), accents=False)
    assert [e for _, e in said("", loose.link("DIYARBAKIR istanbul cafe"))] == [8, 5, 1]


def test_scores_are_shares_of_the_priors_and_ties_go_to_the_lower_number() -> None:
    linker = AliasLinker([("bank", 7, 1), ("Bank", 3, 6), ("BANK", 5, 1), ("bank", 3, 2), ("river", 1)])
    assert linker.lookup(" bank ") == ((3, 0.75), (5, 0.125), (7, 0.125))
    assert [(link.entity, link.score) for link in linker.link("the Bank")] == [(3, 0.75), (5, 0.125), (7, 0.125)]
    assert linker.lookup("river bank") == ()
    assert (len(linker), sorted(linker.names)) == (2, ["bank", "river"])


def test_below_the_threshold_there_is_no_link_nor_one_inside() -> None:
    rows = [("river bank", 0), ("river bank", 1), ("bank", 2), ("river", 3)]
    assert AliasLinker(rows, threshold=0.6).link("a river bank") == []
    assert [link.entity for link in AliasLinker(rows, threshold=0.5).link("a river bank")] == [0, 1]


def test_the_labels_of_a_graph_by_language_and_with_priors(kg) -> None:
    names = {name: kg.entities.index(f"u:{name}") for name in ("paris", "hilton", "france", "usa")}
    text = "Paris, Parigi, Paris Hilton, frankreich, French Republic, usa"
    every = said(text, AliasLinker(kg).link(text))
    assert every == [
        *(("Paris", e) for e in sorted([names["paris"], names["hilton"]])),
        ("Parigi", names["paris"]),
        ("Paris Hilton", names["hilton"]),
        ("frankreich", names["france"]),
        ("French Republic", names["france"]),
    ]
    german = said(text, AliasLinker(kg, languages=["DE", ""]).link(text))
    assert german == [("Paris Hilton", names["hilton"]), ("frankreich", names["france"])]
    assert said(text, AliasLinker(kg, names=True).link(text)) == [*every, ("usa", names["usa"])]
    prior = np.ones(kg.num_entities)
    prior[names["hilton"]] = 4
    assert AliasLinker(kg, prior=prior).lookup("paris") == ((names["hilton"], 0.8), (names["paris"], 0.2))
    triples = AliasLinker(read_triples(TURTLE.encode(), format="ttl")).link(text)
    # read_triples leaves skos:altLabel out
    assert sorted(word for word, _ in said(text, triples)) == sorted(w for w, _ in every if w != "French Republic")
    assert pickle.loads(pickle.dumps(AliasLinker(kg))).link(text) == AliasLinker(kg).link(text)


def test_entities_of_tables_are_found_by_their_names() -> None:
    kg = load_kg(b"head,relation,tail\n/c/en/ice_cream,IsA,/c/en/food\n", format="csv")
    text = "Ice cream is a food"
    assert [w for w, _ in said(text, AliasLinker(kg).link(text))] == ["Ice cream", "food"]
    assert AliasLinker(kg, names=False).link(text) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda kg: AliasLinker([("a", -1)]),
        lambda kg: AliasLinker([("a", 1.5)]),
        lambda kg: AliasLinker([("a", True)]),
        lambda kg: AliasLinker([("a", 0, 0.0)]),
        lambda kg: AliasLinker([("a", 0, float("nan"))]),
        lambda kg: AliasLinker([(3, 0)]),
        lambda kg: AliasLinker([("a", 0)], languages=["en"]),
        lambda kg: AliasLinker([("a", 0)], prior=[1.0]),
        lambda kg: AliasLinker(kg, prior=[1.0]),
        lambda kg: AliasLinker(kg, prior=np.zeros(kg.num_entities)),
        lambda kg: AliasLinker(kg, threshold=1.5),
        lambda kg: AliasLinker(kg, most=0),
        lambda kg: TypoLinker(AliasLinker(kg), similarity=0),
        lambda kg: ChainLinker(),
        lambda kg: DenseLinker(np.ones(3)),
        lambda kg: DenseLinker([[np.nan]]),
        lambda kg: DenseLinker(np.ones((2, 3)), [0]),
        lambda kg: DenseLinker(np.ones((2, 3)), [0, -1]),
        lambda kg: DenseLinker(np.ones((2, 3)), index="faiss"),
        lambda kg: DenseLinker(np.ones((2, 3))).search(np.ones((1, 2))),
        lambda kg: DenseLinker(np.ones((2, 3))).link("text"),
        lambda kg: DenseLinker.of(load_kg(b"<u:a> <u:p> <u:b> .", format="nt"), HashWords(4), names=False),
        lambda kg: RegionLinker(AliasLinker(kg), ["a"]).link([1]),
        lambda kg: RegionLinker(AliasLinker(kg)).link(["a"], [1.0, 1.0]),
        lambda kg: RegionLinker(AliasLinker(kg)).link(["a"], [1.1]),
    ],
)
def test_what_makes_no_sense_is_refused(kg, make) -> None:
    with pytest.raises(KnowledgeError):
        make(kg)


def test_words_are_linked_by_their_numbers() -> None:
    linker = AliasLinker([("New York", 0), ("c++", 1), ("don't", 2)])
    links = linker.link_words(["in", "New", "York", "", "don't", "C++"], type="word")
    assert [(link.nodes, link.entity, link.type, link.span) for link in links] == [
        ((1, 3), 0, "word", None),
        ((4, 5), 2, "word", None),
        ((5, 6), 1, "word", None),
    ]
    assert linker.link_words([]) == []


# --- misspelled names ---------------------------------------------------------------------------------------


def osa(a: str, b: str) -> int:
    """Edits with swaps of neighbours, by the recurrence."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return int(table[-1, -1])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("abcd", min_size=3, max_size=7), min_size=1, max_size=6), st.text("abcd", min_size=1, max_size=8)
)
def test_the_most_similar_name_is_that_of_all_pairs(names, word) -> None:
    pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed: pip install 'hetgraph[link]'")
    linker = TypoLinker(AliasLinker((name, i) for i, name in enumerate(names)), similarity=0.6, shortest=4)
    near = sorted(
        (-(1 - osa(word, name) / max(len(word), len(name))), name)
        for name in names
        if len(name) >= 4 and len(word) >= 4
    )
    found = linker.link(word)
    if not near or -near[0][0] < 0.6 - 1e-9:
        assert found == []
    else:
        assert {link.entity for link in found} == {i for i, name in enumerate(names) if name == near[0][1]}
        assert sum(link.score for link in found) == pytest.approx(-near[0][0])


def test_typos_are_found_where_nothing_else_is() -> None:
    pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed: pip install 'hetgraph[link]'")
    exact = AliasLinker([("elephant", 0), ("polar bear", 1), ("bear", 2), ("cat", 3)])
    typos = TypoLinker(exact)
    text = "An elehpant, a polr bear and a cta near the bear"
    chain = ChainLinker(exact, typos)
    assert said(text, typos.link(text)) == [("elehpant", 0), ("polr bear", 1)]
    # the chain has linked the bears before it comes to typos
    assert [
        (*pair, link.method) for pair, link in zip(said(text, chain.link(text)), chain.link(text), strict=True)
    ] == [
        ("elehpant", 0, "typo"),
        ("bear", 2, "alias"),
        ("bear", 2, "alias"),
    ]
    assert pickle.loads(pickle.dumps(typos)).link(text) == typos.link(text)
    assert TypoLinker(exact, threshold=0.95).link(text) == []


@pytest.mark.parametrize("name", ["rapidfuzz", "usearch"])
def test_a_missing_extra_is_named(monkeypatch, name) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.index", None)
    with pytest.raises(KnowledgeError, match=r"hetgraph\[link\]"):
        TypoLinker(AliasLinker([])) if name == "rapidfuzz" else DenseLinker(np.eye(2), index="usearch")
    assert DenseLinker(np.eye(3), exact_up_to=1).index == ("exact" if name == "usearch" else "usearch")


# --- vectors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 1 << 25])
@pytest.mark.parametrize("k", [1, 4, 100])
def test_dense_search_is_the_argsort_of_numpy(monkeypatch, at_once, k) -> None:
    monkeypatch.setattr("hetgraph.kg.linking_dense.AT_ONCE", at_once)
    generator = np.random.default_rng(0)
    # small whole numbers on the axes' diagonals: many cosines are exactly equal
    vectors = generator.integers(-1, 2, (40, 4)).astype(np.float32)
    vectors[:, 0] = 0
    vectors[(vectors != 0).sum(1) > 1, 1:3] = 0
    queries = np.eye(4, dtype=np.float32)[[1, 2, 3, 1]]
    numbers = generator.permutation(40)
    entities, scores = DenseLinker(vectors, numbers).search(queries, k)
    length = np.linalg.norm(vectors, axis=1)
    cosines = queries @ (vectors / np.where(length > 0, length, 1)[:, None]).T
    by_number = np.argsort(numbers)
    order = by_number[np.argsort(-cosines[:, by_number], axis=1, kind="stable")][:, :k]
    assert np.array_equal(entities.numpy(), numbers[order])
    assert np.allclose(scores.numpy(), np.take_along_axis(cosines, order, 1), atol=1e-6)


def test_an_entity_with_several_vectors_counts_by_its_best() -> None:
    generator = np.random.default_rng(1)
    vectors, numbers = generator.normal(size=(60, 5)), generator.integers(0, 9, 60)
    numbers[:20] = 3
    queries = generator.normal(size=(6, 5))
    entities, scores = DenseLinker(vectors, numbers).search(queries, 4)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    cosines = unit(queries) @ unit(vectors).T
    for row in range(6):
        best = sorted(((cosines[row, numbers == e].max(), e) for e in set(numbers.tolist())), reverse=True)[:4]
        assert entities[row].tolist() == [e for _, e in best]
        assert np.allclose(scores[row], [s for s, _ in best], atol=1e-6)
    everything, _ = DenseLinker(vectors, numbers).search(queries, 50)
    assert everything.shape == (6, len(set(numbers.tolist())))


def test_usearch_finds_what_the_exact_search_finds() -> None:
    pytest.importorskip("usearch", reason="usearch is not installed: pip install 'hetgraph[link]'")
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(2000, 16)).astype(np.float32)
    numbers = np.arange(2000) // 2
    queries = vectors[:200] + 0.3 * generator.normal(size=(200, 16)).astype(np.float32)
    exact, scores = DenseLinker(vectors, numbers).search(queries, 5)
    linker = DenseLinker(vectors, numbers, exact_up_to=100)
    assert linker.index == "usearch"
    found, near = linker.search(queries, 5)
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    assert recall > 0.95
    same = found == exact
    assert torch.allclose(near[same], scores[same], atol=1e-6)
    # one query alone, and the same index again
    again = DenseLinker(vectors, numbers, index="usearch")
    assert all(torch.equal(again.search(queries[i : i + 1], 5)[0][0], found[i]) for i in range(10))
    assert torch.equal(pickle.loads(pickle.dumps(again)).search(queries, 5)[0], found)


def test_words_are_linked_to_the_entities_with_similar_vectors(kg) -> None:
    encoder = HashWords(64)
    linker = DenseLinker.of(kg, encoder, threshold=0.6, longest=2, batch=2)
    text = "republic, a French republic! and hilton"
    france, hilton = (kg.entities.index(f"u:{name}") for name in ("france", "hilton"))
    links = linker.link(text)
    assert [(w, e) for w, e in said(text, links)] == [
        ("republic", france),
        ("French republic", france),
        ("hilton", hilton),
    ]
    assert links[1].score == pytest.approx(1.0)
    for word, link in zip(("republic", "hilton"), links[::2], strict=True):
        label = {"republic": "French Republic", "hilton": "Paris Hilton"}[word]
        a, b = (nodes["x"].mean(0) for nodes in encoder([word, label]))
        assert link.score == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-6)
    assert {link.method for link in links} == {"dense"}
    assert linker.link(text, taken=[(12, 26)]) == [links[0], links[2]]
    assert linker.link("...") == linker.link("") == []


def test_nodes_are_linked_by_their_own_vectors() -> None:
    linker = DenseLinker(np.eye(3), [5, 3, 8], threshold=0.6, most=2)
    links = linker.link_nodes([[0.0, 2.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 1.0]], type="region")
    half = pytest.approx(0.5**0.5)
    assert links == [
        Link(3, 1.0, "dense", "region", (0, 1)),
        Link(5, half, "dense", "region", (3, 4)),
        Link(8, half, "dense", "region", (3, 4)),
    ]
    assert DenseLinker(np.zeros((0, 3))).link_nodes(np.ones((2, 3))) == []


# --- regions and chains -------------------------------------------------------------------------------------


def test_regions_are_linked_by_the_names_of_their_classes() -> None:
    names = AliasLinker([("traffic light", 0), ("dog", 1), ("bark", 2), ("tabby", 3), ("mouse", 4, 3), ("mouse", 5, 1)])
    classes = ["traffic_light", "Dog", "barking, bark", "unicorn", "tabby, tabby cat", "mouse", "handbag"]
    linker = RegionLinker(names, classes, same={"handbag": 9}, threshold=0.3)
    labels = torch.tensor([0, 3, 5, 6, 1, 2])
    links = linker.link(labels, torch.tensor([[0.5], [0.9], [0.8], [1.0], [0.2], [0.4]]))
    assert [(link.nodes, link.entity) for link in links] == [((0, 1), 0), ((2, 3), 4), ((3, 4), 9), ((5, 6), 2)]
    assert [link.score for link in links] == pytest.approx([0.5, 0.6, 1.0, 0.4])
    assert {(link.method, link.type, link.span) for link in links} == {("region", "region", None)}
    assert linker.unknown() == ["unicorn"]
    both = RegionLinker(names, most=None).link(["mouse", None, "tabby"], type="sound")
    assert [(link.type, link.nodes, link.entity) for link in both] == [
        ("sound", (0, 1), 4),
        ("sound", (0, 1), 5),
        ("sound", (2, 3), 3),
    ]
    assert RegionLinker(names, {7: "dog"}).link(np.array([7]))[0].entity == 1


class Fixed(TextLinker):
    """Links what it is told to, unless it is taken."""

    def __init__(self, *links: Link) -> None:
        super().__init__()
        self.links = links

    def link(self, text, type="token", taken=()):
        return [link for link in self.links if free_of(taken, [link.span])[0]]


def test_in_a_chain_the_first_linker_of_a_span_wins() -> None:
    def link(entity: int, score: float, method: str, start: int, end: int) -> Link:
        return Link(entity, score, method, "token", (start, end), (start, end))

    first = Fixed(link(1, 0.5, "a", 4, 6), link(2, 0.2, "a", 8, 9))
    second = Fixed(link(3, 0.9, "b", 5, 7), link(3, 0.9, "b", 8, 9), link(4, 0.7, "b", 0, 2), link(5, 0.8, "b", 0, 2))
    third = Fixed(link(1, 0.6, "c", 4, 6), link(5, 0.8, "c", 0, 2))
    methods = lambda links: [(x.span, x.entity, x.method) for x in links]  # noqa: E731
    assert methods(ChainLinker(first, second, third).link("")) == [
        ((0, 2), 5, "b"),
        ((0, 2), 4, "b"),
        ((4, 6), 1, "a"),
        ((8, 9), 2, "a"),
    ]
    # NIL: the second linker gets what the first is not sure about
    assert methods(ChainLinker(first, second, threshold=0.3).link("", taken=[(0, 1)])) == [
        ((4, 6), 1, "a"),
        ((8, 9), 3, "b"),
    ]
    assert methods(ChainLinker(first, second, third, merge=True).link("")) == [
        ((0, 2), 5, "b"),
        ((0, 2), 4, "b"),
        ((4, 6), 1, "c"),
        ((5, 7), 3, "b"),
        ((8, 9), 3, "b"),
        ((8, 9), 2, "a"),
    ]
