"""The dense backend's operator for the CPU: against torch's attention over padded blocks, and as an operator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from graphs import KINDS, World, close, edge_type, random_sample, randomize, scalar, states
from graphs import worlds as random_worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from torch import Tensor

from hetgraph import EdgeType, HetgraphError, NodeType, Schema, rules
from hetgraph.edges import Counts
from hetgraph.nn import HGTLayer, dense, threads
from hetgraph.nn._exp import exp
from hetgraph.nn.folded import Block, Folding, attend

exps = njit(lambda values: np.array([exp(value) for value in values]))


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_the_exponential_of_the_loops_is_that_of_numpy(dtype, error) -> None:
    values = np.concatenate([-np.linspace(0, 86.5, 10_001), -np.logspace(-12, 0, 500)]).astype(dtype)
    expected = np.exp(values.astype(np.float64))
    assert float(np.abs(exps(values) / expected - 1).max()) < error
    edges = exps(np.array([0.0, -np.inf, -1000.0, np.nan], dtype))
    np.testing.assert_array_equal(edges, [1, 0, 0, np.nan])


def both(world: World, layer: HGTLayer, dtype: torch.dtype = torch.float64) -> list[dict[str, Tensor]]:
    """Messages of both forms, with the gradients of everything that they are made from."""
    found = []
    for form in (dense.fold, dense.lay_out):
        graph = world.graph(dtype)
        x = states(graph, layer.in_dims, dtype=dtype)
        layer.zero_grad()
        out = form(graph, layer._inputs(graph, x))
        if out:
            scalar(out).backward()
        leaves = {**x, **dict(layer.named_parameters())}
        grads = {n: torch.zeros_like(v) if v.grad is None else v.grad.clone() for n, v in leaves.items()}
        found.append({**{f"messages of {n}": v for n, v in out.items()}, **grads})
    return found


@settings(max_examples=80, deadline=None)
@given(world=random_worlds(max_samples=6, max_nodes=8), heads=st.integers(1, 3), d=st.integers(1, 5))
def test_both_forms_give_the_same_messages_and_gradients(world, heads, d) -> None:
    layer = HGTLayer(world.schema, heads * d, heads).double()
    randomize(layer)
    folded, laid_out = both(world, layer)
    assert set(folded) == set(laid_out)
    for name, value in laid_out.items():
        close(folded[name], value, 1e-10)


RULES = {
    "window": rules.window(3),
    "ahead": rules.window(before=-2, after=70),
    "behind": rules.window(before=90, after=-5),
    "wider than all": rules.window(10**15),
    "others only": rules.window(1, loops=False),
    "following": rules.following,
    "all": rules.all_pairs,
}


@pytest.mark.parametrize("names", [["window"], ["ahead", "all"], ["behind", "following"], list(RULES)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_node_sets_longer_than_a_tile_give_the_same(names, dtype) -> None:
    """Windows are cut out of the sources tile by tile, without a mask."""
    edges = [EdgeType(s, name, t, rule=RULES[name]) for name in names for s, t in (("a", "a"), ("a", "b"))]
    schema = Schema([NodeType("a", 2), NodeType("b", 3)], [*edges, edge_type("given", "b", "back", "a")])
    rng = np.random.default_rng(0)
    world = World(
        schema, [random_sample(schema, counts, rng, str(i)) for i, counts in enumerate([(150, 70), (0, 3), (65, 130)])]
    )
    layer = HGTLayer(schema, 8, 2).to(dtype)
    randomize(layer, scale=0.3)
    folded, laid_out = both(world, layer, dtype)
    tolerance = 1e-10 if dtype is torch.float64 else 2e-4
    for name, value in laid_out.items():
        close(folded[name], value, tolerance)


def case(dtype: torch.dtype = torch.float64, heads: int = 2, d: int = 3) -> tuple[list[Tensor], Folding]:
    """Two types in three samples, one of which lacks the second; a block without mask, one with, one per head."""
    torch.manual_seed(0)
    layouts = [Counts.of(torch.tensor([3, 2, 4])), Counts.of(torch.tensor([2, 0, 3]))]
    blocks = [Block(0, 0), Block(1, 0, rules.window(1)), Block(0, 1, None, True)]
    folding = Folding.of(layouts, blocks, heads)
    masks = [torch.randn(3 * 4 * 4), torch.randn(heads * 3 * 3 * 4)]
    masks[0][::3] = -torch.inf
    tensors = [torch.randn(14, 3, heads, d), *torch.randn(2, 3, heads, d, d).unbind(0), torch.cat(masks)]
    return [value.to(dtype).requires_grad_() for value in tensors], folding


def test_gradients_equal_finite_differences() -> None:
    inputs, folding = case()
    rows, att, msg, mask = inputs
    plain = 48
    fixed, free = mask.detach()[:plain], mask.detach()[plain:].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: attend(*x[:3], torch.cat([fixed, x[3]]), folding), (rows, att, msg, free)
    )


def test_torch_accepts_the_operators() -> None:
    inputs, folding = case(torch.float32)
    tables = (folding.place, folding.targets, folding.blocks, folding.share, folding.room)
    inputs[3] = inputs[3].detach()
    torch.library.opcheck(torch.ops.hetgraph.fold, (*inputs, *tables))


def test_any_number_and_kind_of_threads_gives_the_same_bits(monkeypatch) -> None:
    before = torch.get_num_threads()

    def run(count: int) -> list[Tensor]:
        inputs, folding = case(torch.float32, heads=4, d=32)
        torch.set_num_threads(count)
        out = attend(*inputs, folding)
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    try:
        expected = run(1)
        found = [run(2), run(5)]
        monkeypatch.setattr(threads, "_openmp", lambda: None)
        found.append(run(3))
    finally:
        torch.set_num_threads(before)
    for some in found:
        for mine, theirs in zip(some, expected, strict=True):
            assert torch.equal(mine, theirs)


def test_one_sample_by_the_equations() -> None:
    inputs, folding = case()
    rows, att, msg, mask = (value.detach() for value in inputs)
    out = attend(rows, att, msg, mask, folding)
    keys, queries, values = rows.unbind(1)
    # sample 2 has the nodes 5..8 of the first type, 11..13 of the second
    for h in range(2):
        for i in range(4):
            score, message = [], []
            for j in range(4):
                score.append(keys[5 + j, h] @ att[0, h] @ queries[5 + i, h] + mask[(2 * 4 + i) * 4 + j])
                message.append(values[5 + j, h] @ msg[0, h])
            for j in range(3):
                if abs(j - i) <= 1:
                    score.append(keys[11 + j, h] @ att[1, h] @ queries[5 + i, h])
                    message.append(values[11 + j, h] @ msg[1, h])
            close(out[5 + i, h], torch.stack(score).softmax(0) @ torch.stack(message), 1e-12)
        for i in range(3):
            score = [
                keys[5 + j, h] @ att[2, h] @ queries[11 + i, h] + mask[48 + ((h * 3 + 2) * 3 + i) * 4 + j]
                for j in range(4)
            ]
            expected = torch.stack(score).softmax(0) @ (values[5:9, h] @ msg[2, h])
            close(out[11 + i, h], expected, 1e-12)


def test_a_number_that_is_none_is_not_hidden() -> None:
    inputs, folding = case(torch.float32)
    with torch.no_grad():
        inputs[0][5] = math.nan  # a node of sample 2
    out = attend(*inputs, folding)
    assert bool(out[[11, 12, 13]].isnan().all())
    assert bool(out[[0, 1, 2, 3, 4, 9, 10]].isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_far_beyond_the_range_of_exp_stay_finite(kind) -> None:
    schema = Schema([NodeType("a", 2)], [edge_type(kind, "a", "to", "a")])
    world = World(schema, [random_sample(schema, [4], np.random.default_rng(0), "0")])
    layer = HGTLayer(schema, 4, 2)
    randomize(layer, scale=50)
    folded, laid_out = both(world, layer, torch.float32)
    for name, value in folded.items():
        assert bool(value.isfinite().all()), name
        assert value.shape == laid_out[name].shape


def test_products_of_large_node_sets_start_no_threads_of_their_own(capfd) -> None:
    """OpenBLAS would, from a thousand nodes on, and print that it may hang."""
    torch.manual_seed(0)
    layouts = [Counts.of(torch.tensor([1500, 900]))]
    folding = Folding.of(layouts, [Block(0, 0, rules.all_pairs)], 2)
    rows, att, msg = torch.randn(2400, 3, 2, 8), torch.randn(1, 2, 8, 8), torch.randn(1, 2, 8, 8)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        out = attend(rows, att, msg, torch.zeros(0), folding)
    finally:
        torch.set_num_threads(before)
    assert capfd.readouterr().err == ""
    keys, queries, values = rows[1500:].double().permute(1, 2, 0, 3)
    score = torch.einsum("hsd,hde,hte->hts", keys, att[0].double(), queries)
    expected = score.softmax(-1) @ values @ msg[0].double()
    close(out[1500:].double(), expected.transpose(0, 1), 2e-3)


def test_the_number_of_threads_of_blas_is_given_back() -> None:
    before = [library.get_num_threads() for library in threads._openblas()]
    with threads.one_blas_thread():
        with threads.one_blas_thread():
            pass
        assert [library.get_num_threads() for library in threads._openblas()] == [1] * len(before)
    assert [library.get_num_threads() for library in threads._openblas()] == before


def test_a_mask_of_another_size_is_refused() -> None:
    inputs, folding = case()
    with pytest.raises(HetgraphError, match=r"mask must have 120 numbers, got 119"):
        attend(*inputs[:3], inputs[3][1:], folding)
