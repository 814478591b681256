"""The packed record gives its samples back, numbers groups, and moves whole."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import World, assert_same_graph, same_numbers, same_target, worlds

from hetgraph import EdgeType, Graph, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.builders import conversation
from hetgraph.parcel import pack, unpack


def build(world: World) -> Graph:
    return GraphBuilder(world.schema, torch.float64)(world.samples)


@given(worlds())
def test_a_graph_gives_every_sample_back(world: World) -> None:
    builder = GraphBuilder(world.schema, torch.float64)
    graph = build(world)
    for i, sample in enumerate(world.samples):
        back = graph[i]
        assert back.id == graph.ids[i] == (str(i) if sample.id is None else sample.id)
        assert back.target is sample.target
        assert set(back.nodes) == {name for name, values in sample.nodes.items() if len(values["x"])}
        for name, values in back.nodes.items():
            assert set(values) == set(sample.nodes[name])
            assert all(same_numbers(value, sample.nodes[name][field]) for field, value in values.items())
        alone = builder([sample])
        alone.ids = (back.id,)
        assert_same_graph(builder([back]), alone)


@given(worlds())
def test_a_graph_built_from_its_own_samples_is_the_same(world: World) -> None:
    graph = build(world)
    assert_same_graph(GraphBuilder(world.schema, torch.float64)(list(graph)), graph)


@given(worlds())
def test_samples_are_counted_from_the_end_too(world: World) -> None:
    graph = build(world)
    for i in range(len(graph)):
        assert graph[i - len(graph)].id == graph[i].id
    for i in (len(graph), -len(graph) - 1):
        with pytest.raises(IndexError, match=str(i)):
            graph[i]


@given(worlds())
def test_a_graph_survives_copying_pickling_and_moving(world: World) -> None:
    graph = build(world)
    for again in (copy.copy(graph), copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.to("cpu")):
        assert again.schema == graph.schema
        assert_same_graph(again, graph)
    assert graph.to("cpu") is graph
    away = graph.to("meta")
    assert away.device.type == "meta"
    assert len(away) == len(graph)
    for name in graph.x:
        assert away.x[name].is_meta
        assert away.counts[name].is_meta
        assert away.x[name].shape == graph.x[name].shape
        assert all(value.is_meta for value in away.fields[name].values())
    for key, edges in graph.edges.items():
        for tensor in (edges._mask, edges._index, edges.relation, *edges._features.values()):
            assert tensor is None or not tensor.is_meta
        moved = away.edges[key]
        for tensor in (moved._mask, moved._index, moved.relation, *moved._features.values()):
            assert tensor is None or tensor.is_meta
        assert moved.structure == edges.structure
    for target, before in zip(away.target, graph.target, strict=True):
        assert isinstance(target, torch.Tensor) == isinstance(before, torch.Tensor)
        assert isinstance(target, torch.Tensor) or same_target(target, before)


def test_views_name_what_they_know_and_cannot_be_written() -> None:
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], [EdgeType("a", "r", "b")])
    graph = GraphBuilder(schema)([Sample(a=[[1], [2]]), Sample(b=[[3]])])
    assert {name: value.tolist() for name, value in graph.counts.items()} == {"a": [2, 0], "b": [0, 1]}
    assert {name: value.tolist() for name, value in graph.batch.items()} == {"a": [0, 0], "b": [1]}
    assert {key: value.tolist() for key, value in graph.edge_index.items()} == {("a", "r", "b"): [[], []]}
    assert graph.num_nodes == 3
    for view in (graph.counts, graph.batch, graph.edge_index):
        with pytest.raises(KeyError, match="known"):
            view["zzz"]
        with pytest.raises(TypeError):
            view["a"] = 1  # type: ignore[index]
    assert repr(graph) == "Graph(2 samples; a: 2, b: 1; 1 edge types)"


def test_edges_of_a_rule_are_not_handed_out_as_given() -> None:
    schema = Schema([NodeType("a", 1)], [EdgeType("a", "r", "a"), EdgeType("a", "g", "a", rule=rules.given)])
    graph = GraphBuilder(schema)([Sample(a=[[1], [2]], edges={("a", "g", "a"): [[0], [1]]})])
    assert list(graph[0].edges) == [("a", "g", "a")]
    again = Graph.from_pyg(graph.to_pyg(), schema)
    assert list(again[0].edges) == [("a", "g", "a")]
    assert_same_graph(GraphBuilder(schema)(list(again)), graph)


# ---- groups -----------------------------------------------------------------------------------------------------


def talk(*samples: dict[str, list[int]]) -> Graph:
    """Conversations of one utterance number per node: ``talk({"text": [0, 1], "audio": [1]}, ...)``."""
    schema = conversation(text=2, audio=3).extend(NodeType("room", 1))
    dims = {"text": 2, "audio": 3}
    return GraphBuilder(schema)(
        [
            Sample(
                id=f"talk-{i}",
                room=[[1.0]],
                nodes={name: {"x": torch.zeros(len(g), dims[name]), "group": g} for name, g in sample.items() if g},
            )
            for i, sample in enumerate(samples)
        ]
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.randoms(use_true_random=False), st.booleans(), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_groups_are_numbered_one_sample_after_the_other(plan) -> None:
    samples = []
    for count, random, text, audio in plan:
        sample = {}
        for name, present in (("text", text), ("audio", audio)):
            # a modality that is there has every group at least once, in any order
            groups = [*range(count), *(random.randrange(count) for _ in range(2 if count else 0))]
            random.shuffle(groups)
            sample[name] = groups if present else []
        samples.append(sample)
    graph = talk(*samples)
    numbers, owner = graph.groups("group")
    sizes = [max([*s["text"], *s["audio"], -1]) + 1 for s in samples]
    assert owner.tolist() == [i for i, size in enumerate(sizes) for _ in range(size)]
    assert set(numbers) == {"text", "audio"}
    for name, packed in numbers.items():
        assert packed.dtype == torch.int64
        assert packed.tolist() == [sum(sizes[:i]) + g for i, s in enumerate(samples) for g in s[name]]


def test_a_modality_may_have_only_some_of_the_groups() -> None:
    numbers, owner = talk({"text": [0, 2], "audio": [1]}, {"audio": [0]}).groups("group")
    assert numbers["text"].tolist() == [0, 2]
    assert numbers["audio"].tolist() == [1, 3]
    assert owner.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([0, 2], "0 .. n-1"),
        ([1], "0 .. n-1"),
        ([0, 3, 1], "0 .. n-1"),
        ([0, 0, 2], "no node is in group 1"),
        ([0, 10**15], "group 1000000000000000"),
        ([2**63 - 1], "group 9223372036854775807"),
        ([0, -1], "negative"),
    ],
)
def test_gaps_and_negative_numbers_are_refused_by_sample(groups: list[int], words: str) -> None:
    for samples in ([{"text": groups}], [{"text": [0]}, {"text": groups}], [{"text": groups}, {"audio": [0]}]):
        place = samples.index({"text": groups})
        with pytest.raises(HetgraphError, match=rf"sample 'talk-{place}'.*'group'.*{words}"):
            talk(*samples).groups("group")


def test_groups_of_something_else_are_refused() -> None:
    with pytest.raises(HetgraphError, match="'speaker'"):
        talk({"text": [0]}).groups("speaker")
    schema = Schema([NodeType("a", 1, {"half": 0, "wide": 2})])
    graph = GraphBuilder(schema)([Sample(a={"x": [[1]], "half": [0.5], "wide": [[1, 2]]})])
    for field in ("half", "wide"):
        with pytest.raises(HetgraphError, match=f"'{field}'.*one integer per node"):
            graph.groups(field)


def test_what_layers_derived_does_not_travel_with_a_graph() -> None:
    graph = GraphBuilder(Schema([NodeType("a", 2)]))([Sample(a=torch.ones(3, 2))])
    size = len(pickle.dumps(graph))
    graph.cache["large"] = torch.zeros(100_000)
    graph.cache["cannot be pickled"] = lambda: None
    assert len(pickle.dumps(graph)) == size
    for again in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph), unpack(pack(graph))):
        assert "large" not in again.cache
        assert_same_graph(again, graph)
        again.cache["own"] = 1
    assert set(graph.cache) == {"large", "cannot be pickled"}
