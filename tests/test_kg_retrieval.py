"""Subgraphs around seeds: against networkx and linear algebra, one result from both backends and from any order."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetgraph.kg import (
    KHopRetriever,
    KnowledgeError,
    KnowledgeGraph,
    PathRetriever,
    PPRRetriever,
    Rerank,
    SteinerRetriever,
    Subgraph,
    load_kg,
)
from hetgraph.kg.steiner import steiner_tree

ALL = [KHopRetriever(), PPRRetriever(eps=1e-3), PathRetriever(), SteinerRetriever(eps=1e-3)]


def graph_of(pairs, n: int, relations: int = 3) -> KnowledgeGraph:
    """Arcs between numbered entities, with relations that repeat."""
    heads, tails = [a for a, _ in pairs], [b for _, b in pairs]
    kinds = [(a + b) % relations for a, b in pairs]
    return KnowledgeGraph.from_arcs(
        heads, kinds, tails, [f"u:{i:03}" for i in range(n)], [f"r:{i}" for i in range(relations)]
    )


def plain(pairs, n: int) -> nx.Graph:
    out = nx.Graph()
    out.add_nodes_from(range(n))
    out.add_edges_from(pairs)
    return out


N = 14
PAIRS = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), min_size=1, max_size=45)
FEW_PAIRS = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), min_size=1, max_size=24)
SEEDS = st.lists(st.integers(0, N - 1), min_size=1, max_size=4)


def equal(a: Subgraph, b: Subgraph) -> bool:
    names = ("nodes", "edge_index", "edge_type", "score", "seeds")
    return all(
        getattr(a, name).dtype == getattr(b, name).dtype and np.array_equal(getattr(a, name), getattr(b, name))
        for name in names
    )


@settings(max_examples=40, deadline=None)
@given(
    PAIRS,
    SEEDS,
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from(["out", "in", "both"]),
    st.integers(0, 3),
)
def test_both_backends_give_the_same_bits(pairs, seeds, most, hub, direction, hops) -> None:
    graph = graph_of(pairs, N)
    common = {"max_nodes": most, "hub": hub, "direction": direction}
    for retriever in (
        KHopRetriever(hops=hops, **common),
        PPRRetriever(eps=10.0 ** -(1 + hops), **common),
        PathRetriever(length=hops + 1, **common),
        SteinerRetriever(eps=1e-3, hub_cost=hops / 2, **common),
    ):
        one, other = (replace(retriever, backend=name)(graph, seeds) for name in ("numba", "numpy"))
        assert equal(one, other), retriever


@settings(max_examples=40, deadline=None)
@given(PAIRS, SEEDS, st.integers(1, 20), st.randoms(use_true_random=False))
def test_what_every_retriever_promises(pairs, seeds, most, shuffler) -> None:
    graph = graph_of(pairs, N)
    shuffled = list(pairs)
    shuffler.shuffle(shuffled)
    other = graph_of(shuffled + shuffled[:5], N)
    for retriever in ALL:
        found = replace(retriever, max_nodes=most)(graph, seeds)
        distinct = list(dict.fromkeys(seeds))
        assert found.nodes[: len(distinct)].tolist() == distinct
        assert found.seeds.tolist() == list(range(len(distinct)))
        assert len(set(found.nodes.tolist())) == len(found)
        if not isinstance(retriever, SteinerRetriever):
            assert len(found) <= max(most, len(distinct))
            # all arcs between its nodes, and no others
            inside = {graph.entities[i] for i in found.nodes}
            expected = sorted(t for t in graph.arcs() if {t[0], t[2]} <= inside)
            assert sorted(found.triples(graph)) == expected
        assert set(found.triples(graph)) <= set(graph.arcs())
        assert np.isfinite(found.score).all()
        rest = found.score[len(distinct) :]
        assert (np.diff(rest) <= 0).all() or isinstance(retriever, SteinerRetriever)
        assert equal(found, replace(retriever, max_nodes=most)(other, [f"u:{s:03}" for s in seeds]))
        assert found.provenance["retriever"] == type(retriever).__name__


@settings(max_examples=40, deadline=None)
@given(PAIRS, SEEDS, st.integers(0, 3))
def test_hops_are_those_of_networkx(pairs, seeds, hops) -> None:
    graph = graph_of(pairs, N)
    whole = plain(pairs, N)
    far = nx.multi_source_dijkstra_path_length(whole, set(seeds))
    found = KHopRetriever(hops=hops, max_nodes=1000, hub=None)(graph, seeds)
    assert dict(zip(found.nodes.tolist(), found.score.tolist(), strict=True)) == {
        node: 1 / (1 + d) for node, d in far.items() if d <= hops
    }
    directed = nx.DiGraph(pairs)
    directed.add_nodes_from(range(N))
    for direction, along in (("out", directed), ("in", directed.reverse())):
        ball = {m for s in seeds for m in nx.single_source_shortest_path_length(along, s, hops)}
        one_way = KHopRetriever(hops=hops, max_nodes=1000, hub=None, direction=direction)(graph, seeds)
        assert set(one_way.nodes.tolist()) == ball


def test_where_too_many_are_equally_near_more_arcs_win_then_the_lower_number() -> None:
    #  5 has two arcs from the ring, 3 and 4 one each
    graph = graph_of([(0, 4), (0, 3), (0, 5), (5, 1)], 6)
    assert KHopRetriever(hops=1, max_nodes=3)(graph, [0, 1]).nodes.tolist() == [0, 1, 5]
    assert KHopRetriever(hops=1, max_nodes=4)(graph, [0, 1]).nodes.tolist() == [0, 1, 5, 3]
    assert KHopRetriever(hops=1, max_nodes=1)(graph, [1, 0]).nodes.tolist() == [1, 0]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_hub_is_followed_along_few_arcs_spread_evenly(backend) -> None:
    graph = graph_of([(0, i) for i in range(1, 101)], 101, relations=1)
    found = KHopRetriever(hops=2, hub=10, backend=backend)(graph, [0])
    assert sorted(found.nodes.tolist()) == [0, *range(1, 101, 10)]
    # from a leaf through the hub
    assert len(KHopRetriever(hops=2, hub=10, backend=backend)(graph, [50])) == 12
    # a seed that is a hub still finds its neighbours, and many arcs of a hub do not hide those inside
    ranked = PPRRetriever(hub=10, backend=backend)(graph, [0])
    assert len(ranked) == 11
    assert ranked.edge_index.shape[1] == 10
    assert len(PPRRetriever(hub=None, eps=0.5, backend=backend)(graph, [0])) == 1
    long = graph_of([(0, i) for i in range(1, 101)] * 3 + [(0, 0)], 101, relations=1)
    inner = KHopRetriever(hops=1, hub=2, max_nodes=3, backend=backend)(long, [0])
    assert inner.edge_index.shape[1] == len(
        [t for t in long.arcs() if {t[0], t[2]} <= {long.entities[i] for i in inner.nodes}]
    )


def exact_pagerank(pairs, n: int, seeds, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """By solving the linear equations; an entity without arcs keeps what it has."""
    arcs = {(a, b, (a + b) % 3) for a, b in pairs}
    weights = np.zeros((n, n))
    for a, b, _ in arcs:
        weights[a, b] += 1
        weights[b, a] += 1
    degree = weights.sum(1)
    walk = np.where(degree[:, None] > 0, weights / np.maximum(degree, 1)[:, None], np.eye(n))
    start = np.zeros(n)
    start[list(set(seeds))] = 1 / len(set(seeds))
    return np.linalg.solve(np.eye(n) - (1 - alpha) * walk.T, alpha * start), degree


@settings(max_examples=40, deadline=None)
@given(PAIRS, SEEDS, st.floats(0.05, 0.9), st.floats(1e-6, 0.05))
def test_pagerank_is_below_the_exact_one_by_at_most_eps_times_the_degree(pairs, seeds, alpha, eps) -> None:
    exact, degree = exact_pagerank(pairs, N, seeds, alpha)
    nodes, score = PPRRetriever(alpha=alpha, eps=eps, hub=None).scores(graph_of(pairs, N), seeds)
    approximate = np.zeros(N)
    approximate[nodes] = score
    assert (approximate <= exact + 1e-12).all()
    assert (exact - approximate <= eps * degree + 1e-12).all()


def test_the_best_of_a_larger_graph_are_those_of_the_exact_pagerank() -> None:
    generator = np.random.default_rng(0)
    pairs = list(map(tuple, generator.integers(0, 400, (1600, 2)).tolist()))
    graph, seeds = graph_of(pairs, 400), [3, 50, 399]
    nodes, score = PPRRetriever(eps=1e-8, hub=None).scores(graph, seeds)
    exact, degree = exact_pagerank(pairs, 400, seeds, 0.15)
    assert np.abs(exact[nodes] - score).max() <= 1e-8 * degree.max() + 1e-12
    best = np.lexsort((np.arange(400), -exact))[:20]
    found = PPRRetriever(eps=1e-8, hub=None, max_nodes=20)(graph, seeds)
    assert set(found.nodes.tolist()) == set(best.tolist())


@settings(max_examples=30, deadline=None)
@given(FEW_PAIRS, SEEDS, st.integers(1, 3), st.integers(0, 1))
def test_bridges_are_on_the_paths_that_networkx_finds(pairs, seeds, length, slack) -> None:
    graph, whole = graph_of(pairs, N), plain([(a, b) for a, b in pairs if a != b], N)
    expected: dict[int, float] = dict.fromkeys(seeds, 0.0)
    for a, b in combinations(dict.fromkeys(seeds), 2):
        if not nx.has_path(whole, a, b):
            continue
        most = min(length, nx.shortest_path_length(whole, a, b) + slack)
        best: dict[int, int] = {}
        for path in nx.all_simple_paths(whole, a, b, cutoff=most):
            for node in path:
                best[node] = min(best.get(node, N), len(path) - 1)
        for node, steps in best.items():
            expected[node] = expected.get(node, 0.0) + 1 / steps
    found = PathRetriever(length=length, slack=slack, hub=None, max_nodes=1000)(graph, seeds)
    got = dict(zip(found.nodes.tolist(), found.score.tolist(), strict=True))
    assert got == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=20),
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
)
def test_a_tree_connects_the_seeds_and_is_at_most_twice_the_smallest(pairs, seeds) -> None:
    whole = plain([(a, b) for a, b in pairs if a != b], 9)
    found = SteinerRetriever(eps=1e-6, hub=None)(graph_of(pairs, 9), seeds)
    ends = found.nodes[found.edge_index].T.tolist()
    tree = nx.Graph([(a, b) for a, b in ends if a != b])
    tree.add_nodes_from(found.nodes.tolist())
    assert set(tree.edges()) <= {e for a, b in whole.edges() for e in ((a, b), (b, a))}
    assert nx.is_forest(tree)
    assert found.provenance["tree_edges"] == tree.number_of_edges()
    smallest = 0
    for part in nx.connected_components(whole):
        own = set(seeds) & part
        assert all(nx.has_path(tree, a, b) for a, b in combinations(own, 2))
        if len(own) > 1:
            others = sorted(part - own)
            smallest += next(
                len(own) + k - 1
                for k in range(len(others) + 1)
                for more in combinations(others, k)
                if nx.is_connected(whole.subgraph(own | set(more)))
            )
    assert smallest <= tree.number_of_edges() <= 2 * smallest


def test_a_tree_goes_around_a_hub_that_costs_more() -> None:
    # 0 - 1 - 2 over the hub 1, or 0 - 3 - 4 - 2
    pairs = [(0, 1), (1, 2), (0, 3), (3, 4), (4, 2), *((1, i) for i in range(5, 60))]
    graph = graph_of(pairs, 60)
    assert set(SteinerRetriever()(graph, [0, 2]).nodes.tolist()) == {0, 1, 2}
    assert set(SteinerRetriever(hub_cost=1.0)(graph, [0, 2]).nodes.tolist()) == {0, 2, 3, 4}


def test_trees_weigh_like_those_of_networkx() -> None:
    generator = np.random.default_rng(1)
    for _ in range(10):
        whole = nx.gnm_random_graph(30, 60, seed=int(generator.integers(1000)))
        for a, b in whole.edges():
            whole[a][b]["weight"] = float(generator.integers(1, 9))
        part = sorted(max(nx.connected_components(whole), key=len))
        terminals = sorted(generator.choice(part, 4, replace=False).tolist())
        neighbours = [[(b, whole[a][b]["weight"]) for b in whole[a]] for a in range(30)]
        ours = sum(whole[a][b]["weight"] for a, b in steiner_tree(neighbours, terminals))
        theirs = nx.algorithms.approximation.steiner_tree(whole.subgraph(part), terminals, method="kou").size("weight")
        assert 0.5 <= ours / theirs <= 2


def test_reranking_keeps_the_best_and_the_seeds() -> None:
    graph = graph_of(list(pairwise(range(10))), 10)

    def odd(kg: KnowledgeGraph, found: Subgraph) -> np.ndarray:
        assert kg is graph
        return np.array([1.0 if n % 2 else -float(n) for n in found.nodes])

    found = Rerank(KHopRetriever(hops=5), odd, max_nodes=4)(graph, [4, 2])
    assert found.nodes.tolist() == [4, 2, 1, 3]
    assert found.score.tolist() == [-4.0, -2.0, 1.0, 1.0]
    assert sorted(found.triples(graph)) == [
        ("u:001", "r:0", "u:002"),
        ("u:002", "r:2", "u:003"),
        ("u:003", "r:1", "u:004"),
    ]
    assert found.provenance["reranked_by"] == "odd"
    assert found.provenance["candidates"] == 10
    for wrong in (np.zeros(3), np.full(10, np.nan)):
        with pytest.raises(KnowledgeError, match="finite numbers"):
            Rerank(KHopRetriever(hops=9), lambda *_, wrong=wrong: wrong)(graph, [4, 2])


@pytest.mark.parametrize("retriever", ALL, ids=lambda r: type(r).__name__)
def test_no_seeds_no_arcs_and_unknown_seeds(retriever) -> None:
    graph = graph_of([(0, 1)], 4)
    for backend in ("numba", "numpy"):
        one = replace(retriever, backend=backend)
        empty = one(graph, [])
        assert (len(empty), empty.edge_index.shape, empty.edge_type.shape) == (0, (2, 0), (0,))
        alone = one(graph, ["u:003", 3])
        assert (alone.nodes.tolist(), alone.edge_index.shape) == ([3], (2, 0))
    for wrong in ([4], [-1], ["u:none"], "u:000"):
        with pytest.raises(KnowledgeError):
            retriever(graph, wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: KHopRetriever(hops=-1),
        lambda: KHopRetriever(max_nodes=0),
        lambda: KHopRetriever(hub=0),
        lambda: KHopRetriever(direction="up"),
        lambda: KHopRetriever(backend="cuda"),
        lambda: PPRRetriever(alpha=0.0),
        lambda: PPRRetriever(eps=0.0),
        lambda: PathRetriever(slack=2),
        lambda: PathRetriever(length=0),
        lambda: SteinerRetriever(candidates=0),
        lambda: SteinerRetriever(hub_cost=-1.0),
    ],
)
def test_impossible_settings_are_refused(make) -> None:
    with pytest.raises(KnowledgeError):
        make()


def test_a_mapped_graph_and_networkx_show_the_same(tmp_path) -> None:
    graph = graph_of([(0, 1), (1, 2), (2, 0), (0, 0)], 3)
    graph.save(tmp_path / "g.npz")
    mapped = load_kg(tmp_path / "g.npz")
    for retriever in ALL:
        assert equal(retriever(graph, [1]), retriever(mapped, [1]))
    shown = PPRRetriever()(mapped, [1]).to_networkx(mapped)
    assert set(shown.edges(keys=True)) == {(h, t, r) for h, r, t in graph.arcs()}
    assert shown.nodes["u:001"]["seed"]
    assert not shown.nodes["u:002"]["seed"]
