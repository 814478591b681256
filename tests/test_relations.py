"""Relations between media are what a double loop over the nodes says."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetgraph import EdgeType, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.encoders import HashWords
from hetgraph.relations import dependency_edges, scene_edges, spacy_parser, spatial_edges, word_times

# eighths, so that float32 is exact and sides, angles and overlaps meet their limits
EIGHTH = st.integers(0, 8).map(lambda n: n / 8)


@st.composite
def boxes(draw: st.DrawFn, least: int = 1) -> list[list[float]]:
    one = st.tuples(EIGHTH, EIGHTH, EIGHTH, EIGHTH).map(
        lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
    )
    return draw(st.lists(one, min_size=least, max_size=7))


def area(b: list[float]) -> float:
    return max(b[2] - b[0], 0) * max(b[3] - b[1], 0)


def overlap(a: list[float], b: list[float]) -> tuple[float, float]:
    """Shared area and united area."""
    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return shared, area(a) + area(b) - shared


def relation(a: list[float], b: list[float], aspect: float) -> int:
    """The class of ReGAT from a to b by the words of the paper, with angles in degrees."""

    def holds(inner: list[float], outer: list[float]) -> bool:
        sides = inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]
        return sides and inner != outer

    if holds(a, b):
        return 1
    if holds(b, a):
        return 2
    shared, union = overlap(a, b)
    if union > 0 and shared / union >= 0.5:
        return 3
    dx = (b[0] + b[2] - a[0] - a[2]) / 2 * aspect
    dy = (b[1] + b[3] - a[1] - a[3]) / 2
    if (dx, dy) == (0, 0) or dx**2 + dy**2 > (aspect**2 + 1) / 4:
        return 0
    angle = round(math.degrees(math.atan2(dy, dx)) % 360, 9) % 360
    return 4 + int(angle // 45)


@given(sources=boxes(), targets=boxes(), aspect=st.sampled_from([1.0, 2.0, 0.5]))
def test_the_eleven_spatial_rules_say_what_a_loop_says(sources, targets, aspect) -> None:
    types = [NodeType(name, 1, fields={"box": 4}) for name in ("a", "b")]
    ruled = [
        EdgeType(src, name, dst, rule=rule) for name, rule in rules.spatial(aspect).items() for src, dst in ("ab", "aa")
    ]
    sample = Sample(
        a={"x": torch.zeros(len(sources), 1), "box": torch.tensor(sources)},
        b={"x": torch.zeros(len(targets), 1), "box": torch.tensor(targets)},
    )
    graph = GraphBuilder(Schema(types, ruled))([sample])
    for dst, others in (("b", targets), ("a", sources)):
        expected = {
            (i, j): relation(one, other, aspect)
            for i, one in enumerate(sources)
            for j, other in enumerate(others)
            if dst == "b" or i != j
        }
        found = {
            (i, j): 1 + rules.SPATIAL.index(name)
            for name in rules.SPATIAL
            for i, j in graph.edge_index["a", name, dst].T.tolist()
        }
        assert sum(graph.edge_index["a", name, dst].shape[1] for name in rules.SPATIAL) == len(found), "one each"
        assert found == {pair: kind for pair, kind in expected.items() if kind}


@given(found=boxes(0), aspect=st.sampled_from([1.0, 1.5]))
def test_one_edge_type_with_relations_has_the_edges_of_the_eleven(found, aspect) -> None:
    edges = spatial_edges(torch.tensor(found).reshape(-1, 4), aspect)
    triples = {(i, j, r) for (i, j), r in zip(edges["index"].T.tolist(), edges["relation"].tolist(), strict=True)}
    assert triples == {
        (i, j, kind - 1)
        for i, a in enumerate(found)
        for j, b in enumerate(found)
        if i != j and (kind := relation(a, b, aspect))
    }
    if found:
        key = ("region", "lies", "region")
        schema = Schema([NodeType("region", 1)], [EdgeType(*key, rule=rules.given, relations=rules.SPATIAL)])
        graph = GraphBuilder(schema)([Sample(region=torch.zeros(len(found), 1), edges={key: edges})])
        assert len(graph.edges[key]) == len(triples)


def test_opposite_relations_are_each_other_turned_around() -> None:
    turn = {"inside": "covers", "covers": "inside", "overlaps": "overlaps"}
    for k in range(8):
        turn[rules.SPATIAL[3 + k]] = rules.SPATIAL[3 + (k + 4) % 8]
    edges = spatial_edges(
        torch.tensor([[0.1, 0.1, 0.3, 0.2], [0.5, 0.2, 0.6, 0.5], [0, 0, 1, 1], [0.1, 0.4, 0.2, 0.9]])
    )
    kind = dict(zip(map(tuple, edges["index"].T.tolist()), edges["relation"].tolist(), strict=True))
    assert kind
    for (i, j), k in kind.items():
        assert turn[rules.SPATIAL[k]] == rules.SPATIAL[kind[j, i]]
    # the second box lies to the right of the first and a little lower
    assert rules.SPATIAL[kind[0, 1]] == "east_south"


def test_unknown_boxes_have_no_relation_and_wrong_ones_are_refused() -> None:
    assert spatial_edges(torch.tensor([[0, 0, 1, 1], [math.nan] * 4]))["index"].shape == (2, 0)
    with pytest.raises(HetgraphError, match=r"boxes \[N, 4\], got \[2, 2\]"):
        spatial_edges(torch.zeros(2, 2))
    with pytest.raises(HetgraphError, match="relation must be one of inside, covers"):
        rules.Spatial("beside")
    with pytest.raises(HetgraphError, match="aspect must be a positive number, got 0"):
        rules.Spatial("inside", 0)
    schema = Schema([NodeType("a", 1, {"pos": 2})], [EdgeType("a", "r", "a", rule=rules.Spatial("inside", 1.0, "pos"))])
    with pytest.raises(HetgraphError, match="'a': field 'pos' must be a box"):
        GraphBuilder(schema)([Sample(a={"x": torch.zeros(1, 1), "pos": torch.zeros(1, 2)})])


# ---- time and order ---------------------------------------------------------------------------------------------

TIMES = st.lists(st.tuples(EIGHTH, EIGHTH).map(sorted), min_size=1, max_size=7)


@given(frames=TIMES, words=TIMES, within=st.sampled_from([None, 0, 0.125, 0.5]))
def test_words_and_frames_meet_in_time_as_a_loop_finds(frames, words, within) -> None:
    ruled = {"during": rules.during, "before": rules.before(within), "after": rules.after(within)}
    keys = [
        (src, name, dst) for name in ruled for src, dst in (("frame", "token"), ("token", "frame"), ("token", "token"))
    ]
    schema = Schema(
        [NodeType("frame", 1, optional={"time": 2}), NodeType("token", 1, optional={"time": 2})],
        [EdgeType(*key, rule=ruled[key[1]]) for key in keys],
    )
    times = {"frame": frames, "token": words}
    nodes = {name: {"x": torch.zeros(len(value), 1), "time": torch.tensor(value)} for name, value in times.items()}
    graph = GraphBuilder(schema)([Sample(nodes=nodes)])

    def holds(name: str, a: list[float], b: list[float]) -> bool:
        if name == "during":
            return min(a[1], b[1]) > max(a[0], b[0])
        if name == "after":
            a, b = b, a
        return a[1] <= b[0] and (within is None or b[0] - a[1] <= within)

    for src, name, dst in keys:
        expected = {
            (i, j)
            for i, a in enumerate(times[src])
            for j, b in enumerate(times[dst])
            if (src != dst or i != j) and holds(name, a, b)
        }
        assert {*map(tuple, graph.edge_index[src, name, dst].T.tolist())} == expected


@given(st.integers(0, 9), st.integers(1, 4))
def test_word_order_goes_forth_and_back(count: int, size: int) -> None:
    ruled = {"next": rules.following, "previous": rules.preceding, "near": rules.window(size)}
    schema = Schema(
        [NodeType("token", 1), NodeType("other", 1)], [EdgeType("token", n, "token", rule=r) for n, r in ruled.items()]
    )
    graph = GraphBuilder(schema)([Sample(token=torch.zeros(count, 1), other=torch.zeros(1, 1))])
    pairs = [(i, j) for i in range(count) for j in range(count)]
    for name, holds in (
        ("next", lambda i, j: j == i + 1),
        ("previous", lambda i, j: j == i - 1),
        ("near", lambda i, j: abs(i - j) <= size),
    ):
        found = {*map(tuple, graph.edge_index["token", name, "token"].T.tolist())}
        assert found == {pair for pair in pairs if holds(*pair)}


@pytest.mark.parametrize("within", [-1, "soon", True])
def test_an_impossible_pause_is_refused(within) -> None:
    for make in (rules.before, rules.after):
        with pytest.raises(HetgraphError, match="within must be a number of seconds"):
            make(within)


def test_a_time_that_is_no_interval_is_refused_by_name() -> None:
    schema = Schema([NodeType("a", 1, {"time": 3})], [EdgeType("a", "r", "a", rule=rules.before())])
    with pytest.raises(HetgraphError, match="'a': field 'time' must be an interval"):
        GraphBuilder(schema)([Sample(a={"x": torch.zeros(1, 1), "time": torch.zeros(1, 3)})])


@given(st.data())
def test_nodes_of_a_text_are_spoken_while_the_words_they_touch_are(data) -> None:
    cut = st.tuples(st.integers(0, 12), st.integers(1, 5)).map(lambda p: (p[0], p[0] + p[1]))
    spans = data.draw(st.lists(cut, max_size=6))
    words = [
        (*data.draw(cut), *sorted(data.draw(st.tuples(EIGHTH, EIGHTH)))) for _ in range(data.draw(st.integers(0, 5)))
    ]
    found = word_times(torch.tensor(spans, dtype=torch.float32).reshape(-1, 2), words)
    for (first, last), (start, end) in zip(spans, found.tolist(), strict=True):
        touched = [w for w in words if set(range(first, last)) & set(range(w[0], w[1]))]
        if touched:
            assert (start, end) == (min(w[2] for w in touched), max(w[3] for w in touched))
        else:
            assert math.isnan(start)
            assert math.isnan(end)


# ---- similarity -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3).filter(any), min_size=1, max_size=6),
    st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3).filter(any), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_the_most_similar_within_and_across_modalities_are_those_of_a_loop(images, texts, k) -> None:
    rows = {"image": images, "text": texts}
    keys = [("image", "text"), ("text", "image"), ("image", "image")]
    schema = Schema(
        [NodeType(name, 3) for name in rows], [EdgeType(a, "like", b, rule=rules.similar(k)) for a, b in keys]
    )
    graph = GraphBuilder(schema)([Sample(nodes={name: torch.tensor(v).float() for name, v in rows.items()})])

    def cosine(a: list[int], b: list[int]) -> float:
        return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    for src, dst in keys:
        found = {*map(tuple, graph.edge_index[src, "like", dst].T.tolist())}
        for j, b in enumerate(rows[dst]):
            prices = {i: cosine(a, b) for i, a in enumerate(rows[src]) if src != dst or i != j}
            limit = sorted(prices.values(), reverse=True)[: min(k, len(prices))][-1:] or [2.0]
            for i, price in prices.items():
                # equal up to rounding may fall on either side
                if abs(price - limit[0]) > 1e-5:
                    assert ((i, j) in found) == (price > limit[0])


def test_similarity_across_different_spaces_is_refused_by_name() -> None:
    schema = Schema(
        [NodeType("image", 3), NodeType("text", 2)], [EdgeType("image", "r", "text", rule=rules.similar(1))]
    )
    with pytest.raises(HetgraphError, match="'x' has 3 numbers in 'image', 2 in 'text'"):
        GraphBuilder(schema)([Sample(image=torch.ones(1, 3), text=torch.ones(1, 2))])


# ---- scene graphs and parses ------------------------------------------------------------------------------------


@given(st.data(), boxes(0), boxes(0), st.sampled_from([0.1, 0.5, 1.0]))
def test_facts_of_a_scene_graph_join_the_regions_of_their_objects(data, regions, objects, least) -> None:
    names = ["on", "under", "of"]
    place = st.integers(0, len(objects) - 1) if objects else st.nothing()
    facts = data.draw(st.lists(st.tuples(place, st.sampled_from(names), place), max_size=6)) if objects else []
    edges = scene_edges(torch.tensor(regions).reshape(-1, 4), torch.tensor(objects).reshape(-1, 4), facts, names, least)

    def home(box: list[float]) -> int | None:
        best, found = 0.0, None
        for i, region in enumerate(regions):
            shared, union = overlap(box, region)
            if union > 0 and shared / union > best:
                best, found = shared / union, i
        return found if best >= least else None

    expected = {(home(objects[s]), home(objects[o]), names.index(name)) for s, name, o in facts}
    found = {(i, j, r) for (i, j), r in zip(edges["index"].T.tolist(), edges["relation"].tolist(), strict=True)}
    assert found == {fact for fact in expected if None not in fact}
    assert len(found) == edges["index"].shape[1]


def test_impossible_facts_are_refused_by_name() -> None:
    box = torch.tensor([[0, 0, 1, 1.0]])
    with pytest.raises(HetgraphError, match="relation 'above' is not one of"):
        scene_edges(box, box, [(0, "above", 0)], ["on"])
    with pytest.raises(HetgraphError, match="about object 1 of 1"):
        scene_edges(box, box, [(0, "on", 1)], ["on"])


@dataclass
class Word:
    """What of spaCy's tokens is read."""

    idx: int
    text: str
    dep_: str
    head: Word | None = field(default=None, repr=False)


def parse(text: str, heads: list[int], kinds: list[str]) -> list[Word]:
    words, start = [], 0
    for part, kind in zip(text.split(), kinds, strict=True):
        start = text.index(part, start)
        words.append(Word(start, part, kind))
        start += len(part)
    for word, head in zip(words, heads, strict=True):
        word.head = words[head]
    return words


@given(st.data())
def test_dependencies_join_the_first_nodes_of_words(data) -> None:
    texts = data.draw(st.lists(st.sampled_from(["a", "dog", "runs", "fast"]), min_size=1, max_size=6))
    text = "  ".join(texts)
    heads = [data.draw(st.integers(0, len(texts) - 1)) for _ in texts]
    kinds = [data.draw(st.sampled_from(["nsubj", "obj"])) for _ in texts]
    # a node for every one or two letters, some left out
    spans, owner = [], []
    for w, word in enumerate(parse(text, heads, kinds)):
        for start in range(0, len(word.text), 2):
            if data.draw(st.booleans()):
                spans.append((word.idx + start, word.idx + min(start + 2, len(word.text))))
                owner.append(w)
    span = torch.tensor(spans, dtype=torch.float32).reshape(-1, 2)
    edges = dependency_edges(text, span, lambda t: parse(t, heads, kinds), ["obj", "nsubj"])
    expected = {
        (owner.index(heads[w]), owner.index(w), ["obj", "nsubj"].index(kinds[w]))
        for w in range(len(texts))
        if w in owner and heads[w] in owner and heads[w] != w
    }
    found = {(i, j, r) for (i, j), r in zip(edges["index"].T.tolist(), edges["relation"].tolist(), strict=True)}
    assert found == expected
    assert set(dependency_edges(text, span, lambda t: parse(t, heads, kinds))) == {"index"}


def test_an_unknown_dependency_is_refused_by_name() -> None:
    with pytest.raises(HetgraphError, match="dependency 'nsubj' of 'a'"):
        dependency_edges("a b", torch.tensor([[0, 1], [2, 3]]), lambda t: parse(t, [1, 1], ["nsubj", "ROOT"]), ["obj"])


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed")
def test_without_spacy_the_message_says_how_to_get_it() -> None:
    with pytest.raises(HetgraphError, match="pip install spacy"):
        spacy_parser()


@pytest.mark.skipif(importlib.util.find_spec("en_core_web_sm") is None, reason="spaCy's English model is not installed")
def test_spacy_finds_subject_and_object() -> None:
    text = "The dog sees a cat."
    [nodes] = HashWords(4)([text])
    edges = dependency_edges(text, nodes["span"], spacy_parser())
    assert (2, 1) in set(map(tuple, edges["index"].T.tolist()))
