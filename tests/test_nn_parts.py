"""Input projection, block and readout: closed forms on small cases, and what holds on all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from graphs import World, close, randomize, scalar, states, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hetgraph import EdgeType, NodeType, Sample, Schema
from hetgraph.nn import GraphBlock, InputProjection, Readout

A_AND_B = Schema([NodeType("a", 2, optional={"pos": 2}), NodeType("b", 3)], [EdgeType("a", "to", "b")])


def octaves(value: float) -> list[float]:
    """Sines, then cosines, at wavelengths 64, 32 ... 1/8."""
    angles = [2 * math.pi * value / wavelength for wavelength in [64, 32, 16, 8, 4, 2, 1, 1 / 2, 1 / 4, 1 / 8]]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def test_projection_is_the_standardised_features_and_the_waves_of_the_place() -> None:
    project = InputProjection(A_AND_B, 4).double()
    randomize(project)
    place = [0.3, -1.7]
    sample = Sample(a={"x": [[1.0, 2.0]], "pos": [place]}, b=[[1.0, 0.0, 2.0]])
    out = project(World(A_AND_B, [sample]).graph())
    a, b = project.features
    waves = torch.tensor([w for value in place for w in octaves(value)], dtype=torch.float64)
    close(out["a"][0], a.weight @ torch.tensor([1.0, 2.0]).double() + a.bias + project.places[0].weight @ waves, 1e-4)
    close(out["b"][0], b.weight @ torch.tensor([1.0, 0.0, 2.0]).double() + b.bias, 1e-12)


def test_a_place_that_is_left_out_adds_nothing_and_gives_no_nan_gradient() -> None:
    project = InputProjection(A_AND_B, 4).double()
    randomize(project)
    x = [[1.0, 2.0], [0.0, 1.0]]
    placed = Sample(a={"x": x, "pos": [[0.5, 0.5], [0.1, 0.9]]})
    graph = World(A_AND_B, [placed, Sample(a={"x": x})]).graph()
    out = project(graph)["a"]
    close(out[2:], functional.linear(graph.x["a"][2:], project.features[0].weight, project.features[0].bias), 0.0)
    assert not torch.allclose(out[:2], out[2:])
    scalar({"a": out}).backward()
    assert all(bool(p.grad.isfinite().all()) for p in project.parameters() if p.grad is not None)


def test_only_the_named_fields_are_places() -> None:
    schema = Schema([NodeType("a", 1, fields={"pos": 2, "when": 0, "group": 0})])
    assert len(InputProjection(schema, 4).places) == 1
    assert InputProjection(schema, 4).places[0].in_features == 2 * 20
    assert InputProjection(schema, 4, positions=("pos", "when")).places[0].in_features == 3 * 20
    assert len(InputProjection(schema, 4, positions=()).places) == 0


@settings(max_examples=40, deadline=None)
@given(
    world=worlds(kinds=("all_pairs",)),
    cut=st.integers(0, 4),
    shift=st.sampled_from([0.0, 10.0, -1e4]),
    scale=st.sampled_from([1.0, 1e-3, 1e5]),
)
def test_standardize_equals_numpy_mean_and_std_over_all_graphs(world, cut, shift, scale) -> None:
    for sample in world.samples:
        for values in sample.nodes.values():
            values["x"] = values["x"] * scale + shift
    project = InputProjection(world.schema, 4).double()
    cut = min(cut, len(world.samples) - 1)
    parts = [World(world.schema, s) for s in (world.samples[:cut], world.samples[cut:]) if s]
    project.standardize(part.graph() for part in parts)
    for i, (name, node) in enumerate(world.schema.nodes.items()):
        rows = [s.nodes[name]["x"].numpy() for s in world.samples if name in s.nodes]
        x = np.concatenate([np.zeros((0, node.dim)), *rows])
        mean, std = project.get_buffer(f"scale_{i}").numpy()
        if not len(x):
            assert (mean == 0).all()
            assert (std == 1).all()
            continue
        np.testing.assert_allclose(mean, x.mean(0), rtol=1e-9, atol=1e-9 * scale)
        steady = x.std(0) <= 1e-6 * (1 + abs(x.mean(0)))
        np.testing.assert_allclose(std, np.where(steady, 1.0, x.std(0)), rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e5, 1e-30])
def test_a_constant_feature_stays_finite_and_becomes_zero(value) -> None:
    schema = Schema([NodeType("a", 2)])
    samples = [Sample(a=np.stack([np.full(7, value), np.arange(7)], 1)), Sample(a=[[value, 9.0]])]
    graph = World(schema, samples).graph(torch.float32)
    project = InputProjection(schema, 4)
    project.standardize([graph])
    mean, std = project.get_buffer("scale_0")
    assert float(std[0]) == 1.0
    scaled = (graph.x["a"] - mean) / std
    close(scaled[:, 0], torch.zeros(8), 1e-6)
    close(scaled[:, 1].std(correction=0), torch.tensor(1.0), 1e-6)
    assert bool(project(graph)["a"].isfinite().all())


def test_the_scale_is_saved_with_the_weights() -> None:
    project, other = InputProjection(A_AND_B, 4), InputProjection(A_AND_B, 4)
    project.standardize([World(A_AND_B, [Sample(a=[[1.0, 5.0], [3.0, 6.0]])]).graph()])
    other.load_state_dict(project.state_dict())
    assert torch.equal(other.get_buffer("scale_0"), torch.tensor([[2.0, 5.5], [1.0, 0.5]]))


def test_block_is_its_two_residual_steps() -> None:
    block = GraphBlock(A_AND_B, 4, 2).double()
    randomize(block)
    graph = World(A_AND_B, [Sample(a=[[1.0, 2.0]], b=[[1.0, 0.0, 2.0]])]).graph()
    x = {n: v.detach() for n, v in states(graph, {"a": 4, "b": 4}).items()}
    out = block(graph, x)

    def norm(module, state):
        centred = state - state.mean()
        return centred / (centred.square().mean() + 1e-5).sqrt() * module.weight + module.bias

    def forward(i, state):
        inner = functional.gelu(block.forward_in.weight @ norm(block.norm_mid[i], state) + block.forward_in.bias)
        return state + block.forward_out.weight @ inner + block.forward_out.bias

    layer = block.attention
    # the only edge into b has weight one
    value = layer.kqv_weight[0][8:] @ norm(block.norm_in[0], x["a"][0]) + layer.kqv_bias[0][8:]
    heard = torch.einsum("hd,hde->he", value.view(2, 2), layer.msg[0]).flatten()
    to_b = layer.out_weight[1] @ functional.gelu(heard) + layer.out_bias[1]
    close(out["b"][0], forward(1, x["b"][0] + to_b), 1e-12)
    # a hears nothing, as a node without edges would: an empty message
    close(out["a"][0], forward(0, x["a"][0] + layer.out_bias[0]), 1e-12)


@settings(max_examples=30, deadline=None)
@given(world=worlds())
def test_block_keeps_shapes_and_gives_every_input_a_finite_gradient(world) -> None:
    block = GraphBlock(world.schema, 6, 2).double()
    randomize(block)
    graph = world.graph()
    x = states(graph, dict.fromkeys(world.schema.nodes, 6))
    out = block(graph, x)
    assert {n: v.shape for n, v in out.items()} == {n: v.shape for n, v in x.items()}
    scalar(out).backward()
    assert all(bool(v.grad.isfinite().all()) for v in x.values())
    assert all(bool(p.grad.isfinite().all()) for p in block.parameters() if p.grad is not None)


def test_readout_of_one_node_of_one_type_is_its_value() -> None:
    schema = Schema([NodeType("a", 1), NodeType("b", 1)])
    readout = Readout(schema, 4, 2).double()
    randomize(readout)
    x = {"a": torch.randn(1, 4, dtype=torch.float64), "b": torch.zeros(0, 4, dtype=torch.float64)}
    at = {"a": torch.tensor([0]), "b": torch.zeros(0, dtype=torch.long)}
    z, alpha, parts = readout(x, at, 1)
    close(z, x["a"] @ readout.value[0].T + readout.bias[0], 1e-12)
    assert (alpha["a"].tolist(), alpha["b"].tolist()) == ([1.0], [0.0])
    assert torch.equal(parts["b"], torch.zeros(1, 4, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(world=worlds(kinds=("all_pairs",)), heads=st.integers(1, 3))
def test_readout_equals_its_equations_sample_by_sample(world, heads) -> None:
    width = 2 * heads
    readout = Readout(world.schema, width, heads).double()
    randomize(readout)
    graph = world.graph()
    x = states(graph, dict.fromkeys(world.schema.nodes, width))
    z, alpha, parts = readout(x, dict(graph.batch), len(graph))
    alpha = {name: value.detach() for name, value in alpha.items()}
    first = dict.fromkeys(world.schema.nodes, 0)
    for b, sample in enumerate(world.samples):
        pooled, score = {}, {}
        for i, name in enumerate(world.schema.nodes):
            count = len(sample.nodes[name]["x"]) if name in sample.nodes else 0
            rows = x[name][first[name] : first[name] + count]
            first[name] += count
            if not count:
                assert float(alpha[name][b]) == 0.0
                assert not bool(parts[name][b].any())
                continue
            values = rows @ readout.value[i].T + readout.bias[i]
            heads_out = []
            for h in range(heads):
                share = (rows @ readout.query[i, h] / math.sqrt(width)).softmax(0)
                heads_out.append(share @ values[:, 2 * h : 2 * h + 2])
            pooled[name] = torch.cat(heads_out)
            hidden = torch.tanh(readout.compare.weight @ pooled[name] + readout.compare.bias + readout.type_bias[i])
            score[name] = readout.score.weight[0] @ hidden
        share = torch.stack(list(score.values())).softmax(0)
        for a, (name, value) in zip(share, pooled.items(), strict=True):
            close(alpha[name][b], a, 1e-12)
            close(parts[name][b], value, 1e-12)
        close(z[b], sum(a * v for a, v in zip(share, pooled.values(), strict=True)), 1e-12)
        assert all(float(alpha[name][b]) >= 0 for name in alpha)
        assert abs(sum(float(alpha[name][b]) for name in alpha) - 1) < 1e-12


def test_a_new_readout_averages_the_nodes_of_a_type() -> None:
    schema = Schema([NodeType("a", 1)])
    readout = Readout(schema, 4, 2).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    z, _, _ = readout({"a": x}, {"a": torch.tensor([0, 0, 0, 1, 1])}, 2)
    close(z, torch.stack([x[:3].mean(0), x[3:].mean(0)]) @ readout.value[0].T, 1e-12)


def test_huge_scores_do_not_overflow_the_readout() -> None:
    schema = Schema([NodeType("a", 1)])
    readout = Readout(schema, 4, 2)
    with torch.no_grad():
        readout.query.fill_(1e4)
    x = torch.tensor([[1e3] * 4, [-1e3] * 4], requires_grad=True)
    z, _, _ = readout({"a": x}, {"a": torch.tensor([0, 0])}, 1)
    z.sum().backward()
    assert bool(z.isfinite().all())
    assert bool(x.grad.isfinite().all())
