"""The layer is PyG's HGTConv: outputs and gradients, on graphs with everything missing that can be."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from graphs import PLAIN_NAMES, WITHOUT_EXTRAS, World, close, connections, randomize, scalar, states, worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from hetgraph import EdgeType, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.nn import HGTLayer

with warnings.catch_warnings():
    # its import calls torch.jit.script, which recent versions of torch call deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.nn import HGTConv

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def convolution(schema: Schema, dims: dict[str, int], width: int, heads: int, dtype: torch.dtype) -> HGTConv:
    conv = HGTConv(dims, width, (list(schema.nodes), list(schema.edges)), heads)
    randomize(conv)
    return conv.to(dtype)


def edge_lists(world: World) -> dict[tuple[str, str, str], torch.Tensor]:
    lists = {}
    for key in world.schema.edges:
        pairs = [(c.src, c.dst) for c in connections(world, key)]
        lists[key] = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return lists


def grad(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def weights_like_layer(conv: HGTConv, layer: HGTLayer) -> dict[str, torch.Tensor]:
    """Gradients of the convolution's weights, named and shaped as the layer's."""
    types, keys = list(layer.schema.nodes), list(layer.schema.edges)
    heads, d = layer.heads, layer.width // layer.heads
    place = [conv.edge_types.index(key) for key in keys]

    def per_edge(weight: torch.Tensor) -> torch.Tensor:
        return grad(weight).view(heads, len(keys), d, d).transpose(0, 1)[place]

    lins, outs = conv.kqv_lin.lins, conv.out_lin.lins
    return {
        **{f"kqv_weight.{i}": grad(lins[n].weight) for i, n in enumerate(types)},
        "kqv_bias": torch.stack([grad(lins[n].bias) for n in types]),
        "out_weight": torch.stack([grad(outs[n].weight) for n in types]),
        "out_bias": torch.stack([grad(outs[n].bias) for n in types]),
        "skip": torch.cat([grad(conv.skip[n]) for n in types]),
        "att": per_edge(conv.k_rel.weight),
        "msg": per_edge(conv.v_rel.weight),
        "mu": torch.cat([grad(conv.p_rel["__".join(key)]) for key in keys]),
    }


def compare(world: World, conv: HGTConv, dtype: torch.dtype, backend: str, omit_empty: bool = False) -> None:
    graph, lists = world.graph(dtype), edge_lists(world)
    layer = HGTLayer.from_pyg(conv, world.schema)
    mine, its = states(graph, layer.in_dims, dtype=dtype), states(graph, layer.in_dims, dtype=dtype)
    # HGTConv is only right for edge types in the order of its metadata
    present, there = dict(its), {key: lists[key] for key in conv.edge_types}
    if omit_empty:
        present = {n: value for n, value in its.items() if len(value)}
        there = {k: index for k, index in there.items() if k[0] in present and k[2] in present}
    if not any(len(its[key[0]]) for key in there):
        return  # PyG itself cannot run without a single source node
    expected = conv(present, there)
    received = {n: value for n, value in layer(graph, mine, backend).items() if n in conv.dst_node_types}
    assert set(expected) <= set(received)
    assert not any(len(received[n]) for n in set(received) - set(expected))
    for name, value in expected.items():
        close(received[name], value, TOLERANCE[dtype])
    if not any(value.requires_grad for value in expected.values()):
        return
    scalar({n: received[n] for n in expected}).backward()
    scalar(expected).backward()
    for name, value in its.items():
        close(grad(mine[name]), grad(value), TOLERANCE[dtype])
    want = weights_like_layer(conv, layer)
    have = dict(layer.named_parameters())
    assert set(want) == {name for name, value in have.items() if value.numel()}
    for name, value in want.items():
        close(grad(have[name]), value, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_outputs_and_all_gradients_equal_hgtconv(dtype, backend, data) -> None:
    world = data.draw(worlds(WITHOUT_EXTRAS, PLAIN_NAMES, min_edge_types=1))
    heads = data.draw(st.integers(1, 4))
    width = heads * data.draw(st.integers(1, 3))
    dims = {name: data.draw(st.sampled_from([width, 1, 5])) for name in world.schema.nodes}
    conv = convolution(world.schema, dims, width, heads, dtype)
    compare(world, conv, dtype, backend, omit_empty=data.draw(st.booleans()))


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize(
    "index",
    [
        pytest.param([[0, 1, 1], [0, 0, 2]], id="isolated destination"),
        pytest.param([[0, 0, 0, 2], [1, 1, 1, 1]], id="repeated edge"),
        pytest.param([[0, 1, 2], [0, 1, 2]], id="self-loops"),
        pytest.param([[], []], id="no edges"),
    ],
)
def test_special_edges_equal_hgtconv(index, backend) -> None:
    key = ("token", "to", "token")
    schema = Schema([NodeType("token", 2)], [EdgeType(*key, rule=rules.given)])
    sample = Sample(token=np.eye(3, 2), edges={key: np.array(index, dtype=np.int64).reshape(2, -1)})
    compare(
        World(schema, [sample, sample]), convolution(schema, {"token": 6}, 6, 3, torch.float64), torch.float64, backend
    )


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_a_graph_of_one_node_equals_hgtconv(backend) -> None:
    schema = Schema([NodeType("token", 1)], [EdgeType("token", "self", "token")])
    world = World(schema, [Sample(token=[[1.0]])])
    compare(world, convolution(schema, {"token": 4}, 4, 2, torch.float64), torch.float64, backend)


def test_types_that_only_send_and_types_on_their_own_keep_their_state() -> None:
    schema = Schema([NodeType("a", 1), NodeType("b", 1), NodeType("c", 1)], [EdgeType("a", "to", "b")])
    graph = World(schema, [Sample(a=[[1.0]], b=[[2.0]], c=[[3.0]])]).graph()
    layer = HGTLayer(schema, 4, 2).double()
    randomize(layer)
    x = states(graph, layer.in_dims)
    for backend in ("dense", "sparse"):
        out = layer(graph, x, backend)
        assert torch.equal(out["a"], x["a"])
        assert torch.equal(out["c"], x["c"])
        assert not torch.allclose(out["b"], x["b"])


def test_the_schema_of_a_convolution_may_list_its_types_in_another_order() -> None:
    nodes = [NodeType(n, 3) for n in ("b", "a")]
    keys = [("a", "to", "b"), ("b", "to", "b"), ("b", "to", "a")]
    conv = HGTConv({"a": 3, "b": 3}, 6, (["a", "b"], keys), 2).double()
    randomize(conv)
    schema = Schema(nodes, [EdgeType(*key) for key in (keys[2], keys[0], keys[1])])
    world = World(schema, [Sample(a=np.ones((2, 3)), b=np.zeros((1, 3))), Sample(b=np.eye(3))])
    compare(world, conv, torch.float64, "dense")


def test_a_convolution_without_a_schema_gives_one_of_given_edges_and_keeps_its_dtype() -> None:
    conv = HGTConv({"a": 3, "b": 5}, 8, (["a", "b"], [("a", "to", "b")]), 4).double()
    layer = HGTLayer.from_pyg(conv)
    assert {n: t.dim for n, t in layer.schema.nodes.items()} == {"a": 3, "b": 5}
    assert list(layer.schema.edges) == [("a", "to", "b")]
    assert layer.schema.edges["a", "to", "b"].rule == rules.given
    assert {p.dtype for p in layer.parameters()} == {torch.float64}


def test_a_convolution_of_other_types_or_not_yet_initialised_is_refused() -> None:
    schema = Schema([NodeType("a", 3), NodeType("b", 3)], [EdgeType("a", "to", "b")])
    conv = HGTConv(3, 4, (["a", "c"], [("a", "to", "c")]), 2)
    with pytest.raises(HetgraphError, match="other types"):
        HGTLayer.from_pyg(conv, schema)
    lazy = HGTConv(-1, 4, (["a", "b"], [("a", "to", "b")]), 2)
    with pytest.raises(HetgraphError, match="not initialised"):
        HGTLayer.from_pyg(lazy, schema)


def two_types() -> tuple[Schema, World]:
    schema = Schema([NodeType("a", 2), NodeType("b", 2)], [EdgeType("a", "to", "b")])
    return schema, World(schema, [Sample(a=np.ones((2, 2)), b=np.ones((3, 2)))])


def test_wrong_heads_backend_schema_type_or_shape_are_named() -> None:
    schema, world = two_types()
    graph = world.graph(torch.float32)
    for width, heads in ((6, 4), (0, 1), (4, 0)):
        with pytest.raises(HetgraphError, match=f"width {width} and {heads} heads"):
            HGTLayer(schema, width, heads)
    layer = HGTLayer(schema, 4, 2)
    x = states(graph, layer.in_dims, dtype=torch.float32)
    with pytest.raises(HetgraphError, match="unknown backend 'flash'; known: auto, dense, sparse"):
        layer(graph, x, backend="flash")
    with pytest.raises(HetgraphError, match="node type 'b' is missing"):
        layer(graph, {"a": x["a"]})
    with pytest.raises(HetgraphError, match=r"node type 'b': states must be \[3, 4\], got \[2, 4\]"):
        layer(graph, {"a": x["a"], "b": x["b"][:2]})
    with pytest.raises(HetgraphError, match=r"node type 'a': states must be \[2, 4\], got \[2, 3\]"):
        layer(graph, {"a": x["a"][:, :3], "b": x["b"]})


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param((NodeType("c", 1),), id="another node type"),
        pytest.param((EdgeType("b", "to", "a"),), id="another edge type"),
    ],
)
def test_a_graph_of_another_schema_is_refused_by_name(extra) -> None:
    schema, _ = two_types()
    layer = HGTLayer(schema, 4, 2)
    graph = GraphBuilder(schema.extend(*extra))([Sample(a=np.ones((2, 2)))])
    with pytest.raises(HetgraphError, match=r"another schema than the layer: (node|edge) type .*is extra"):
        layer(graph, {name: torch.zeros(counts.total, 4) for name, counts in graph.layout.items()})


def test_a_graph_of_the_same_types_with_other_rules_is_taken() -> None:
    schema, world = two_types()
    other = Schema(schema.nodes.values(), [EdgeType("a", "to", "b", rule=rules.window(9))])
    layer = HGTLayer(other, 4, 2).double()
    graph = world.graph()
    assert layer(graph, states(graph, layer.in_dims))["b"].shape == (3, 4)
