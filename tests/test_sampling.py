"""Neighbour sampling against brute force, exact probabilities, networkx, and layers run on the whole graph."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from graphs import KINDS, PLAIN_NAMES, World, close, randomize, scalar, states, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from hetgraph import EdgeType, Fusion, Graph, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.edges import Edges
from hetgraph.nn import GraphBlock, HGTLayer
from hetgraph.sampling import NeighborSampler, Subgraph
from hetgraph.schema import EdgeKey

AA, BA, AB = ("a", "near", "a"), ("b", "of", "a"), ("a", "in", "b")
P_VALUE = 1e-3  # the seeds are fixed, so that a test passes always or never


def two_types(edges: dict[EdgeKey, Sequence[tuple[int, int]]], a: int = 5, b: int = 3) -> Graph:
    """A graph of types a and b with these edges; the features number the nodes."""
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], [EdgeType(*key, rule=rules.given) for key in (AA, BA, AB)])
    nodes = {name: torch.arange(float(n))[:, None] for name, n in (("a", a), ("b", b))}
    given = {key: torch.tensor(pairs).T for key, pairs in edges.items() if pairs}
    return GraphBuilder(schema)([Sample(nodes=nodes, edges=given)])


# two edges from a2 to a0 are the same; b2 and a4 hear nothing
SMALL: dict[EdgeKey, Sequence[tuple[int, int]]] = {
    AA: [(2, 0), (1, 0), (2, 0), (3, 1), (0, 2), (4, 2)],
    BA: [(0, 0), (1, 0), (2, 3), (0, 1)],
    AB: [(1, 0), (3, 0), (4, 1)],
}


def fan(degree: int, count: int) -> int:
    return degree if count == -1 else min(degree, count)


def edge_list(graph: Graph, key: EdgeKey) -> list[tuple[int, int]]:
    return [(i, j) for i, j in graph.edge_index[key].T.tolist()]


# ---- which edges are drawn ------------------------------------------------------------------------------------


def probabilities(
    edges: dict[EdgeKey, Sequence[tuple[int, int]]], seeds: set[tuple[str, int]], fans: Sequence[int]
) -> dict[frozenset[Any], Fraction]:
    """Every set of edges that can be drawn, with its probability, by following all choices."""
    done: dict[frozenset[Any], Fraction] = {}

    def follow(hop: int, new: set[tuple[str, int]], known: set[tuple[str, int]], kept: Any, p: Fraction) -> None:
        if hop == len(fans) or not new:
            done[kept] = done.get(kept, Fraction(0)) + p
            return
        choices = []
        for name, node in sorted(new):
            for key, pairs in edges.items():
                into = [(key, e) for e, (_, j) in enumerate(pairs) if (key[2], j) == (name, node)]
                choices.append(list(itertools.combinations(into, fan(len(into), fans[hop]))))
        share = p / math.prod(len(options) for options in choices)
        for choice in itertools.product(*choices):
            drawn = [edge for part in choice for edge in part]
            reached = {(key[0], edges[key][e][0]) for key, e in drawn} - known
            follow(hop + 1, reached, known | reached, kept | set(drawn), share)

    follow(0, seeds, seeds, frozenset(), Fraction(1))
    return done


def fits(seen: Counter[Any], expected: dict[Any, Fraction]) -> bool:
    """Only what is possible was seen, about as often as it should be (chi-square)."""
    assert set(seen) <= set(expected)
    total = sum(seen.values())
    wanted = [float(p) * total for p in expected.values()]
    assert min(wanted) >= 5, "too few draws for the test"
    # a single possible outcome leaves nothing to test
    return len(wanted) == 1 or bool(chisquare([seen[outcome] for outcome in expected], wanted).pvalue > P_VALUE)


@pytest.mark.parametrize("fans", [[1], [2, 1], [1, 1, 1], [-1, 1]])
def test_whole_subgraphs_have_the_probabilities_of_all_choices_followed_by_hand(fans: list[int]) -> None:
    expected = probabilities(SMALL, {("a", 0), ("a", 1)}, fans)
    assert len(expected) > 3
    assert sum(expected.values()) == 1
    graph = two_types(SMALL)
    seen: Counter[Any] = Counter()
    for seed in range(40):
        sampler = NeighborSampler(graph, fans, seed=seed)
        for epoch in range(25):
            part = sampler("a", [0, 1], epoch)
            seen[frozenset((key, e) for key, places in part.edges.items() for e in places.tolist())] += 1
    assert fits(seen, expected)


def stars(nodes: int, degree: int) -> Graph:
    """Every b hears its own ``degree`` many a; the edges are listed in a random order."""
    pairs = [(i * degree + e, i) for i in range(nodes) for e in range(degree)]
    order = np.random.default_rng(0).permutation(len(pairs))
    return two_types({AB: [pairs[i] for i in order]}, nodes * degree, nodes)


def chosen(graph: Graph, degree: int, count: int, epoch: int = 0, replace: bool = False) -> list[tuple[int, ...]]:
    """Of every star, which of its sources were drawn, in ascending order."""
    nodes = graph.counts["b"].sum()
    part = NeighborSampler(graph, [count], replace=replace)("b", torch.arange(int(nodes)), epoch)
    out: list[list[int]] = [[] for _ in range(int(nodes))]
    for e in part.edges[AB].tolist():
        i, j = graph.edge_index[AB][:, e].tolist()
        assert i // degree == j
        out[j].append(i % degree)
    return [tuple(sorted(row)) for row in out]


@pytest.mark.parametrize(("degree", "count"), [(7, 3), (5, 4), (6, 1), (8, 2), (3, 3), (2, 5)])
def test_every_subset_of_the_incoming_edges_is_as_likely_as_any_other(degree: int, count: int) -> None:
    subsets = list(itertools.combinations(range(degree), fan(degree, count)))
    seen = Counter(chosen(stars(1500, degree), degree, count))
    assert fits(seen, {subset: Fraction(1, len(subsets)) for subset in subsets})


def test_with_replacement_the_draws_are_multinomial() -> None:
    expected = {
        pick: Fraction(math.factorial(3) // math.prod(math.factorial(n) for n in Counter(pick).values()), 4**3)
        for pick in itertools.combinations_with_replacement(range(4), 3)
    }
    assert sum(expected.values()) == 1
    assert fits(Counter(chosen(stars(1500, 4), 4, 3, replace=True)), expected)
    # also where there are fewer edges than draws; a node that hears nothing draws nothing
    assert {len(row) for row in chosen(stars(20, 2), 2, 5, replace=True)} == {5}
    assert NeighborSampler(two_types(SMALL), [3], replace=True)("b", [2]).graph.num_nodes == 1
    assert len(NeighborSampler(two_types(SMALL), [-1], replace=True)("a", [0]).edges[AA]) == 3


def test_with_replacement_every_node_draws_from_its_own_edges() -> None:
    # nodes with one and with five incoming edges in turn: source 10 k + e goes to node k
    pairs = [(10 * k + e, k) for k in range(1000) for e in range(5 if k % 2 else 1)]
    graph = two_types({AB: pairs}, 10_000, 1000)
    part = NeighborSampler(graph, [2], replace=True)("b", range(1000))
    source, end = graph.edge_index[AB][:, part.edges[AB]]
    assert end.tolist() == np.repeat(np.arange(1000), 2).tolist()
    assert (source // 10).tolist() == end.tolist()
    seen = Counter((source % 10)[end % 2 == 1].tolist())
    assert fits(seen, {e: Fraction(1, 5) for e in range(5)})


def test_draws_of_neighbouring_nodes_and_of_following_epochs_are_independent() -> None:
    graph = stars(2000, 3)
    first, second = (chosen(graph, 3, 1, epoch) for epoch in (0, 1))
    pairs = {(i, j): Fraction(1, 9) for i in range(3) for j in range(3)}
    assert fits(Counter((a[0], b[0]) for a, b in zip(first, second, strict=True)), pairs)
    assert fits(Counter((a[0], b[0]) for a, b in zip(first[::2], first[1::2], strict=True)), pairs)


def test_edge_types_of_one_node_are_drawn_independently() -> None:
    pairs = [(e, i) for i in range(1500) for e in range(3)]
    graph = two_types({AA: pairs, BA: pairs}, 1500, 3)
    part = NeighborSampler(graph, [1])("a", range(1500))
    drawn = [(part.edges[key] % 3).tolist() for key in (AA, BA)]
    assert fits(Counter(zip(*drawn, strict=True)), {(i, j): Fraction(1, 9) for i in range(3) for j in range(3)})


# ---- what a subgraph holds ------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn, **options: Any) -> tuple[World, str, list[int]]:
    """A world and seeds, which may repeat."""
    world = draw(worlds(names=PLAIN_NAMES, **options))
    counts = world.graph().counts
    name = draw(st.sampled_from([n for n in world.schema.nodes if int(counts[n].sum())]))
    return world, name, draw(st.lists(st.integers(0, int(counts[name].sum()) - 1), min_size=1, max_size=5))


@given(cases(placed=True), st.data())
def test_a_subgraph_is_what_a_walk_over_its_edges_finds_in_the_big_graph(
    case: tuple[World, str, list[int]], data: st.DataObject
) -> None:
    world, name, ids = case
    graph = world.graph()
    hops = data.draw(st.integers(1, 3))
    numbers = st.lists(st.sampled_from([-1, 1, 2, 3]), min_size=hops, max_size=hops)
    fans = {key: data.draw(numbers) for key in graph.edges}
    part = NeighborSampler(graph, {**fans, None: [1] * hops}, seed=data.draw(st.integers(-9, 9)))(name, ids)

    # the walk: of every newly reached node, as many edges as it may have, and what they reach
    nodes = {n: list(dict.fromkeys(ids)) if n == name else [] for n in graph.x}
    new = {n: list(found) for n, found in nodes.items()}
    left = {key: list(enumerate(places.tolist())) for key, places in part.edges.items()}
    for hop in range(hops):
        heard: dict[str, set[int]] = {n: set() for n in nodes}
        for key, edges in left.items():
            pairs = edge_list(graph, key)
            for node in new[key[2]]:
                mine = [(at, e) for at, e in edges if pairs[e][1] == node]
                degree = sum(j == node for _, j in pairs)
                assert len(mine) == fan(degree, fans[key][hop])
                assert len({e for _, e in mine}) == len(mine)
                # into one node in the order of the big graph
                assert mine == sorted(mine, key=lambda edge: edge[1])
                heard[key[0]] |= {pairs[e][0] for _, e in mine}
                edges[:] = [edge for edge in edges if edge not in mine]
        for n, sources in heard.items():
            new[n] = sorted(sources - set(nodes[n]))
            nodes[n] += new[n]
    assert not any(left.values()), "edges that no hop explains"
    assert {n: found.tolist() for n, found in part.nodes.items()} == nodes

    # what it holds is what the big graph holds there
    small = part.graph
    assert small.schema is graph.schema
    assert len(small) == 1
    for n, at in part.nodes.items():
        assert small.counts[n].tolist() == [len(at)]
        torch.testing.assert_close(small.x[n], graph.x[n][at], rtol=0, atol=0)
        assert list(small.fields[n]) == list(graph.fields[n])
        for field, value in graph.fields[n].items():
            torch.testing.assert_close(small.fields[n][field], value[at], rtol=0, atol=0, equal_nan=True)
    for key, places in part.edges.items():
        got, big = small.edges[key], graph.edges[key]
        assert bool((got.index[1][1:] >= got.index[1][:-1]).all())
        ends = torch.stack([part.nodes[key[0]][got.index[0]], part.nodes[key[2]][got.index[1]]])
        assert torch.equal(ends, big.index[:, places])
        assert set(got.features) == set(big.features)
        for feature, value in big.features.items():
            assert torch.equal(got.features[feature], value[places])
        assert (got.relation is None) == (big.relation is None)
        if big.relation is not None and got.relation is not None:
            assert torch.equal(got.relation, big.relation[places])
    assert part.nodes[name][part.seeds[name]].tolist() == ids
    assert all(len(rows) == 0 for n, rows in part.seeds.items() if n != name)


@given(cases(), st.integers(1, 3))
def test_with_all_edges_it_is_what_networkx_reaches_backwards(case: tuple[World, str, list[int]], hops: int) -> None:
    world, name, ids = case
    graph = world.graph()
    part = NeighborSampler(graph, [-1] * hops)(name, ids)
    backwards = graph.to_networkx().reverse()
    far: dict[Any, int] = {}
    for node in ids:
        for other, steps in nx.single_source_shortest_path_length(backwards, (name, node), hops).items():
            far[other] = min(steps, far.get(other, hops))
    assert {(n, i) for n, found in part.nodes.items() for i in found.tolist()} == set(far)
    for key, places in part.edges.items():
        kept = [e for e, (_, j) in enumerate(edge_list(graph, key)) if far.get((key[2], j), hops) < hops]
        assert sorted(places.tolist()) == kept


def test_seeds_come_first_in_their_order_and_once() -> None:
    part = NeighborSampler(two_types(SMALL), [1])("a", torch.tensor([3, 1, 3, 0, 1]))
    assert part.nodes["a"][:3].tolist() == [3, 1, 0]
    assert part.seeds["a"].tolist() == [0, 1, 0, 2, 1]
    assert part.seeds["b"].tolist() == []


def test_edges_that_repeat_are_drawn_one_by_one() -> None:
    graph = two_types({AA: [(1, 0)] * 4, BA: [], AB: []})
    part = NeighborSampler(graph, [3])("a", [0])
    assert part.graph.edge_index[AA].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert len(set(part.edges[AA].tolist())) == 3
    assert NeighborSampler(graph, [-1, -1])("a", [0]).edges[AA].tolist() == [0, 1, 2, 3]


def test_a_seed_that_hears_nothing_is_alone_and_passes_through_the_model() -> None:
    graph = two_types(SMALL)
    part = NeighborSampler(graph, [2, 2])("b", [2])
    assert {name: found.tolist() for name, found in part.nodes.items()} == {"a": [], "b": [2]}
    assert all(len(edges) == 0 for edges in part.graph.edges.values())
    out = Fusion(graph.schema, 8, layers=2, heads=2)(part.graph)
    assert out.nodes["b"].shape == (1, 8)
    assert out.nodes["a"].shape == (0, 8)
    assert bool(out.z.isfinite().all())


def test_every_edge_type_has_its_own_fan_out_and_others_the_default() -> None:
    graph = two_types(SMALL)
    part = NeighborSampler(graph, {None: [1], AA: [-1]})("a", [0])
    assert (len(part.edges[AA]), len(part.edges[BA])) == (3, 1)
    assert NeighborSampler(graph, {None: [1, 2], AA: [-1, 1]}).fan_out == {AA: (-1, 1), BA: (1, 2), AB: (1, 2)}
    assert NeighborSampler(graph, np.array([3, 2])).fan_out[AB] == (3, 2)


def test_all_pairs_are_drawn_from_without_being_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], [EdgeType("a", "any", "b")])
    samples = [Sample(a=torch.zeros(30_000, 1), b=torch.zeros(n, 1)) for n in (2, 40_000)]
    graph = GraphBuilder(schema)(samples)
    monkeypatch.setattr(Edges, "_list", lambda self: pytest.fail("a billion edges were listed"))
    part = NeighborSampler(graph, [4])("b", [1, 40_000])
    sources = part.nodes["a"][part.graph.edge_index["a", "any", "b"][0]]
    assert (sources // 30_000).tolist() == [0] * 4 + [1] * 4
    assert part.edges["a", "any", "b"].tolist() == [
        (1 if row < 4 else 40_000) * 30_000 + source % 30_000 for row, source in enumerate(sources.tolist())
    ]


def test_gradients_reach_the_features_of_the_reached_nodes_alone() -> None:
    graph = two_types(SMALL)
    graph.x["a"].requires_grad_(True)
    part = NeighborSampler(graph, [-1])("a", [0])
    part.graph.x["a"].sum().backward()
    assert graph.x["a"].grad is not None
    assert graph.x["a"].grad.flatten().tolist() == [1, 1, 1, 0, 0]


@given(cases())
@settings(max_examples=15)
def test_a_subgraph_survives_the_way_to_pyg_and_back(case: tuple[World, str, list[int]]) -> None:
    world, name, ids = case
    part = NeighborSampler(world.graph(), [2, 2])(name, ids)
    again = Graph.from_pyg(part.graph.to_pyg(), world.schema)
    for key, edges in part.graph.edges.items():
        assert torch.equal(again.edge_index[key], edges.index)
    assert {n: len(x) for n, x in again.x.items()} == {n: len(x) for n, x in part.graph.x.items()}


# ---- models on subgraphs --------------------------------------------------------------------------------------


class Stack(nn.Module):
    """Layers one after the other: HGT with or without skip, or pre-norm blocks."""

    def __init__(self, kind: str, schema: Schema, layers: int) -> None:
        super().__init__()
        made: list[nn.Module] = []
        for _ in range(layers):
            if kind == "block":
                made.append(GraphBlock(schema, 8, 2))
            else:
                made.append(HGTLayer(schema, 8, 2, residual=kind == "residual"))
        self.layers = nn.ModuleList(made)

    def forward(self, graph: Graph, x: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        for layer in self.layers:
            x = layer(graph, x, backend)
        return x


@pytest.mark.parametrize("kind", ["residual", "plain", "block"])
@pytest.mark.parametrize("layers", [1, 2])
@given(case=cases(kinds=KINDS, min_edge_types=2))
@settings(max_examples=15)
def test_with_all_edges_the_seeds_have_the_states_and_gradients_of_the_whole_graph(
    kind: str, layers: int, case: tuple[World, str, list[int]]
) -> None:
    world, name, ids = case
    graph = world.graph()
    stack = Stack(kind, world.schema, layers).double()
    randomize(stack)
    part = NeighborSampler(graph, [-1] * layers)(name, ids)
    parameters = list(stack.parameters())

    def run(backend: str, sampled: bool) -> tuple[Tensor, list[Tensor]]:
        x = states(graph, dict.fromkeys(graph.x, 8))
        if sampled:
            inside = {n: x[n][at] for n, at in part.nodes.items()}
            out = stack(part.graph, inside, backend)[name][part.seeds[name]]
        else:
            out = stack(graph, x, backend)[name][torch.tensor(ids)]
        wanted = [*parameters, *x.values()]
        found = torch.autograd.grad(scalar({name: out}), wanted, allow_unused=True)
        return out, [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]

    expected, gradients = run("sparse", sampled=False)
    for backend in ("dense", "sparse"):
        out, found = run(backend, sampled=True)
        close(out, expected, 1e-9)
        for a, b in zip(found, gradients, strict=True):
            close(a, b, 1e-8)


@given(case=cases(placed=True), layers=st.integers(1, 2))
@settings(max_examples=25)
def test_with_all_edges_fusion_gives_the_seeds_the_states_of_the_whole_graph(
    case: tuple[World, str, list[int]], layers: int
) -> None:
    world, name, ids = case
    graph = world.graph()
    model = Fusion(world.schema, 8, layers=layers, heads=2).double()
    randomize(model)
    expected = model(graph).nodes[name][ids]
    part = NeighborSampler(graph, [-1] * layers)(name, ids)
    for backend in ("auto", "dense", "sparse"):
        out = model(part.graph, backend)
        close(out.nodes[name][part.seeds[name]], expected, 1e-9)
        assert out.z.shape == (1, 8)
    # attention in the order of the subgraph's edges: over the edges into a node it sums to one
    for key, weight in model.attention(part.graph)[0].items():
        assert len(weight) == len(part.edges[key])


def test_fewer_hops_than_layers_do_not_give_the_states_of_the_whole_graph() -> None:
    graph = two_types({AA: [(2, 1), (1, 0)], BA: [], AB: []})
    model = Fusion(graph.schema, 8, layers=2, heads=2).double()
    graph.x = {name: x.double() for name, x in graph.x.items()}
    randomize(model)
    whole = model(graph).nodes["a"][0]
    one, two = (model(NeighborSampler(graph, [-1] * hops)("a", [0]).graph).nodes["a"][0] for hops in (1, 2))
    close(two, whole, 1e-9)
    assert float((one - whole).detach().abs().max()) > 1e-3


def test_the_loop_of_the_docstring_learns_what_only_neighbours_know() -> None:
    rng = np.random.default_rng(0)
    schema = Schema([NodeType("paper", 2), NodeType("word", 2)], [EdgeType("word", "in", "paper", rule=rules.given)])
    labels = torch.tensor(rng.integers(0, 2, 300))
    # words 0 .. 49 are of class 0, the others of class 1; every paper has 8 words of its class
    pairs = np.stack(
        [rng.integers(0, 50, 2400) + 50 * labels.repeat_interleave(8).numpy(), np.repeat(np.arange(300), 8)]
    )
    words = torch.eye(2)[torch.arange(100) // 50]
    sample = Sample(paper=torch.rand(300, 2), word=words, edges={("word", "in", "paper"): pairs})
    graph = GraphBuilder(schema)([sample])
    train, test = torch.arange(200), torch.arange(200, 300)

    sampler = NeighborSampler(graph, [3, 3])
    model, head = Fusion(graph.schema, 16, layers=2), nn.Linear(16, 2)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-2)

    def correct() -> float:
        with torch.no_grad():
            guess = head(model(graph).nodes["paper"][test]).argmax(-1)
        return float((guess == labels[test]).float().mean())

    for epoch in range(5):
        for part in sampler.batches("paper", train, 50, epoch=epoch):
            rows = part.seeds["paper"]
            scores = head(model(part.graph).nodes["paper"][rows])
            loss = nn.functional.cross_entropy(scores, labels[part.nodes["paper"][rows]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert correct() > 0.95


# ---- repeatable -----------------------------------------------------------------------------------------------

DRAW = """
import hashlib, numpy as np, torch
from hetgraph import EdgeType, GraphBuilder, NodeType, Sample, Schema, rules
from hetgraph.sampling import NeighborSampler

def digest():
    rng = np.random.default_rng(0)
    edges = [EdgeType(src, "r", dst, rule=rules.given) for src in "ab" for dst in "ab"]
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], edges)
    nodes = {name: torch.zeros(200, 1) for name in "ab"}
    edges = {key: rng.integers(0, 200, (2, 3000)) for key in schema.edges}
    graph = GraphBuilder(schema)([Sample(nodes=nodes, edges=edges)])
    found = hashlib.sha256()
    for part in NeighborSampler(graph, [4, 2], seed=5).batches("a", range(50), 16, epoch=3):
        for value in (*part.nodes.values(), *part.seeds.values(), *part.edges.values()):
            found.update(value.numpy().tobytes())
    return found.hexdigest()
"""


def test_another_process_draws_the_same() -> None:
    here: dict[str, Any] = {}
    exec(DRAW, here)
    other = subprocess.run(
        [sys.executable, "-c", DRAW + "print(digest())"],
        env={**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert other.stdout.strip() == here["digest"]()


def drawn(part: Subgraph) -> dict[EdgeKey, list[int]]:
    return {key: places.tolist() for key, places in part.edges.items()}


def test_a_draw_depends_on_seed_epoch_and_ids_alone() -> None:
    # the e-th edge into node i comes from 9 i + e
    graph = two_types({AB: [(9 * i + e, i) for i in range(60) for e in range(9)]}, 540, 60)
    ids = torch.arange(60)
    sampler = NeighborSampler(graph, [4])
    first = drawn(sampler("b", ids, 7))
    sampler("b", ids[:5], 7)
    torch.rand(3)
    assert drawn(sampler("b", ids.tolist(), 7)) == first
    assert drawn(NeighborSampler(graph, [4])("b", ids.numpy().astype(np.int32), np.int64(7))) == first
    assert drawn(sampler("b", ids, 8)) != first
    assert drawn(NeighborSampler(graph, [4], seed=1)("b", ids, 7)) != first

    def steps(nodes: Tensor) -> list[int]:
        return (graph.edge_index[AB][0, sampler("b", nodes, 7).edges[AB]] % 9).tolist()

    # other ids, or the same in another order, do not draw the same places at the same rows of the batch
    assert steps(ids[:30]) != steps(ids[30:])
    assert steps(ids) != steps(ids.flip(0))


def test_batches_cover_the_ids_once_in_an_order_of_their_epoch() -> None:
    graph = stars(50, 3)
    sampler = NeighborSampler(graph, [2], seed=3)
    ids = [*range(10, 50), 10]

    def order(**options: Any) -> list[list[int]]:
        return [part.nodes["b"][part.seeds["b"]].tolist() for part in sampler.batches("b", ids, 16, **options)]

    assert order(shuffle=False) == [ids[:16], ids[16:32], ids[32:]]
    assert [len(batch) for batch in order()] == [16, 16, 9]
    assert sorted(itertools.chain(*order())) == sorted(ids)
    assert order() == order(epoch=0) != order(epoch=1)
    assert list(itertools.chain(*order())) != ids
    part = next(sampler.batches("b", ids, 16, epoch=2))
    assert drawn(part) == drawn(sampler("b", part.nodes["b"][part.seeds["b"]], 2))


def test_shuffling_makes_every_order_as_likely_as_any_other() -> None:
    graph = stars(3, 1)
    seen: Counter[Any] = Counter()
    for epoch in range(600):
        parts = NeighborSampler(graph, [1]).batches("b", [0, 1, 2], 1, epoch=epoch)
        seen[tuple(int(part.nodes["b"][0]) for part in parts)] += 1
    assert fits(seen, dict.fromkeys(itertools.permutations(range(3)), Fraction(1, 6)))


# ---- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fan_out", "message"),
    [
        ([], "positive integers or -1"),
        ([3, 0], r"positive integers or -1 \(all\), one per hop, got \[3, 0\]"),
        ([-2], "positive integers or -1"),
        ([True], "positive integers or -1"),
        ([2.0], r"fan_out must be an integer, got 2\.0"),
        (["x"], "must be an integer, got 'x'"),
        (10, "list of integers, one per hop, got 10"),
        ("10", "list of integers, one per hop, got '10'"),
        ({}, "empty"),
        ({None: [2], ("a", "r", "b"): [1]}, r"unknown edge type \('a', 'r', 'b'\)"),
        ({None: [2, 2], AA: [1]}, "same number of hops"),
        ({AA: [1, 1], BA: [1], AB: [1]}, "same number of hops"),
        ({AA: [1], BA: [0], AB: [1]}, r"fan_out of \('b', 'of', 'a'\) must hold"),
        ({AA: [1], BA: [1]}, r"nothing for edge type \('a', 'in', 'b'\)"),
    ],
)
def test_a_wrong_fan_out_is_refused(fan_out: Any, message: str) -> None:
    with pytest.raises(HetgraphError, match=message):
        NeighborSampler(two_types(SMALL), fan_out)


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        ("c", [0], r"unknown node type 'c'; the graph has \['a', 'b'\]"),
        ("b", [0, 3], r"must lie in 0 \.\. 2, got 0 \.\. 3"),
        ("b", [-1], r"must lie in 0 \.\. 2, got -1 \.\. -1"),
        ("b", [], "at least one"),
        ("b", torch.zeros(0, dtype=torch.long), "at least one"),
        ("b", [0.0], "integers"),
        ("b", torch.ones(3, dtype=torch.bool), "integers"),
        ("b", [[0, 1]], "integers"),
        ("b", "01", "expected an array of numbers"),
    ],
)
def test_wrong_ids_are_refused_at_once(name: str, ids: Any, message: str) -> None:
    sampler = NeighborSampler(two_types(SMALL), [1])
    with pytest.raises(HetgraphError, match=message):
        sampler(name, ids)
    with pytest.raises(HetgraphError, match=message):
        sampler.batches(name, ids, 4)


def test_other_wrong_arguments_are_refused() -> None:
    graph = two_types(SMALL)
    for wrong in (0, -1):
        with pytest.raises(HetgraphError, match="batch_size must be positive"):
            NeighborSampler(graph, [1]).batches("a", [0], wrong)
    with pytest.raises(HetgraphError, match="batch_size must be an integer"):
        NeighborSampler(graph, [1]).batches("a", [0], 1.5)  # type: ignore[arg-type]
    with pytest.raises(HetgraphError, match="epoch must be an integer"):
        NeighborSampler(graph, [1])("a", [0], None)  # type: ignore[arg-type]
    with pytest.raises(HetgraphError, match="seed must be an integer"):
        NeighborSampler(graph, [1], seed="x")  # type: ignore[arg-type]
    with pytest.raises(HetgraphError, match="takes a Graph, got dict"):
        NeighborSampler({}, [1])  # type: ignore[arg-type]
