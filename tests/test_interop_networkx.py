"""networkx gets every node and edge with its attributes, parallel edges one by one."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import pytest
import torch
from hypothesis import given
from strategies import World, same_numbers, worlds

from hetgraph import EdgeType, GraphBuilder, NodeType, Sample, Schema, rules


def as_networkx(world: World):
    graph = GraphBuilder(world.schema, torch.float64)(world.samples)
    return graph, graph.to_networkx()


@given(worlds())
def test_every_node_is_there_with_its_type_sample_and_fields(world: World) -> None:
    graph, out = as_networkx(world)
    assert isinstance(out, nx.MultiDiGraph)
    assert out.number_of_nodes() == graph.num_nodes
    for name, x in graph.x.items():
        for i in range(len(x)):
            node = out.nodes[name, i]
            assert node["type"] == name
            assert node["sample"] == graph.ids[graph.batch[name][i]]
            assert same_numbers(torch.as_tensor(node["x"]), x[i])
            for field, value in graph.fields[name].items():
                key = f"field:{field}" if field in ("type", "sample") else field
                assert same_numbers(torch.as_tensor(node[key]), value[i])
            assert len(node) == 3 + len(graph.fields[name])


@given(worlds())
def test_every_edge_is_there_once_for_each_time_it_is_given(world: World) -> None:
    graph, out = as_networkx(world)
    assert out.number_of_edges() == sum(len(edges) for edges in graph.edges.values())
    found = Counter((a, data["relation"], b) for a, b, data in out.edges(data=True))
    expected: Counter = Counter()
    for (src, relation, dst), index in graph.edge_index.items():
        expected.update(((src, i), relation, (dst, j)) for i, j in index.T.tolist())
    assert found == expected


@given(worlds())
def test_edges_carry_their_features_and_relation_ids(world: World) -> None:
    graph, out = as_networkx(world)
    for (src, relation, dst), edges in graph.edges.items():
        seen: Counter = Counter()
        for e, (i, j) in enumerate(edges.index.T.tolist()):
            key = (relation, seen[i, j]) if seen[i, j] else relation
            seen[i, j] += 1
            data = out.edges[(src, i), (dst, j), key]
            for name, value in edges.features.items():
                place = "feature:relation_id" if name == "relation_id" else name
                assert same_numbers(torch.as_tensor(data[place]), value[e])
            if edges.relation is None:
                assert "relation_id" not in data
            else:
                assert data["relation_id"] == edges.relation[e]


@given(worlds())
def test_samples_are_not_connected(world: World) -> None:
    _, out = as_networkx(world)
    for part in nx.weakly_connected_components(out):
        assert len({out.nodes[node]["sample"] for node in part}) == 1


def test_parallel_edges_are_kept_apart() -> None:
    key = ("a", "r", "a")
    schema = Schema([NodeType("a", 1)], [EdgeType(*key, rule=rules.given, features={"f": 0}), EdgeType("a", "s", "a")])
    edges = {key: {"index": [[0, 0, 0, 1], [1, 1, 1, 0]], "f": [1, 2, 3, 4]}}
    out = GraphBuilder(schema)([Sample(id="s", a=[[1.0], [2.0]], edges=edges)]).to_networkx()
    assert sorted(out[("a", 0)][("a", 1)], key=str) == [("r", 1), ("r", 2), "r", "s"]
    assert [out.edges[("a", 0), ("a", 1), k]["f"].item() for k in ("r", ("r", 1), ("r", 2))] == [1, 2, 3]


@pytest.mark.parametrize("name", ["type", "sample", "node_for_adding", "x2", "key", "u_for_edge", "attr", "self"])
def test_no_field_or_feature_name_is_lost(name: str) -> None:
    key = ("a", "r", "a")
    schema = Schema([NodeType("a", 1, {name: 0})], [EdgeType(*key, rule=rules.given, features={name: 0})])
    sample = Sample(id="s", a={"x": [[1.0]], name: [7]}, edges={key: {"index": [[0], [0]], name: [9]}})
    out = GraphBuilder(schema)([sample]).to_networkx()
    node, edge = out.nodes["a", 0], out.edges[("a", 0), ("a", 0), "r"]
    assert node["type"] == "a"
    assert node["sample"] == "s"
    assert node[f"field:{name}" if name in ("type", "sample") else name] == 7
    assert edge[name] == 9
    assert edge["relation"] == "r"
