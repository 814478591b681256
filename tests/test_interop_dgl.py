"""DGL and back keeps everything that DGL can hold, and DGL reads the samples as they are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from extras import needs_dgl
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ODD_NAMES, World, assert_same_graph, same_numbers, same_target, worlds

from hetgraph import EdgeType, Graph, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.builders import image_text
from hetgraph.interop.dgl import load_dgl

pytestmark = needs_dgl

KEY = ("a", "r", "b")


def build(world: World) -> Graph:
    return GraphBuilder(world.schema, torch.float64)(world.samples)


def unnamed(graph: Graph) -> Graph:
    """The graph with the ids and targets that samples have where DGL lost them."""
    out = copy.copy(graph)
    out.ids, out.target = tuple(map(str, range(len(graph)))), (None,) * len(graph)
    return out


# ---- round trips ------------------------------------------------------------------------------------------------


@given(worlds())
def test_a_round_trip_keeps_everything(world: World) -> None:
    graph = build(world)
    again = Graph.from_dgl(graph.to_dgl(), world.schema)
    assert again.schema == world.schema
    assert_same_graph(again, graph)


@given(worlds())
def test_a_round_trip_through_dgls_own_unbatch_and_batch_loses_ids_and_targets_alone(world: World) -> None:
    dgl, graph = load_dgl(), build(world)
    parts = dgl.unbatch(graph.to_dgl())
    assert len(parts) == len(graph)
    assert_same_graph(Graph.from_dgl(parts, world.schema), unnamed(graph))
    assert_same_graph(Graph.from_dgl(dgl.batch(parts), world.schema), unnamed(graph))


@given(worlds())
def test_a_round_trip_without_the_schema_reads_it_off_the_data(world: World) -> None:
    graph = build(world)
    again = Graph.from_dgl(graph.to_dgl())
    assert again.ids == graph.ids
    assert sorted(again.x) == sorted(graph.x)
    for name, node in world.schema.nodes.items():
        assert torch.equal(again.x[name], graph.x[name])
        assert torch.equal(again.counts[name], graph.counts[name])
        assert again.schema.nodes[name].all_fields == node.all_fields
        assert set(again.schema.nodes[name].optional) <= set(node.optional)
        for field, value in graph.fields[name].items():
            assert same_numbers(again.fields[name][field], value)
    assert set(again.schema.edges) == set(world.schema.edges)
    for key, edge in world.schema.edges.items():
        assert again.schema.edges[key].rule == rules.given
        assert torch.equal(again.edge_index[key], graph.edge_index[key])
        assert dict(again.schema.edges[key].features) == {f: max(w, 1) for f, w in edge.features.items()}
        for feature, value in graph.edges[key].features.items():
            assert torch.equal(again.edges[key].features[feature], value)
        if edge.relations and len(graph.edges[key]):
            assert torch.equal(again.edges[key].relation, graph.edges[key].relation)


def test_fields_features_and_relations_are_columns_under_their_own_names() -> None:
    key = ("a", "r", "a")
    schema = Schema(
        [NodeType("a", 1, {"box": 4, "group": 0})],
        [EdgeType(*key, rule=rules.given, features={"w": 2}, relations=["p", "q"])],
    )
    edges = {key: {"index": [[0], [1]], "w": [[1, 2]], "relation": ["q"]}}
    nodes = {"x": np.ones((2, 1)), "box": np.ones((2, 4)), "group": [3, 4]}
    g = GraphBuilder(schema)([Sample(id="s", target=7, a=nodes, edges=edges)] * 2).to_dgl()
    assert g.ndata["x"].tolist() == [[1]] * 4
    assert g.ndata["box"].shape == (4, 4)
    assert g.ndata["group"].tolist() == [3, 4, 3, 4]
    assert g.edata["w"].tolist() == [[1, 2], [1, 2]]
    assert g.edata["relation"].tolist() == [1, 1]
    assert [end.tolist() for end in g.edges()] == [[0, 2], [1, 3]]
    assert (g.sample_id, g.y) == (["s", "s"], [7, 7])


# ---- what DGL makes of it ---------------------------------------------------------------------------------------


@given(worlds())
def test_dgl_sees_every_sample_with_all_types_and_its_own_nodes_and_edges(world: World) -> None:
    graph = build(world)
    g = graph.to_dgl()
    assert g.batch_size == len(graph)
    assert set(g.ntypes) == set(world.schema.nodes)
    assert {key for key in g.canonical_etypes if key[1]} == set(world.schema.edges)
    for name in world.schema.nodes:
        assert g.batch_num_nodes(name).tolist() == graph.counts[name].tolist()
    for key in world.schema.edges:
        assert torch.equal(torch.stack(g.edges(etype=key, order="eid")), graph.edge_index[key])
        inside = [len(graph.edges[key].of_sample(i)[0]) for i in range(len(graph))]
        assert g.batch_num_edges(key).tolist() == inside


@given(worlds(most_types=2))
def test_sums_over_samples_and_over_neighbours_are_those_of_a_loop(world: World) -> None:
    dgl, graph = load_dgl(), build(world)
    g = graph.to_dgl()
    for name, x in graph.x.items():
        samples = torch.stack([x[graph.batch[name] == i].sum(0) for i in range(len(graph))])
        assert torch.allclose(dgl.sum_nodes(g, "x", ntype=name), samples)
    for (src, relation, dst), edges in graph.edges.items():
        expected = torch.zeros(len(graph.x[dst]), graph.x[src].shape[1], dtype=torch.float64)
        for i, j in edges.index.T.tolist():
            expected[j] += graph.x[src][i]
        if len(edges):
            assert torch.allclose(dgl.ops.copy_u_sum(g[src, relation, dst], graph.x[src]), expected)


def test_graphs_of_different_samples_can_be_batched_by_dgl() -> None:
    schema = image_text(3, 2)
    both = Sample(region={"x": np.ones((2, 3)), "box": np.ones((2, 4))}, token=np.ones((3, 2)))
    graphs = [GraphBuilder(schema)([sample]) for sample in (Sample(token=np.ones((1, 2))), both, both)]
    batch = load_dgl().batch([graph.to_dgl() for graph in graphs])
    assert batch.batch_num_nodes("region").tolist() == [0, 2, 2]
    assert_same_graph(
        Graph.from_dgl(batch, schema),
        unnamed(GraphBuilder(schema)([sample for graph in graphs for sample in graph])),
    )


# ---- missing modalities -----------------------------------------------------------------------------------------


def hetero(nodes: dict[str, torch.Tensor | int], links: dict | None = None):
    """A DGL graph of features (or mere counts) and edges; ``a`` is joined to itself by no edge if there is none."""
    none = {(next(iter(nodes)), "none", next(iter(nodes))): ([], [])}
    sizes = {name: x if isinstance(x, int) else len(x) for name, x in nodes.items()}
    g = load_dgl().heterograph(links or none, sizes, idtype=torch.int64)
    for name, x in nodes.items():
        if not isinstance(x, int):
            g.nodes[name].data["x"] = x
    return g


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5))
def test_a_list_may_lack_types_anywhere_and_to_dgl_repairs_it(sizes) -> None:
    assume(all(a + b for a, b in sizes) and any(a and b for a, b in sizes))
    parts = []
    for a, b in sizes:
        nodes = {name: torch.rand(n, 2) for name, n in (("a", a), ("b", b)) if n}
        full = {KEY: tuple(torch.cartesian_prod(torch.arange(a), torch.arange(b)).T)} if a and b else None
        parts.append(hetero(nodes, full))
    graph = Graph.from_dgl(parts)
    assert graph.counts["a"].tolist() == [a for a, _ in sizes]
    assert graph.counts["b"].tolist() == [b for _, b in sizes]
    assert len(graph.edges[KEY]) == sum(a * b for a, b in sizes)
    batch = graph.to_dgl()
    assert batch.batch_size == len(sizes)
    assert batch.batch_num_edges(KEY).tolist() == [a * b for a, b in sizes]
    assert_same_graph(Graph.from_dgl(batch, graph.schema), graph)


def test_types_that_were_added_empty_need_no_features() -> None:
    x = torch.ones(2, 3)
    parts = [hetero({"a": x, "b": 0}, {KEY: ([], [])}), hetero({"a": x, "b": torch.ones(1, 2)}, {KEY: ([0], [0])})]
    batch = load_dgl().batch(parts)
    for data in (parts, batch):
        graph = Graph.from_dgl(data)
        assert graph.counts["b"].tolist() == [0, 1]
        assert graph.edge_index[KEY].tolist() == [[2], [0]]
    schema = Schema([NodeType("a", 3), NodeType("b", 2)], [EdgeType(*KEY, rule=rules.given)])
    assert Graph.from_dgl(parts[0], schema).x["b"].shape == (0, 2)
    with pytest.raises(HetgraphError, match=r"'b' has no nodes and no x.*schema"):
        Graph.from_dgl(parts[0])


def test_a_list_may_hold_batches() -> None:
    one, two = hetero({"a": torch.ones(1, 2)}), hetero({"a": torch.ones(2, 2)})
    graph = Graph.from_dgl([two, load_dgl().batch([one, two]), one])
    assert graph.counts["a"].tolist() == [2, 1, 2, 1]
    assert graph.ids == ("0", "1", "2", "3")


def test_fields_may_be_missing_in_some_samples_and_are_then_optional() -> None:
    parts = [hetero({"a": torch.ones(2, 1)}), hetero({"a": torch.ones(1, 1)})]
    parts[0].nodes["a"].data.update({"box": torch.ones(2, 4), "p": torch.ones(2)})
    parts[1].nodes["a"].data["p"] = torch.ones(1)
    node = Graph.from_dgl(parts).schema.nodes["a"]
    assert (dict(node.fields), dict(node.optional)) == ({"p": 0}, {"box": 4})


def test_a_schema_without_edge_types_survives() -> None:
    graph = GraphBuilder(Schema([NodeType("a", 1), NodeType("b", 2)]))([Sample(a=[[1]]), Sample(b=[[1, 2]])])
    g = graph.to_dgl()
    assert [graph.num_nodes() for graph in load_dgl().unbatch(g)] == [1, 1]
    again = Graph.from_dgl(g)
    assert again.schema.edges == {}
    assert_same_graph(again, graph)


# ---- names ------------------------------------------------------------------------------------------------------

DGL_NAMES = ("SRC/a", "DST/a", "%SRC/a", "%%DST/", "SRC/SRC/", "a/b", "SRC", "_N", "_E", "a.b c")


@pytest.mark.parametrize("name", [*ODD_NAMES, *DGL_NAMES])
@pytest.mark.parametrize("loop", [True, False])
def test_any_name_of_types_survives(name: str, loop: bool) -> None:
    key = (name, name, name if loop else "other")
    schema = Schema([NodeType(name, 1), NodeType("other", 2)], [EdgeType(*key, rule=rules.given)])
    given = {key: [[0], [0]]}
    samples = [
        Sample(nodes={name: [[1.0], [2.0]], "other": [[4.0, 5.0]]}, edges=given),
        Sample(other=[[1, 2]]),
        Sample(nodes={name: [[3.0]], "other": [[6.0, 7.0]]}, edges=given),
    ]
    graph = GraphBuilder(schema)(samples)
    g = graph.to_dgl()
    assert_same_graph(Graph.from_dgl(g, schema), graph)
    assert_same_graph(Graph.from_dgl(load_dgl().unbatch(g), schema), unnamed(graph))
    assert set(Graph.from_dgl(g).x) == {name, "other"}


@pytest.mark.parametrize("name", ["batch", "_ID", "_TYPE", "%SRC/a", "ü", "edge index", "src", "y"])
def test_any_name_of_fields_survives_with_its_schema(name: str) -> None:
    key = ("a", "r", "a")
    schema = Schema([NodeType("a", 1, {name: 0})], [EdgeType(*key, rule=rules.given, features={name: 2})])
    edges = {key: {"index": [[0, 1], [1, 0]], name: [[5, 6], [7, 8]]}}
    samples = [Sample(a={"x": [[1], [2]], name: [3, 4]}, edges=edges), Sample(a={"x": [[9]], name: [1]})]
    graph = GraphBuilder(schema)([samples[0], samples[1], samples[0]])
    g = graph.to_dgl()
    assert_same_graph(Graph.from_dgl(g, schema), graph)
    assert_same_graph(Graph.from_dgl(load_dgl().unbatch(g), schema), unnamed(graph))


def test_columns_that_dgl_keeps_for_itself_are_no_fields() -> None:
    g = hetero({"a": torch.rand(3, 2)}, {("a", "r", "a"): ([0, 1, 2], [1, 2, 0])})
    part = load_dgl().node_subgraph(g, [2, 0])
    part.edata["index"] = torch.zeros(part.num_edges())
    assert {"_ID", "x"} <= set(part.ndata)
    graph = Graph.from_dgl(part)
    assert torch.equal(graph.x["a"], g.ndata["x"][[2, 0]])
    assert (dict(graph.fields["a"]), graph.edges["a", "r", "a"].features) == ({}, {})
    assert graph.edge_index["a", "r", "a"].tolist() == [[0], [1]]


def test_a_homogeneous_graph_has_dgls_names_of_its_types() -> None:
    g = load_dgl().graph(([0, 1], [1, 0]))
    g.ndata["x"], g.edata["w"] = torch.rand(2, 3), torch.rand(2, 1)
    graph = Graph.from_dgl(g)
    assert list(graph.x) == ["_N"]
    assert torch.equal(graph.edges["_N", "_E", "_N"].features["w"], g.edata["w"])


# ---- targets and ids --------------------------------------------------------------------------------------------


def test_ids_and_targets_survive_copies_and_moves_of_the_object() -> None:
    targets = [1, "word", None, torch.ones(2, 3), {"a": 1}]
    graph = GraphBuilder(Schema([NodeType("a", 1)]))(
        [Sample(id=f"s{i}", a=[[i]], target=t) for i, t in enumerate(targets)]
    )
    g = graph.to_dgl()
    for data in (g, g.int(), g.to("cpu"), g.local_var(), copy.copy(g)):
        again = Graph.from_dgl(data)
        assert again.ids == graph.ids
        assert all(same_target(t, u) for t, u in zip(again.target, targets, strict=True))


def test_targets_that_others_attach_are_read() -> None:
    g = load_dgl().batch([hetero({"a": torch.ones(1, 2)}), hetero({"a": torch.ones(2, 2)})])
    g.y = torch.tensor([4, 7])
    assert [int(t) for t in Graph.from_dgl(g).target] == [4, 7]
    g.y = [1]
    with pytest.raises(HetgraphError, match="y has 1 entries for a batch of 2"):
        Graph.from_dgl(g)


# ---- refused ----------------------------------------------------------------------------------------------------


def good():
    return hetero({"a": torch.ones(2, 1), "b": torch.ones(3, 2)}, {KEY: ([0, 1], [2, 0])})


def test_edges_of_a_batch_may_come_in_any_order_and_as_32_bit_integers() -> None:
    order = [3, 0, 2, 1]
    g = load_dgl().batch([good(), good()])
    src, dst = g.edges(order="eid")
    turned = hetero({name: g.nodes[name].data["x"] for name in g.ntypes}, {KEY: (src[order], dst[order])})
    turned.set_batch_num_nodes({name: g.batch_num_nodes(name) for name in g.ntypes})
    turned.edata["w"] = torch.tensor(order)
    graph = Graph.from_dgl(turned.int())
    assert graph.edge_index[KEY].tolist() == [[0, 1, 3, 2], [2, 0, 3, 5]]
    assert graph.edges[KEY].features["w"].flatten().tolist() == [0, 1, 3, 2]
    assert_same_graph(graph, Graph.from_dgl(turned))


def broken_counts(counts: dict[str, list[int]]):
    g = load_dgl().batch([good(), good()])
    g.set_batch_num_nodes({name: torch.tensor(value) for name, value in counts.items()})
    return g


def changed(**columns: torch.Tensor):
    g = good()
    for name, value in columns.items():
        (g.nodes["a"].data if name in "xp" else g.edata)[name] = value
    return g


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: broken_counts({"a": [2, 2], "b": [4, 2]}), [str(KEY), "connects different samples"]),
        (lambda: broken_counts({"a": [2, 1], "b": [3, 3]}), ["'a'", "2 numbers that add up to 4", "[2, 1]"]),
        (lambda: broken_counts({"a": [2, 2], "b": [3, 2, 1]}), ["'b'", "2 numbers that add up to 6", "[3, 2, 1]"]),
        (lambda: broken_counts({"a": [5, -1], "b": [3, 3]}), ["'a'", "[5, -1]"]),
        (lambda: broken_counts({"a": [2, 2]}), ["'b'", "batch_num_nodes is not set"]),
        (lambda: hetero({"a": 2, "b": torch.ones(1, 1)}), ["sample '0'", "'a'", "no x"]),
        (lambda: changed(x=torch.ones(2)), ["'a'", "[N, dim]", "[2]"]),
        (lambda: changed(x=torch.full((2, 1), torch.nan)), ["'a'", "'x'", "nan"]),
        (lambda: changed(p=torch.tensor([1.0, torch.inf])), ["'a'", "'p'", "inf"]),
        (lambda: changed(relation=torch.ones(2)), [str(KEY), "relation", "float32"]),
        (lambda: changed(relation=torch.ones(2, 1).long()), [str(KEY), "relation", "[2, 1]"]),
        (lambda: changed(w=torch.tensor([1.0, torch.nan])), [str(KEY), "'w'", "not finite"]),
        (lambda: load_dgl().to_block(good()), ["blocks"]),
        (lambda: [], ["empty list"]),
        (lambda: [good(), None], ["DGLGraph", "list"]),
        (lambda: {"a": 1}, ["DGLGraph", "dict"]),
        (lambda: None, ["DGLGraph", "NoneType"]),
        (
            lambda: [hetero({"a": torch.ones(1, 2)}), hetero({"a": torch.ones(1, 3)})],
            ["sample '1'", "'a' has dim 3", "2"],
        ),
    ],
)
def test_bad_data_is_refused_by_name(make, words: list[str]) -> None:
    with pytest.raises(HetgraphError) as caught:
        Graph.from_dgl(make())
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_data_of_another_schema_is_refused() -> None:
    a, b = NodeType("a", 1), NodeType("b", 2)
    for schema, words in (
        (Schema([a]), "unknown node type 'b'"),
        (Schema([a, b]), "unknown edge type"),
        (Schema([NodeType("a", 5), b], [EdgeType(*KEY)]), "'a' has dim 1, the schema says 5"),
        (Schema([NodeType("a", 1, {"box": 4}), b], [EdgeType(*KEY)]), "'a' lacks the field 'box'"),
        (Schema([a, b], [EdgeType(*KEY, rules.given, {"w": 1})]), "lacks the feature 'w'"),
        (Schema([a, b], [EdgeType(*KEY, rules.given, relations=["p"])]), "'relation'"),
    ):
        for data in (good(), load_dgl().batch([good(), good()])):
            with pytest.raises(HetgraphError, match=words):
                Graph.from_dgl(data, schema)


def test_the_edges_are_those_of_the_data_whatever_the_rules_say() -> None:
    schema = Schema([NodeType("a", 1), NodeType("b", 2)], [EdgeType(*KEY, rule=rules.all_pairs)])
    graph = Graph.from_dgl(good(), schema)
    assert graph.schema is schema
    assert graph.edge_index[KEY].tolist() == [[0, 1], [2, 0]]
