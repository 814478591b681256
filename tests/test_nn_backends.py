"""All attention backends are the equations of the docstring, whatever form the edges come in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from extras import needs_dgl
from graphs import KINDS, World, close, connections, edge_type, random_sample, randomize, reference, scalar, states
from graphs import worlds as random_worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hetgraph import EdgeType, Fusion, Graph, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.builders import image_text_audio
from hetgraph.interop.dgl import load_dgl
from hetgraph.nn import HGTLayer
from hetgraph.nn.choice import choose_backend
from hetgraph.nn.hgt import BACKENDS

Outputs = dict[str, Tensor]
EVERY = [pytest.param(name, marks=needs_dgl if name == "dgl" else ()) for name in sorted(BACKENDS)]


def random_layer(world: World, heads: int, residual: bool = True, bases: int = 8) -> HGTLayer:
    layer = HGTLayer(world.schema, heads * 2, heads, residual=residual, bases=bases).double()
    randomize(layer)
    return layer


def with_gradients(layer: HGTLayer, world: World, run: Callable[[Outputs], Outputs]) -> Outputs:
    """Outputs, and the gradients of the inputs and of all weights (zero where there is no path)."""
    x = states(world.graph(), layer.in_dims)
    layer.zero_grad()
    out = run(x)
    total = scalar(out)
    if total.requires_grad:
        total.backward()
    leaves = {**{f"states of {n}": v for n, v in x.items()}, **dict(layer.named_parameters())}
    grads = {f"grad of {n}": torch.zeros_like(v) if v.grad is None else v.grad for n, v in leaves.items()}
    return {**out, **grads}


def same(found: Outputs, expected: Outputs, tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        close(found[name], value, tolerance)


@pytest.mark.parametrize("backend", EVERY)
@settings(max_examples=60, deadline=None)
@given(world=random_worlds(), heads=st.integers(1, 3), residual=st.booleans(), bases=st.integers(1, 4))
def test_outputs_and_gradients_equal_a_loop_over_single_edges(backend, world, heads, residual, bases) -> None:
    layer, graph = random_layer(world, heads, residual, bases), world.graph()
    expected = with_gradients(layer, world, lambda x: reference(layer, world, x))
    same(with_gradients(layer, world, lambda x: layer(graph, x, backend)), expected, 1e-9)


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_edge_equals_a_loop_over_single_edges(kind, backend) -> None:
    rng = np.random.default_rng(3)
    schema = Schema(
        [NodeType("a", 2), NodeType("b", 3)], [edge_type(kind, "a", "to", "b"), edge_type(kind, "b", "back", "b")]
    )
    samples = [random_sample(schema, counts, rng, str(i)) for i, counts in enumerate([(4, 3), (2, 4), (0, 2)])]
    world = World(schema, samples)
    assert sum(1 for key in schema.edges for _ in connections(world, key)) > 0
    layer, graph = random_layer(world, 2), world.graph()
    expected = with_gradients(layer, world, lambda x: reference(layer, world, x))
    same(with_gradients(layer, world, lambda x: layer(graph, x, backend)), expected, 1e-10)


@pytest.mark.parametrize("other", [name for name in EVERY if name.values != ("dense",)])
@settings(max_examples=60, deadline=None)
@given(world=random_worlds(max_samples=6, max_nodes=8))
def test_dense_equals_the_others_in_single_precision(other, world) -> None:
    layer = HGTLayer(world.schema, 8, 2)
    randomize(layer, scale=0.3)
    graph = world.graph(torch.float32)
    x = states(graph, layer.in_dims, dtype=torch.float32)
    same(layer(graph, x, "dense"), layer(graph, x, other), 1e-5)


@settings(max_examples=60, deadline=None)
@given(world=random_worlds())
def test_attention_weights_sum_to_one_over_the_edges_into_a_node_and_reproduce_the_output(world) -> None:
    layer = random_layer(world, 2)
    graph = world.graph()
    x = states(graph, layer.in_dims)
    weights = layer.attention(graph, x)
    assert set(weights) == set(world.schema.edges)
    out = layer(graph, x)
    for i, (name, counts) in enumerate(graph.layout.items()):
        total = torch.zeros(counts.total, layer.heads, dtype=torch.float64)
        heard = torch.zeros(counts.total, layer.width, dtype=torch.float64)
        reached = torch.zeros(counts.total, dtype=torch.bool)
        incoming = [key for key in world.schema.edges if key[2] == name]
        for key in incoming:
            src, dst = graph.edge_index[key]
            edges = list(connections(world, key))
            assert sorted(zip(src.tolist(), dst.tolist(), strict=True)) == sorted((e.src, e.dst) for e in edges)
            assert weights[key].shape == (len(edges), layer.heads)
            assert bool((weights[key] >= 0).all())
            total.index_add_(0, dst, weights[key].detach())
            reached[dst] = True
            relation = graph.edges[key].relation
            for e in range(len(edges)):
                message = message_matrix(layer, key, None if relation is None else int(relation[e]))
                value = value_of(layer, key[0], x[key[0]][src[e]])
                heard[dst[e]] += (torch.einsum("hd,hde->he", value, message) * weights[key][e][:, None]).flatten()
        close(total, reached[:, None].expand_as(total).double(), 1e-12)
        if incoming:
            new = torch.nn.functional.gelu(heard) @ layer.out_weight[i].T + layer.out_bias[i]
            gate = layer.skip[i].sigmoid()
            close(out[name], gate * new + (1 - gate) * x[name], 1e-10)


def message_matrix(layer: HGTLayer, key: tuple[str, str, str], relation: int | None) -> Tensor:
    kinds = [k for k, e in layer.schema.edges.items() if bool(e.relations) == (relation is not None)]
    at = kinds.index(key)
    if relation is None:
        return layer.msg[at]
    return torch.tensordot(layer.mixing[at][1, relation], layer.msg_basis[at], 1).detach()


def value_of(layer: HGTLayer, name: str, state: Tensor) -> Tensor:
    i = list(layer.schema.nodes).index(name)
    third = slice(2 * layer.width, 3 * layer.width)
    return (layer.kqv_weight[i][third] @ state + layer.kqv_bias[i][third]).view(layer.heads, -1).detach()


KEY = ("a", "to", "b")


def with_edges(edge: EdgeType, **given: object) -> World:
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], [edge])
    return World(schema, [Sample(a=np.zeros((3, 1)), b=np.zeros((2, 1)), edges={KEY: given})])


@pytest.mark.parametrize("backend", EVERY)
def test_an_edge_given_three_times_weighs_three_times_as_much(backend) -> None:
    edge = EdgeType(*KEY, rule=rules.given)
    layer = random_layer(with_edges(edge, index=[[0], [0]]), 2)
    repeated = with_edges(edge, index=[[0, 1, 0, 0], [0, 0, 0, 0]]).graph()
    single = with_edges(edge, index=[[0, 1], [0, 0]]).graph()
    x = {n: v.detach() for n, v in states(single, layer.in_dims).items()}
    once = layer.attention(single, x)[KEY]
    thrice = layer.attention(repeated, x)[KEY]
    expected = 3 * once[0] / (3 * once[0] + once[1])
    close(thrice[0] + thrice[2] + thrice[3], expected, 1e-12)
    values = torch.stack([value_of(layer, "a", x["a"][i]) for i in range(2)])
    heard = torch.einsum("nhd,hde->nhe", values, layer.msg[0])
    mixed = (expected[:, None] * heard[0] + (1 - expected)[:, None] * heard[1]).flatten()
    new = layer.out_weight[1] @ torch.nn.functional.gelu(mixed) + layer.out_bias[1]
    gate = layer.skip[1].sigmoid()
    close(layer(repeated, x, backend)["b"][0], gate * new + (1 - gate) * x["b"][0], 1e-12)


@pytest.mark.parametrize("backend", EVERY)
def test_the_bias_of_edge_features_is_added_per_head_to_the_logit(backend) -> None:
    edge = EdgeType(*KEY, rule=rules.given, features={"near": 1})
    world = with_edges(edge, index=[[0, 1, 1], [0, 0, 0]], near=[[1.0], [2.0], [-1.0]])
    layer = random_layer(world, 2)
    graph = world.graph()
    x = {n: torch.zeros_like(v) for n, v in states(graph, layer.in_dims).items()}
    with torch.no_grad():
        layer.kqv_bias.zero_()  # zero queries and keys: only the bias is left in the logits
        layer.edge_weight[0].copy_(torch.tensor([[0.5, -2.0]]))
    expected = torch.tensor([[0.5, -2.0], [1.0, -4.0], [-0.5, 2.0]], dtype=torch.float64).softmax(0)
    close(layer.attention(graph, x)[KEY], expected, 1e-12)
    assert layer(graph, x, backend)["b"].isfinite().all()


@pytest.mark.parametrize("backend", EVERY)
def test_biases_of_a_thousand_overflow_nowhere(backend) -> None:
    edge = EdgeType(*KEY, rule=rules.given, features={"near": 1})
    world = with_edges(edge, index=[[0, 0, 1], [0, 0, 1]], near=[[1e3], [-1e3], [-1e3]])
    layer = random_layer(world, 1)
    with torch.no_grad():
        layer.edge_weight[0].fill_(1.0)
    found = with_gradients(layer, world, lambda x: layer(world.graph(), x, backend))
    expected = with_gradients(layer, world, lambda x: reference(layer, world, x))
    same(found, expected, 1e-10)


def test_auto_takes_edge_lists_where_few_pairs_are_edges() -> None:
    def chosen(rule: object, dtype: torch.dtype = torch.float32, **given: object) -> str:
        schema = Schema([NodeType("frame", 1)], [EdgeType("frame", "near", "frame", rule=rule)])
        edges = {("frame", "near", "frame"): given} if given else {}
        return choose_backend(World(schema, [Sample(frame=np.zeros((1000, 1)), edges=edges)]).graph(), dtype=dtype)

    assert chosen(rules.all_pairs) == "dense"
    assert chosen(rules.given, index=np.random.default_rng(0).integers(0, 1000, (2, 1000))) == "sparse"
    # half precision has the padded form, which would make a full mask of a window
    assert chosen(rules.window(20)) == "dense"
    assert chosen(rules.window(20), torch.bfloat16) == "sparse"


@pytest.mark.parametrize("backend", EVERY)
def test_a_graph_seen_under_inference_mode_can_be_trained_on_afterwards(backend) -> None:
    rng = np.random.default_rng(0)
    schema = Schema([NodeType("a", 2)], [edge_type(kind, "a", kind, "a") for kind in KINDS])
    world = World(schema, [random_sample(schema, [count], rng, str(count)) for count in (2, 3)])
    layer, graph = random_layer(world, 2), world.graph()
    with torch.inference_mode():
        layer(graph, {"a": torch.zeros(5, 4, dtype=torch.float64)}, backend)
    found = with_gradients(layer, world, lambda x: layer(graph, x, backend))
    same(found, with_gradients(layer, world, lambda x: layer(world.graph(), x, backend)), 0.0)


def test_an_unknown_backend_is_refused_with_those_that_are_known() -> None:
    world = with_edges(EdgeType(*KEY, rule=rules.given), index=[[0], [0]])
    layer, graph = random_layer(world, 2), world.graph()
    with pytest.raises(HetgraphError, match=r"'cuda'.*auto, dense, sparse, plain, dgl"):
        layer(graph, states(graph, layer.in_dims), "cuda")


def large_world() -> World:
    """Two edge types of 400 edges between 20 nodes each, one of them with features."""
    rng = np.random.default_rng(0)
    edges = [EdgeType("a", "to", "b"), EdgeType("b", "near", "b", rule=rules.given, features={"near": 1})]
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], edges)
    given = {"index": rng.integers(0, 20, (2, 400)), "near": rng.standard_normal((400, 1))}
    nodes = {name: rng.standard_normal((20, 1)) for name in "ab"}
    return World(schema, [Sample(nodes=nodes, edges={("b", "near", "b"): given})])


class Largest(TorchDispatchMode):
    """Entries of the largest floating-point tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor) and value.is_floating_point():
                self.numel = max(self.numel, value.numel())
        return out


@pytest.mark.parametrize("backend", EVERY)
def test_only_plain_torch_makes_a_vector_for_every_edge(backend) -> None:
    world = large_world()
    layer = HGTLayer(world.schema, 16, 2).double()
    graph = world.graph()
    edges = sum(len(e) for e in graph.edges.values())
    with Largest() as largest:
        scalar(layer(graph, states(graph, layer.in_dims), backend)).backward()
    assert largest.numel > 0
    assert (largest.numel >= edges * layer.width) == (backend == "plain")


@needs_dgl
def test_layers_share_one_dgl_graph_for_every_type_that_edges_end_in(monkeypatch) -> None:
    dgl, made = load_dgl(), []
    build = dgl.heterograph
    monkeypatch.setattr(dgl, "heterograph", lambda *args, **rest: made.append(build(*args, **rest)) or made[-1])
    world = large_world()
    graph = world.graph()
    for _ in range(3):
        layer = random_layer(world, 2)
        scalar(layer(graph, states(graph, layer.in_dims), "dgl")).backward()
    assert [g.num_edges() for g in made] == [800]


@needs_dgl
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_which_dgl_lacks_is_left_to_the_sparse_backend(dtype) -> None:
    world = large_world()
    layer = HGTLayer(world.schema, 8, 2).to(dtype)
    graph = world.graph(torch.float32)
    x = states(graph, layer.in_dims, dtype=dtype)
    same(layer(graph, x, "dgl"), layer(graph, x, "sparse"), 0.0)


def trained_on(model: Fusion, graph: Graph, run: Callable[[], Tensor]) -> Outputs:
    model.zero_grad()
    out = run()
    out.float().square().sum().backward()
    return {"z": out, **{n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}}


def ragged_fusion() -> tuple[Fusion, Graph]:
    schema = image_text_audio(region=3, token=2, frame=4)
    rng = np.random.default_rng(0)
    samples = [random_sample(schema, counts, rng, str(i)) for i, counts in enumerate([(4, 3, 2), (1, 4, 0), (0, 2, 5)])]
    torch.manual_seed(0)
    return Fusion(schema, width=8, layers=2, heads=2), World(schema, samples).graph(torch.float32)


# the compiler itself makes an instance of every autograd function that it meets
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["dense", "sparse", "plain"])
def test_the_compiler_takes_a_whole_model_without_a_graph_break(backend) -> None:
    model, graph = ragged_fusion()
    expected = trained_on(model, graph, lambda: model(graph, backend).z)
    compiled = torch.compile(lambda: model(graph, backend).z, fullgraph=True, backend="aot_eager")
    same(trained_on(model, graph, compiled), expected, 1e-5)


@pytest.mark.parametrize("backend", ["dense", "sparse", "plain"])
def test_half_precision_by_autocast_gives_about_the_same(backend) -> None:
    model, graph = ragged_fusion()
    expected = trained_on(model, graph, lambda: model(graph, backend).z)
    with torch.autocast("cpu", torch.bfloat16):
        found = trained_on(model, graph, lambda: model(graph, backend).z)
    assert found["z"].dtype == torch.bfloat16
    for name, value in expected.items():
        assert bool(found[name].isfinite().all())
        error = (found[name].detach().float() - value.detach()).norm()
        assert float(error) <= 0.05 * float(value.detach().norm()) + 1e-3, name
