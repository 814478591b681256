"""Samples become one graph: exactly as many, every node with its own sample, every edge inside one."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import (
    World,
    assert_same_graph,
    looped_edges,
    packed_edges,
    pairs_of,
    random_field,
    same_numbers,
    within,
    worlds,
)

import hetgraph.builder
from hetgraph import EdgeType, Fusion, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.builders import image_text_audio


def build(world: World):
    return GraphBuilder(world.schema, torch.float64)(world.samples)


@given(worlds())
def test_a_batch_has_as_many_samples_as_were_given_and_every_node_its_own(world: World) -> None:
    graph = build(world)
    assert len(graph) == len(world.samples) == len(graph.ids) == len(graph.target)
    assert list(graph.x) == list(world.schema.nodes)
    assert list(graph.edges) == list(world.schema.edges)
    for name, node in world.schema.nodes.items():
        rows, owners = [], []
        for i, sample in enumerate(world.samples):
            if name in sample.nodes:
                rows += sample.nodes[name]["x"].tolist()
                owners += [i] * len(sample.nodes[name]["x"])
        assert graph.x[name].tolist() == rows
        assert graph.x[name].shape == (len(rows), node.dim)
        assert graph.batch[name].tolist() == owners
        assert graph.counts[name].tolist() == [owners.count(i) for i in range(len(graph))]


@given(worlds())
def test_fields_stay_in_order_and_missing_optional_ones_are_nan(world: World) -> None:
    graph = build(world)
    for name, node in world.schema.nodes.items():
        assert set(graph.fields[name]) == set(node.all_fields)
        for field, width in node.all_fields.items():
            parts = [torch.zeros(0, *[width] * bool(width))]
            for sample in world.samples:
                if name in sample.nodes:
                    missing = torch.full((len(sample.nodes[name]["x"]), *[width] * bool(width)), torch.nan)
                    parts.append(sample.nodes[name].get(field, missing))
            assert same_numbers(graph.fields[name][field], torch.cat([p.double() for p in parts]))


@given(worlds())
def test_edges_are_those_of_a_loop_over_single_samples(world: World) -> None:
    graph = build(world)
    for key in world.schema.edges:
        found = pairs_of(graph.edge_index[key])
        assert found == packed_edges(key, world.schema, world.samples), world.schema.edges[key]
        assert len(graph.edges[key]) == len(found)


@given(worlds())
def test_edges_never_cross_samples(world: World) -> None:
    graph = build(world)
    for (src, _, dst), index in graph.edge_index.items():
        assert torch.equal(graph.batch[src][index[0]], graph.batch[dst][index[1]])


@given(worlds(), st.randoms(use_true_random=False))
def test_a_batch_equals_its_samples_one_by_one_in_any_order(world: World, random) -> None:
    order = list(range(len(world.samples)))
    random.shuffle(order)
    builder = GraphBuilder(world.schema, torch.float64)
    graph = builder([world.samples[i] for i in order])
    for place, i in enumerate(order):
        alone = builder([world.samples[i]])
        for name in world.schema.nodes:
            mine = graph.batch[name] == place
            assert torch.equal(graph.x[name][mine], alone.x[name])
            for field, value in alone.fields[name].items():
                assert same_numbers(graph.fields[name][field][mine], value)
        for key, edges in graph.edges.items():
            inside, index = edges.of_sample(place)
            assert torch.equal(index, alone.edge_index[key])
            for feature, value in alone.edges[key].features.items():
                assert torch.equal(edges.features[feature][inside], value)
            if edges.relation is not None:
                assert torch.equal(edges.relation[inside], alone.edges[key].relation)


@given(worlds())
def test_features_of_a_user_made_rule_belong_to_their_edges(world: World) -> None:
    graph = build(world)
    for key, edge in world.schema.edges.items():
        if edge.rule is not within:
            continue
        src, dst = (graph.fields[name]["pos"] for name in (key[0], key[2]))
        features = graph.edges[key].features
        assert list(features) == ["square", "step"]
        assert features["square"].shape == (len(graph.edges[key]), 1)
        for e, (i, j) in enumerate(graph.edge_index[key].T.tolist()):
            step = dst[j] - src[i]
            assert features["step"][e].tolist() == step.tolist()
            assert features["square"][e].item() == (step**2).sum().item()


@given(worlds())
def test_given_edges_keep_order_features_and_relations(world: World) -> None:
    graph = build(world)
    for key, edge in world.schema.edges.items():
        if edge.rule is not rules.given:
            continue
        features = {name: [] for name in edge.features}
        relation = []
        for sample in world.samples:
            known = sample.edges.get(key, {})
            for name in features:
                features[name] += known[name].reshape(-1).tolist() if known else []
            ids = known.get("relation", [])
            relation += [edge.relations.index(r) if isinstance(r, str) else int(r) for r in ids]
        for name, values in features.items():
            assert graph.edges[key].features[name].flatten().tolist() == values
        assert (graph.edges[key].relation is None) == (not edge.relations)
        if edge.relations:
            assert graph.edges[key].relation.tolist() == relation


@given(worlds(), st.randoms(use_true_random=False))
def test_permuting_nodes_permutes_edges_unless_a_rule_follows_their_order(world: World, random) -> None:
    sample = world.samples[0]
    place, nodes = {}, {}
    for name, values in sample.nodes.items():
        order = list(range(len(values["x"])))
        random.shuffle(order)
        nodes[name] = {field: value[torch.tensor(order, dtype=torch.long)] for field, value in values.items()}
        place[name] = {old: new for new, old in enumerate(order)}
    edges = {}
    for key, known in sample.edges.items():
        moved = [[place[key[2 * r]][n] for n in row] for r, row in enumerate(known["index"].tolist())]
        edges[key] = {**known, "index": moved}
    builder = GraphBuilder(world.schema, torch.float64)
    before, after = builder([sample]), builder([Sample(nodes=nodes, edges=edges)])
    for key, edge in world.schema.edges.items():
        if isinstance(edge.rule, rules.Window):
            continue
        moved = [(place[key[0]][i], place[key[2]][j]) for i, j in before.edge_index[key].T.tolist()]
        assert sorted(moved) == pairs_of(after.edge_index[key])


@given(worlds())
def test_a_node_type_that_no_sample_has_changes_nothing(world: World) -> None:
    name = "a type of its own name"
    more = world.schema.extend(
        NodeType(name, 3), EdgeType(name, "to", name), EdgeType(name, "to", next(iter(world.schema.nodes)))
    )
    graph, wider = build(world), build(World(more, world.samples))
    assert wider.x[name].shape == (0, 3)
    for kind in world.schema.nodes:
        assert torch.equal(graph.x[kind], wider.x[kind])
    for key in world.schema.edges:
        assert torch.equal(graph.edge_index[key], wider.edge_index[key])


@given(worlds())
def test_the_graph_shares_no_memory_with_the_samples(world: World) -> None:
    graph = build(world)
    before = copy.deepcopy(graph)
    for sample in world.samples:
        for values in [*sample.nodes.values(), *sample.edges.values()]:
            for value in values.values():
                if isinstance(value, torch.Tensor):
                    value.fill_(1)
    assert_same_graph(graph, before)


def test_the_first_example_of_the_documentation() -> None:
    def within_5m(src, dst):  # fields carry leading batch dimensions: pos [..., N, 3]
        metres = torch.cdist(src["pos"], dst["pos"])  # [..., N_src, N_dst]
        return metres < 5.0, {"metres": metres[..., None]}  # who is connected, and edge features

    schema = image_text_audio(region=1280, token=384, frame=40).extend(
        NodeType("sensor", dim=8, fields={"pos": 3}),
        EdgeType("sensor", "within_5m", "sensor", rule=within_5m, features={"metres": 1}),
        EdgeType("sensor", "near", "region"),  # no rule: all pairs
    )
    rng = np.random.default_rng(0)
    x, t, u, s = rng.random((3, 1280)), rng.random((5, 384)), rng.random((2, 384)), rng.random((4, 8))
    box, p = random_field(rng, "box", 3, 4), np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0], [9, 9, 9]], float)
    builder = GraphBuilder(schema)
    graph = builder(
        [Sample(region={"x": x, "box": box}, token={"x": t}), Sample(token={"x": u}, sensor={"x": s, "pos": p})]
    )
    model = Fusion(schema, width=128, layers=2, heads=4, method="graph")
    out = model(graph)
    assert out.z.shape == (2, 128)
    assert out.z.isfinite().all()
    assert {name: tuple(state.shape) for name, state in out.nodes.items()} == {
        "region": (3, 128),
        "token": (7, 128),
        "frame": (0, 128),
        "sensor": (4, 128),
    }
    assert {name: tuple(alpha.shape) for name, alpha in out.weights.items()} == dict.fromkeys(schema.nodes, (2,))
    assert out.weights["frame"].tolist() == [0, 0]
    assert torch.stack(list(out.weights.values())).sum(0).tolist() == pytest.approx([1, 1])
    key = ("sensor", "within_5m", "sensor")
    # 0, 1 and 2 are 3 and 4 metres apart, 1 and 2 exactly 5
    assert pairs_of(graph.edge_index[key]) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 2), (3, 3)]
    index, values = graph.edge_index[key].T.tolist(), graph.edges[key].features["metres"][:, 0].tolist()
    metres = {(i, j): value for (i, j), value in zip(index, values, strict=True)}
    assert metres[0, 1] == pytest.approx(3)
    assert metres[2, 0] == pytest.approx(4)


# ---- linear cost ------------------------------------------------------------------------------------------------


def test_windowed_edges_of_long_samples_never_become_pairs() -> None:
    size = 5000
    schema = Schema(
        [NodeType("frame", 2)],
        [
            EdgeType("frame", "near", "frame", rule=rules.window(2)),
            EdgeType("frame", "follows", "frame", rule=rules.following),
            EdgeType("frame", "past", "frame", rule=rules.window(before=10**12, after=-4998)),
        ],
    )
    graph = GraphBuilder(schema)([Sample(frame=torch.zeros(size, 2)), Sample(frame=torch.zeros(3, 2))])
    counts = {"near": 5 * size - 6 + 9, "follows": size - 1 + 2, "past": 3}
    for (src, relation, dst), edges in graph.edges.items():
        assert len(edges) == counts[relation]
        assert graph.edge_index[src, relation, dst].shape == (2, counts[relation])
        assert edges._mask is None
        assert "mask" not in edges._made
        stored = [value for value in edges._made.values() if isinstance(value, torch.Tensor)]
        assert sum(value.numel() for value in stored) < 20 * size


def test_given_edges_cost_nothing_beyond_themselves() -> None:
    size = 5000
    key = ("entity", "fact", "entity")
    schema = Schema([NodeType("entity", 1)], [EdgeType(*key, rule=rules.given)])
    chain = torch.stack([torch.arange(size - 1), torch.arange(1, size)])
    edges = GraphBuilder(schema)([Sample(entity=torch.zeros(size, 1), edges={key: chain})]).edges[key]
    assert torch.equal(edges.index, chain)
    assert edges._mask is None
    assert edges._made == {}


# ---- bad input --------------------------------------------------------------------------------------------------

BASIC = Schema(
    [NodeType("frame", 2, fields={"time": 2, "group": 0}, optional={"pos": 3}), NodeType("token", 3)],
    [
        EdgeType("frame", "says", "token", rule=rules.given, features={"score": 2}, relations=("p", "q")),
        EdgeType("token", "next", "token", rule=rules.following),
        EdgeType("token", "link", "token", rule=rules.given),
    ],
)
SAYS, LINK, NEXT = ("frame", "says", "token"), ("token", "link", "token"), ("token", "next", "token")


def frame(**changes):
    return {"x": np.ones((2, 2)), "time": np.ones((2, 2)), "group": [0, 1], **changes}


def says(**changes):
    return {"index": [[0], [1]], "score": [[1.0, 2.0]], "relation": ["p"], **changes}


def refused(sample: Sample, *words: str, schema: Schema = BASIC) -> None:
    """The bad sample is refused wherever it stands, and the message has all the words."""
    good = Sample(id="good", token=np.ones((1, 3)))
    for batch in ([sample], [good, sample], [sample, good]):
        with pytest.raises(HetgraphError) as caught:
            GraphBuilder(schema)(batch)
        for word in ("'utt-17'", *words):
            assert word in str(caught.value), str(caught.value)


def utterance(**nodes) -> Sample:
    return Sample(id="utt-17", **nodes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    x = np.ones((2, 2))
    x[1, 0] = bad
    refused(utterance(frame=frame(x=x)), "'frame'", "'x'", "node 1", str(bad), "finite")
    refused(utterance(frame=frame(time=x)), "'frame'", "'time'", "node 1", str(bad), "finite")
    pos = np.full((2, 3), bad)
    refused(utterance(frame=frame(pos=pos)), "'frame'", "'pos'", "node 0", str(bad), "finite")
    refused(utterance(token=np.full((4, 3), bad)), "'token'", "'x'", "node 0", str(bad), "finite")


def test_a_number_too_large_for_the_dtype_is_refused() -> None:
    refused(utterance(token=np.full((1, 3), 1e300)), "'token'", "'x'", "inf")


def test_a_wrong_dim_is_refused_by_name() -> None:
    refused(utterance(token=np.ones((2, 4))), "'token'", "dim 4", "schema says 3")
    refused(utterance(token=np.ones((0, 4))), "'token'", "dim 4", "schema says 3")


def test_an_unknown_node_type_is_refused_by_name() -> None:
    refused(utterance(sensor=np.ones((2, 4))), "'sensor'", "['frame', 'token']")


def test_an_undeclared_field_is_refused_by_name() -> None:
    refused(utterance(token={"x": np.ones((1, 3)), "colour": [1]}), "'token'", "'colour'", "[]")


def test_a_missing_required_field_is_refused_by_name() -> None:
    refused(utterance(frame=frame(time=None)), "'frame'", "'time'", "requires")


def test_an_empty_node_set_needs_no_fields() -> None:
    graph = GraphBuilder(BASIC)([utterance(frame=np.zeros((0, 2)), token=np.ones((1, 3)))])
    assert graph.fields["frame"]["time"].shape == (0, 2)


@pytest.mark.parametrize(
    ("field", "value", "expected", "got"),
    [
        ("time", np.ones((2, 3)), "[N, 2]", "[2, 3]"),
        ("time", np.ones(2), "[N, 2]", "[2]"),
        ("time", np.ones((2, 2, 1)), "[N, 2]", "[2, 2, 1]"),
        ("group", np.ones((2, 1)), "[N]", "[2, 1]"),
    ],
)
def test_a_field_of_the_wrong_width_is_refused_by_name(field: str, value, expected: str, got: str) -> None:
    refused(utterance(frame=frame(**{field: value})), "'frame'", repr(field), expected, got)


def test_a_sample_without_a_single_node_is_refused_by_name() -> None:
    refused(utterance(), "not a single node")
    refused(utterance(token=np.zeros((0, 3)), frame=None), "not a single node")


def test_no_samples_are_refused() -> None:
    with pytest.raises(HetgraphError, match="at least one sample"):
        GraphBuilder(BASIC)([])


def test_something_that_is_no_sample_is_refused_by_its_place() -> None:
    with pytest.raises(HetgraphError, match="sample '1': expected a Sample, got dict"):
        GraphBuilder(BASIC)([utterance(token=np.ones((1, 3))), {"token": 1}])  # type: ignore[list-item]


def test_samples_without_an_id_are_called_by_their_place() -> None:
    with pytest.raises(HetgraphError, match="sample '2': "):
        GraphBuilder(BASIC)([Sample(token=np.ones((1, 3)))] * 2 + [Sample()])


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ({SAYS: says(index=[[2], [0]])}, ["row 0", "0 .. 1", "'frame' has 2 nodes", "2 .. 2"]),
        ({SAYS: says(index=[[0], [3]])}, ["row 1", "0 .. 2", "'token' has 3 nodes", "3 .. 3"]),
        ({SAYS: says(index=[[-1], [0]])}, ["row 0", "-1 .. -1"]),
        ({SAYS: says(score=[[1.0]])}, ["'score'", "[E, 2]", "[1, 1]"]),
        ({SAYS: says(score=[[np.nan, 1.0]])}, ["'score'", "not finite"]),
        ({SAYS: says(colour=[1])}, ["undeclared", "'colour'"]),
        ({SAYS: {"index": [[0], [1]], "relation": [0]}}, ["lacks", "'score'"]),
        ({SAYS: {"index": [[0], [1]], "score": [[1, 2]]}}, ["no 'relation'", "2"]),
        ({SAYS: says(relation=["r"])}, ["unknown relation 'r'", "['p', 'q']"]),
        ({SAYS: says(relation=[2])}, ["0 .. 1", "2 .. 2"]),
        ({SAYS: says(relation=[-1])}, ["0 .. 1", "-1 .. -1"]),
        ({SAYS: says(relation=[0.5])}, ["integers", "float64"]),
        ({LINK: {"index": [[0], [1]], "relation": [0]}}, ["undeclared", "relation"]),
        ({NEXT: [[0], [1]]}, ["made by its rule", "given"]),
        ({("token", "zzz", "token"): [[0], [1]]}, ["unknown edge type", "link"]),
    ],
)
def test_bad_edges_are_refused_by_name(edges, words: list[str]) -> None:
    sample = Sample(id="utt-17", frame=frame(), token=np.ones((3, 3)), edges=edges)
    refused(sample, next(iter(edges))[1], *words)


def test_edges_without_their_nodes_are_refused() -> None:
    refused(Sample(id="utt-17", token=np.ones((3, 3)), edges={SAYS: says()}), "'frame' has 0 nodes")


def test_edges_may_be_empty_in_every_form() -> None:
    for index in ([[], []], np.zeros((2, 0)), np.zeros((0, 2)), torch.zeros(2, 0, dtype=torch.int32)):
        for relation in ([], torch.zeros(0)[:0].long(), np.zeros(0, int)):
            edges = {SAYS: {"index": index, "score": [], "relation": relation}}
            sample = Sample(frame=frame(), token=np.ones((3, 3)), edges=edges)
            graph = GraphBuilder(BASIC)([sample])
            assert graph.edge_index[SAYS].shape == (2, 0)
            assert graph.edges[SAYS].features["score"].shape == (0, 2)
            assert graph.edges[SAYS].relation.shape == (0,)


def _rule_of(mask, features=None):
    def rule(src, dst):
        shape = (src["x"].shape[0], src["x"].shape[1], dst["x"].shape[1])
        made = mask(shape)
        return made if features is None else (made, features(shape))

    return rule


def _all(shape):
    return torch.ones(shape, dtype=torch.bool)


def _far(value, dtype=torch.float32):
    return lambda shape: {"far": torch.full((*shape, 1), value, dtype=dtype)}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (_rule_of(lambda s: torch.ones(s)), ["bool", "float32", "[1, 2, 2]"]),
        (_rule_of(lambda s: torch.ones(s[1:], dtype=torch.bool)), ["[1, 2, 2]", "got torch.bool [2, 2]"]),
        (_rule_of(lambda s: np.ones(s, bool)), ["bool", "ndarray"]),
        (_rule_of(lambda s: None), ["bool", "NoneType"]),
        (lambda src, dst: (1, 2, 3), ["mask and a dict", "int, int, int"]),
        (lambda src, dst: (torch.ones(1, 2, 2, dtype=torch.bool), torch.ones(1)), ["mask and a dict", "Tensor"]),
        (_rule_of(_all), ["[]", "['far']"]),
        (_rule_of(_all, lambda s: {"near": None}), ["['near']", "['far']"]),
        (_rule_of(_all, lambda s: {"far": torch.ones(s)}), ["'far'", "[1, 2, 2, 1]", "got [1, 2, 2]"]),
        (_rule_of(_all, lambda s: {"far": np.ones((*s, 1))}), ["'far'", "ndarray"]),
        (
            _rule_of(_all, _far(1, torch.complex64)),
            ["'far'", "real", "complex64"],
        ),
        (_rule_of(_all, _far(torch.nan)), ["'utt-17'", "'far'", "not finite"]),
        (_rule_of(_all, _far(torch.inf)), ["'utt-17'", "'far'", "not finite"]),
        (lambda src, dst: src["colour"] > 0, ["'token'", "'colour'", "['x']"]),
    ],
)
def test_a_rule_that_gives_something_else_is_refused_by_its_edge_type(rule, words: list[str]) -> None:
    key = ("token", "odd", "token")
    schema = Schema([NodeType("token", 3)], [EdgeType(*key, rule=rule, features={"far": 1})])
    with pytest.raises(HetgraphError) as caught:
        GraphBuilder(schema)([utterance(token=np.ones((2, 3)))])
    for word in words if "colour" in str(words) else [str(key), *words]:
        assert word in str(caught.value), str(caught.value)


def test_features_of_pairs_that_are_not_connected_may_be_anything() -> None:
    rule = _rule_of(
        lambda s: torch.eye(s[1], dtype=torch.bool).expand(s),
        lambda s: {"far": 1 / torch.eye(s[1]).expand(s)[..., None]},
    )
    schema = Schema([NodeType("token", 3)], [EdgeType("token", "is", "token", rule=rule, features={"far": 1})])
    edges = GraphBuilder(schema)([utterance(token=np.ones((2, 3)))]).edges["token", "is", "token"]
    assert edges.features["far"].tolist() == [[1.0], [1.0]]


def test_a_structured_rule_cannot_promise_features() -> None:
    schema = Schema([NodeType("token", 3)], [EdgeType("token", "is", "token", features={"far": 1})])
    with pytest.raises(HetgraphError, match=re.escape("['far']")):
        GraphBuilder(schema)([utterance(token=np.ones((2, 3)))])


def test_a_user_made_rule_never_sees_a_batch_without_one_of_its_types() -> None:
    def fragile(src, dst):
        raise AssertionError("called without nodes")

    schema = Schema(
        [NodeType("a", 1), NodeType("b", 1)],
        [EdgeType("a", "r", "b", rule=fragile, features={"f": 2}), EdgeType("b", "r", "b", rule=fragile)],
    )
    graph = GraphBuilder(schema)([Sample(a=[[1.0]]), Sample(a=[[2.0]], b=np.zeros((0, 1)))])
    for key in schema.edges:
        assert graph.edge_index[key].shape == (2, 0)
    assert graph.edges["a", "r", "b"].features["f"].shape == (0, 2)


def test_the_same_samples_give_the_same_graph() -> None:
    sample = Sample(id="a", frame=frame(), token=np.ones((3, 3)), edges={SAYS: says()})
    assert_same_graph(GraphBuilder(BASIC)([sample, sample]), GraphBuilder(BASIC)([sample, sample]))
    assert looped_edges(BASIC.edges[SAYS], BASIC, sample) == [(0, 1)]


# ---- the short ways ---------------------------------------------------------------------------------------------


def _in_every_way(monkeypatch: pytest.MonkeyPatch):
    """Once with the compiled loops, once without, once with a look at every sample on its own."""
    for least, alone in ((0, False), (2**62, False), (2**62, True)):
        with monkeypatch.context() as patch:
            patch.setattr(hetgraph.builder, "_LEAST_EDGES", least)
            patch.setattr(rules, "_LEAST_PAIRS", max(least, 1))
            if alone:
                patch.setattr(GraphBuilder, "_sound", lambda *_: False)
            yield


def _message(builder: GraphBuilder, samples: list[Sample]) -> str:
    with pytest.raises(HetgraphError) as caught:
        builder(samples)
    return str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(world=worlds())
def test_every_way_to_build_gives_the_same_graph(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [build(world) for _ in _in_every_way(monkeypatch)]
    for graph in graphs[1:]:
        assert_same_graph(graph, graphs[0])


def _damage(sample: Sample, schema: Schema, rng: np.random.Generator) -> None:
    """Something wrong with a sample, or something unusual that is right."""
    names = list(sample.nodes)
    values = sample.nodes[names[rng.integers(len(names))]]
    x, none = values["x"], torch.zeros(2, 0, dtype=torch.long)
    key = next(iter(schema.edges), ("a", "b", "c"))
    damages = [
        lambda: values.update(x=torch.ones(len(x), 99)),
        lambda: values.update(x=torch.full_like(x, torch.nan)),
        lambda: values.update(undeclared=torch.ones(len(x))),
        lambda: [values.pop(field) for field in list(values) if field != "x"],
        lambda: values.update({field: value[..., None] for field, value in values.items() if field != "x"}),
        lambda: sample.nodes.update(unknown={"x": torch.ones(1, 1)}),
        lambda: sample.nodes.update({name: {"x": values["x"][:0]} for name, values in sample.nodes.items()}),
        lambda: sample.edges.update({("no", "such", "type"): {"index": none}}),
        lambda: sample.edges.update({key: {"index": torch.tensor([[-1], [0]])}}),
        lambda: sample.edges.update({key: {"index": torch.tensor([[0], [10**12]])}}),
        lambda: sample.edges.update({key: {"index": none, "extra": torch.ones(0)}}),
    ]
    damages[rng.integers(len(damages))]()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(world=worlds(), seed=st.integers(0, 10**6))
def test_every_way_to_build_refuses_the_same_with_the_same_words(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    samples = copy.deepcopy(world.samples)
    for _ in range(int(rng.integers(1, 3))):
        _damage(samples[rng.integers(len(samples))], world.schema, rng)
    found: list[Any] = []
    for _ in _in_every_way(monkeypatch):
        try:
            found.append(GraphBuilder(world.schema, torch.float64)(samples))
        except HetgraphError as error:
            found.append(str(error))
    if isinstance(found[0], str):
        assert found[1:] == found[:1] * 2
    else:
        for graph in found[1:]:
            assert_same_graph(graph, found[0])


@pytest.mark.parametrize("bad", [-1, 7, 10**12, -(2**63), 2**63 - 1])
def test_an_edge_out_of_range_among_thousands_is_refused_by_its_sample(bad: int, monkeypatch) -> None:
    keys = [("a", "p", "b"), ("b", "q", "a")]
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], [EdgeType(*key, rule=rules.given) for key in keys])
    generator = torch.Generator().manual_seed(0)

    def samples() -> list[Sample]:
        # the sizes differ, and so does what is out of range
        return [
            Sample(
                a=torch.ones(7 + i % 2, 1),
                b=torch.ones(9, 1),
                edges={key: torch.randint(7, (2, 400), generator=generator) for key in keys},
            )
            for i in range(16)
        ]

    for sample, key, row, column in ((0, keys[0], 0, 0), (6, keys[1], 1, 399), (14, keys[0], 0, 17)):
        batch = samples()
        assert hetgraph.builder._LEAST_EDGES <= 16 * 400
        batch[sample].edges[key]["index"][row, column] = bad
        own = batch[sample].edges[key]["index"][row]
        messages = {_message(GraphBuilder(schema), batch) for _ in _in_every_way(monkeypatch)}
        assert messages == {
            f"sample '{sample}': edges {key}: index row {row} must lie in 0 .. 6 ('a' has 7 nodes), "
            f"got {int(own.min())} .. {int(own.max())}"
        }
        assert batch[sample].edges[key]["index"][row, column] == bad


def test_thousands_of_edges_move_to_their_samples_whatever_their_memory_looks_like() -> None:
    key = ("a", "p", "b")
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], [EdgeType(*key, rule=rules.given)])
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.stack([torch.randint(n, (900,), generator=generator) for n in (5 + i, 9 - i)]) for i in range(6)]
    forms = [pairs[0], pairs[1].T.contiguous().T, pairs[2].int(), pairs[3].numpy(), None, pairs[5].tolist()]
    samples = [
        Sample(a=torch.ones(5 + i, 1), b=torch.ones(9 - i, 1), edges={key: form}) for i, form in enumerate(forms)
    ]
    found = GraphBuilder(schema)(samples).edges[key].index.T.tolist()
    expected = []
    for i, pair in enumerate(pairs):
        if forms[i] is not None:
            first = sum(5 + n for n in range(i)), sum(9 - n for n in range(i))
            expected += [[s + first[0], d + first[1]] for s, d in pair.T.tolist()]
    assert len(expected) >= hetgraph.builder._LEAST_EDGES
    assert found == expected


def test_a_gradient_that_a_tensor_is_told_to_keep_later_does_not_reach_the_graph() -> None:
    x, pos = torch.ones(2, 3), torch.ones(2)
    schema = Schema([NodeType("a", 3, fields={"pos": 0})])
    sample = Sample(a={"x": x, "pos": pos})
    x.requires_grad_()
    pos.requires_grad_()
    graph = GraphBuilder(schema)([sample])
    assert not graph.x["a"].requires_grad
    assert not graph.fields["a"]["pos"].requires_grad


def test_a_rule_that_keeps_its_mask_may_change_it_later() -> None:
    kept = torch.ones(1, 3, 3, dtype=torch.bool)
    schema = Schema([NodeType("a", 1)], [EdgeType("a", "r", "a", rule=lambda src, dst: kept)])
    graph = GraphBuilder(schema)([Sample(a=torch.ones(3, 1))])
    kept[:] = False
    assert len(graph.edges["a", "r", "a"]) == 9


def test_numba_is_not_woken_for_a_small_batch() -> None:
    code = (
        "import sys, torch\n"
        "from hetgraph import EdgeType, GraphBuilder, NodeType, Sample, Schema, rules\n"
        "key = ('a', 'p', 'a')\n"
        "schema = Schema([NodeType('a', 2)], [EdgeType(*key, rule=rules.given), "
        "EdgeType('a', 'q', 'a', rule=rules.similar(2))])\n"
        "GraphBuilder(schema)([Sample(a=torch.rand(9, 2), edges={key: torch.zeros(2, 5, dtype=torch.long)})] * 3)\n"
        "assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
