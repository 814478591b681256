"""PyG and back keeps everything, also where PyG's own batching would credit nodes to the wrong sample."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ODD_NAMES, World, assert_same_graph, same_numbers, same_target, worlds
from torch_geometric.data import Batch, Data, HeteroData

from hetgraph import EdgeType, Graph, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.builders import image_text

KEY = ("a", "r", "b")


def build(world: World) -> Graph:
    return GraphBuilder(world.schema, torch.float64)(world.samples)


def hetero(**stores: dict) -> HeteroData:
    """``hetero(a={"x": ...}, a__r__b={"edge_index": ...}, y=...)``."""
    out = HeteroData()
    for name, values in stores.items():
        if not isinstance(values, dict):
            out[name] = values
            continue
        store = out[tuple(name.split("__"))] if "__" in name else out[name]
        for field, value in values.items():
            store[field] = value
    return out


@given(worlds())
def test_a_round_trip_through_a_batch_keeps_everything(world: World) -> None:
    graph = build(world)
    again = Graph.from_pyg(graph.to_pyg(), world.schema)
    assert again.schema == world.schema
    assert_same_graph(again, graph)


@given(worlds())
def test_a_round_trip_through_a_list_keeps_everything(world: World) -> None:
    graph = build(world)
    parts = graph.to_pyg().to_data_list()
    assert_same_graph(Graph.from_pyg(parts, world.schema), graph)
    for i, part in enumerate(parts):
        one = Graph.from_pyg(part, world.schema)
        assert len(one) == 1
        assert one.ids == (graph.ids[i],)
        assert same_target(one.target[0], graph.target[i])
        for name in graph.x:
            assert torch.equal(one.x[name], graph.x[name][graph.batch[name] == i])
        for key, edges in graph.edges.items():
            inside, index = edges.of_sample(i)
            assert torch.equal(one.edge_index[key], index)
            for feature, value in edges.features.items():
                assert torch.equal(one.edges[key].features[feature], value[inside])


@given(worlds())
def test_a_round_trip_without_the_schema_reads_it_off_the_data(world: World) -> None:
    graph = build(world)
    batch = graph.to_pyg()
    again = Graph.from_pyg(batch)
    assert again.ids == graph.ids
    assert list(again.x) == list(graph.x)
    for name, node in world.schema.nodes.items():
        assert torch.equal(again.x[name], graph.x[name])
        assert torch.equal(again.counts[name], graph.counts[name])
        assert again.schema.nodes[name].all_fields == node.all_fields
        assert set(again.schema.nodes[name].optional) <= set(node.optional)
        for field, value in graph.fields[name].items():
            assert same_numbers(again.fields[name][field], value)
    for key, edge in world.schema.edges.items():
        assert again.schema.edges[key].rule == rules.given
        assert torch.equal(again.edge_index[key], graph.edge_index[key])
        # PyG has no features of width 0: one number in each row of a column is a width of 1
        assert dict(again.schema.edges[key].features) == {f: max(w, 1) for f, w in edge.features.items()}
        for feature, value in graph.edges[key].features.items():
            assert torch.equal(again.edges[key].features[feature], value)
        if edge.relations and len(graph.edges[key]):
            assert torch.equal(again.edges[key].relation, graph.edges[key].relation)
    assert_same_graph(Graph.from_pyg(batch.to_data_list()), again)


@given(worlds())
def test_pyg_sees_every_sample_with_all_types_and_its_own_nodes(world: World) -> None:
    graph = build(world)
    batch = graph.to_pyg()
    assert batch.num_graphs == len(graph)
    assert batch.node_types == list(world.schema.nodes)
    assert batch.edge_types == list(world.schema.edges)
    for name in world.schema.nodes:
        store = batch.get_node_store(name)
        assert torch.equal(store["batch"], graph.batch[name])
        assert torch.equal(store["x"], graph.x[name])
        assert store.num_nodes == len(graph.x[name])
    for key in world.schema.edges:
        assert torch.equal(batch.get_edge_store(*key)["edge_index"], graph.edge_index[key])


def test_fields_and_features_have_their_own_names() -> None:
    key = ("a", "r", "a")
    schema = Schema(
        [NodeType("a", 1, {"box": 4, "group": 0})],
        [EdgeType(*key, rule=rules.given, features={"edge_attr": 2}, relations=["p", "q"])],
    )
    edges = {key: {"index": [[0], [1]], "edge_attr": [[1, 2]], "relation": ["q"]}}
    nodes = {"x": np.ones((2, 1)), "box": np.ones((2, 4)), "group": [3, 4]}
    batch = GraphBuilder(schema)([Sample(id="s", target=7, a=nodes, edges=edges)] * 2).to_pyg()
    assert batch["a"].box.shape == (4, 4)
    assert batch["a"].group.tolist() == [3, 4, 3, 4]
    assert batch[key].edge_attr.tolist() == [[1, 2], [1, 2]]
    assert batch[key].relation.tolist() == [1, 1]
    assert batch[key].edge_index.tolist() == [[0, 2], [1, 3]]
    assert batch.y.tolist() == [7, 7]
    assert batch.sample_id == ["s", "s"]


# ---- missing modalities -----------------------------------------------------------------------------------------

a_only, with_b = {"a": {"x": torch.zeros(1, 1)}}, {"a": {"x": torch.zeros(1, 1)}, "b": {"x": torch.ones(2, 3)}}


def test_a_list_is_right_where_pygs_own_batch_credits_nodes_to_the_wrong_sample() -> None:
    parts = [hetero(**with_b), hetero(**a_only), hetero(**with_b)]
    wrong = Batch.from_data_list(parts)
    assert wrong["b"].batch.tolist() == [0, 0, 1, 1]
    graph = Graph.from_pyg(parts)
    assert len(graph) == 3
    assert graph.batch["b"].tolist() == [0, 0, 2, 2]
    assert graph.counts["b"].tolist() == [2, 0, 2]
    with pytest.raises(HetgraphError, match=r"'b': only 2 of 3 samples have it.*pass the list"):
        Graph.from_pyg(wrong)


def test_a_list_is_right_where_pygs_own_batch_loses_nodes() -> None:
    parts = [hetero(**a_only), hetero(**with_b)]
    assert "b" not in Batch.from_data_list(parts).node_types
    assert Graph.from_pyg(parts).batch["b"].tolist() == [1, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5))
def test_a_list_may_lack_types_anywhere_and_to_pyg_repairs_it(sizes) -> None:
    assume(all(a + b for a, b in sizes) and any(a and b for a, b in sizes))
    parts = []
    for a, b in sizes:
        part = HeteroData()
        if a:
            part["a"].x = torch.rand(a, 2)
        if b:
            part["b"].x = torch.rand(b, 3)
        if a and b:
            part[KEY].edge_index = torch.cartesian_prod(torch.arange(a), torch.arange(b)).T
        parts.append(part)
    graph = Graph.from_pyg(parts)
    assert graph.counts["a"].tolist() == [a for a, _ in sizes]
    assert graph.counts["b"].tolist() == [b for _, b in sizes]
    assert len(graph.edges[KEY]) == sum(a * b for a, b in sizes)
    batch = graph.to_pyg()
    assert batch.num_graphs == len(sizes)
    for name in ("a", "b"):
        assert torch.equal(batch[name].batch, graph.batch[name])
    assert_same_graph(Graph.from_pyg(batch), graph)


def test_fields_may_be_missing_in_some_samples_and_are_then_optional() -> None:
    parts = [
        hetero(a={"x": torch.ones(2, 1), "box": torch.ones(2, 4), "p": torch.ones(2)}),
        hetero(a={"x": torch.ones(1, 1), "p": torch.ones(1)}),
    ]
    node = Graph.from_pyg(parts).schema.nodes["a"]
    assert (dict(node.fields), dict(node.optional)) == ({"p": 0}, {"box": 4})
    parts.append(hetero(a={"x": torch.ones(0, 1)}, b={"x": torch.ones(1, 1)}))
    node = Graph.from_pyg(parts).schema.nodes["a"]
    assert (dict(node.fields), dict(node.optional)) == ({"p": 0}, {"box": 4})


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("target", [3, "word", torch.ones(2)], ids=str)
def test_any_name_of_types_survives(name: str, target) -> None:
    key = (name, name, name)
    schema = Schema([NodeType(name, 1), NodeType("other", 2)], [EdgeType(*key, rule=rules.given)])
    samples = [
        Sample(target=target, nodes={name: [[1.0], [2.0]]}, edges={key: [[0], [1]]}),
        Sample(target=target, other=[[1, 2]]),
        Sample(target=target, nodes={name: [[3.0]]}, edges={key: [[0], [0]]}),
    ]
    graph = GraphBuilder(schema)(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = graph.to_pyg()
    for data in (batch, batch.to_data_list()):
        assert_same_graph(Graph.from_pyg(data, schema), graph)


@pytest.mark.parametrize(
    "name",
    [
        *("batch", "ptr", "num_nodes", "x_batch", "batch_index", "index.", "edge_index", "token_index"),
        *("adj", "face", "%62atch", "100%", "%"),
    ],
)
def test_names_of_fields_that_pyg_would_count_up_survive(name: str) -> None:
    key = ("a", "r", "a")
    schema = Schema([NodeType("a", 1, {name: 0})], [EdgeType(*key, rule=rules.given, features={name: 2})])
    edges = {key: {"index": [[0, 1], [1, 0]], name: [[5, 6], [7, 8]]}}
    samples = [Sample(a={"x": [[1], [2]], name: [3, 4]}, edges=edges), Sample(a={"x": [[9]], name: [1]})]
    graph = GraphBuilder(schema)([samples[0], samples[1], samples[0]])
    assert graph.fields["a"][name].tolist() == [3, 4, 1, 3, 4]
    batch = graph.to_pyg()
    for data in (batch, batch.to_data_list()):
        assert_same_graph(Graph.from_pyg(data, schema), graph)
        again = Graph.from_pyg(data)
        assert again.fields["a"][name].tolist() == [3, 4, 1, 3, 4]
        assert again.edges[key].features[name].tolist() == [[5, 6], [7, 8]] * 2


def test_foreign_names_that_look_escaped_are_left_alone() -> None:
    part = hetero(a={"x": torch.ones(2, 1), "a%20b": torch.ones(2), "50%": torch.ones(2)})
    assert set(Graph.from_pyg(part).fields["a"]) == {"a%20b", "50%"}


# ---- targets and ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets",
    [
        [None, None],
        [1, 2],
        [1, 2.5],
        [True, False],
        ["yes", "no"],
        [None, 1],
        ["yes", None],
        [1, "yes"],
        [torch.tensor(1), torch.tensor(2)],
        [torch.ones(3), torch.zeros(3)],
        [torch.ones(3), torch.zeros(1)],
        [torch.ones(0), torch.zeros(2)],
        [torch.ones(1, 3), torch.zeros(2, 3)],
        [torch.ones(2, 3), torch.zeros(2, 4)],
        [torch.ones(2), None],
        [torch.ones(2), torch.ones(2, dtype=torch.long)],
        [[1, 2], [3]],
        [[torch.ones(2)], [torch.ones(2), torch.ones(1)]],
        [{"start": 1}, {"end": 2}],
        [{"start": 1}, {"start": 2}],
        [("a",), ()],
    ],
    ids=str,
)
def test_targets_come_back_as_they_were(targets: list) -> None:
    schema = Schema([NodeType("a", 1)])
    graph = GraphBuilder(schema)([Sample(a=[[1.0]], target=t) for t in targets])
    batch = graph.to_pyg()
    for data in (batch, batch.to_data_list()):
        again = Graph.from_pyg(data, schema).target
        for target, before in zip(again, targets, strict=True):
            if isinstance(before, list) and isinstance(before[0], torch.Tensor):
                assert all(same_target(t, u) for t, u in zip(target, before, strict=True))
            else:
                assert same_target(target, before)


def test_node_labels_are_fields_and_no_targets() -> None:
    part = hetero(a={"x": torch.ones(2, 1), "y": torch.tensor([0, 1]), "sample_id": torch.tensor([5, 6])})
    for data in (part, Batch.from_data_list([part, part])):
        graph = Graph.from_pyg(data)
        assert set(graph.target) == {None}
        assert graph.ids[0] == "0"
        assert graph.fields["a"]["y"][:2].tolist() == [0, 1]
        assert data.node_types == ["a"]


def test_graph_level_labels_are_targets() -> None:
    parts = [hetero(a={"x": torch.ones(1, 1)}, y=torch.tensor([i])) for i in (4, 7)]
    for data in (parts, Batch.from_data_list(parts)):
        assert [t.item() for t in Graph.from_pyg(data).target] == [4, 7]


# ---- refused ----------------------------------------------------------------------------------------------------


def good() -> HeteroData:
    return hetero(
        a={"x": torch.ones(2, 1)}, b={"x": torch.ones(3, 2)}, a__r__b={"edge_index": torch.tensor([[0, 1], [2, 0]])}
    )


def test_an_unsorted_batch_is_refused() -> None:
    batch = Batch.from_data_list([good(), good()])
    batch["b"].batch = batch["b"].batch.flip(0)
    with pytest.raises(HetgraphError, match=r"'b'.*not sorted by sample"):
        Graph.from_pyg(batch)


def test_edges_between_samples_are_refused() -> None:
    batch = Batch.from_data_list([good(), good()])
    batch[KEY].edge_index = torch.tensor([[0], [3]])
    with pytest.raises(HetgraphError, match=r"\('a', 'r', 'b'\).*connects different samples"):
        Graph.from_pyg(batch)


def test_edges_of_a_batch_may_come_in_any_order() -> None:
    batch = Batch.from_data_list([good(), good()])
    before = Graph.from_pyg(batch)
    batch[KEY].edge_index = batch[KEY].edge_index[:, [3, 0, 2, 1]]
    after = Graph.from_pyg(batch)
    assert sorted(after.edge_index[KEY].T.tolist()) == sorted(before.edge_index[KEY].T.tolist())
    assert after.batch["a"][after.edge_index[KEY][0]].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda d: d["a"].pop("x"), ["'a'", "no x"]),
        (lambda d: d["a"].update(x=torch.ones(2)), ["'a'", "[N, dim]", "[2]"]),
        (lambda d: d["a"].update(x=torch.full((2, 1), torch.nan)), ["'a'", "'x'", "nan"]),
        (lambda d: d["a"].update(p=torch.tensor([1.0, torch.inf])), ["'a'", "'p'", "inf"]),
        (lambda d: d[KEY].pop("edge_index"), [str(KEY), "edge_index"]),
        (lambda d: d[KEY].update(edge_index=torch.tensor([[2], [0]])), [str(KEY), "0 .. 1", "2 .. 2"]),
        (lambda d: d[KEY].update(edge_index=torch.tensor([[-1], [0]])), [str(KEY), "-1 .. -1"]),
        (lambda d: d[KEY].update(edge_index=torch.ones(2, 1)), [str(KEY), "integers", "float32"]),
        (lambda d: d[KEY].update(edge_index=torch.ones(3, 1).long()), [str(KEY), "[3, 1]"]),
        (lambda d: d[KEY].update(relation=torch.ones(2)), [str(KEY), "relation", "float32"]),
        (lambda d: d[KEY].update(relation=torch.ones(3).long()), [str(KEY), "relation", "[3]"]),
        (lambda d: d[KEY].update(w=torch.tensor([1.0, torch.nan])), [str(KEY), "'w'", "not finite"]),
        (
            lambda d: d["a", "r", "zzz"].update(edge_index=torch.tensor([[0], [0]])),
            ["no node type 'zzz'", "['a', 'b']"],
        ),
    ],
)
def test_bad_data_is_refused_by_name(harm, words: list[str]) -> None:
    one, batch = good(), Batch.from_data_list([good()])
    for data in (one, batch):
        harm(data)
        with pytest.raises(HetgraphError) as caught:
            Graph.from_pyg(data)
        for word in words:
            assert word in str(caught.value), str(caught.value)


def test_data_of_another_schema_is_refused() -> None:
    batch = Batch.from_data_list([good(), good()])
    for schema, words in (
        (Schema([NodeType("a", 1)]), "unknown node type 'b'"),
        (Schema([NodeType("a", 1), NodeType("b", 2)]), "unknown edge type"),
        (Schema([NodeType("a", 5), NodeType("b", 2)], [EdgeType(*KEY)]), "'a' has dim 1, the schema says 5"),
        (Schema([NodeType("a", 1, {"box": 4}), NodeType("b", 2)], [EdgeType(*KEY)]), "'a' lacks the field 'box'"),
        (
            Schema([NodeType("a", 1), NodeType("b", 2)], [EdgeType(*KEY, rules.given, {"w": 1})]),
            "lacks the feature 'w'",
        ),
        (Schema([NodeType("a", 1), NodeType("b", 2)], [EdgeType(*KEY, rules.given, relations=["p"])]), "'relation'"),
    ):
        for data in (batch, good()):
            with pytest.raises(HetgraphError, match=words):
                Graph.from_pyg(data, schema)
    wide = Schema([NodeType("a", 1), NodeType("b", 2), NodeType("c", 3)], [EdgeType(*KEY), EdgeType("c", "r", "a")])
    assert Graph.from_pyg(batch, wide).x["c"].shape == (0, 3)


def test_the_edges_are_those_of_the_data_whatever_the_rules_say() -> None:
    schema = Schema([NodeType("a", 1), NodeType("b", 2)], [EdgeType(*KEY, rule=rules.all_pairs)])
    graph = Graph.from_pyg(good(), schema)
    assert graph.schema is schema
    assert graph.edge_index[KEY].tolist() == [[0, 1], [2, 0]]


def test_dims_that_differ_between_samples_are_refused() -> None:
    parts = [hetero(a={"x": torch.ones(1, 2)}), hetero(a={"x": torch.ones(1, 3)}, sample_id="odd")]
    with pytest.raises(HetgraphError, match=r"sample 'odd'.*'a' has dim 3.*2"):
        Graph.from_pyg(parts)


@pytest.mark.parametrize("data", [[], Data(x=torch.ones(1, 1)), [Data()], None, 3, {"a": 1}])
def test_what_is_no_heterodata_is_refused(data) -> None:
    with pytest.raises(HetgraphError, match="from_pyg"):
        Graph.from_pyg(data)


def test_the_cost_is_linear_in_the_batch() -> None:
    sample = Sample(region={"x": np.ones((4, 3)), "box": np.ones((4, 4))}, token=np.ones((5, 2)))
    schema = image_text(3, 2)
    graph = GraphBuilder(schema)([sample] * 200)
    again = Graph.from_pyg(graph.to_pyg(), schema)
    assert len(again) == 200
    assert again.edge_index["region", "with", "token"].shape == (2, 200 * 20)
