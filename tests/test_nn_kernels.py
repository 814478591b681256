"""The fused attention kernel against plain torch, and as an operator that autograd and the compiler accept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hetgraph.nn import kernels
from hetgraph.nn.kernels import Grouping, attend
from hetgraph.nn.segment import segment_softmax


def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, node: Tensor, row: Tensor) -> Tensor:
    """The docstring's equations by gather and scatter."""
    score = torch.einsum("ehd,hed->eh", q[node], k[:, row])
    p = segment_softmax(score if bias is None else score + bias, node, len(q))
    return torch.zeros_like(q).index_add(0, node, p[..., None] * v[:, row].transpose(0, 1))


def case(nodes: int, rows: int, edges: int, heads: int, d: int, biased: bool, seed: int = 0, dtype=torch.float64):
    torch.manual_seed(seed)
    node, row = (torch.randint(n, (edges if nodes and rows else 0,)) for n in (max(nodes, 1), max(rows, 1)))
    shapes = [(nodes, heads, d), (heads, rows, d), (heads, rows, d), (len(node), heads)]
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    return (*tensors[:3], tensors[3] if biased else None), node, row


@settings(max_examples=60, deadline=None)
@given(
    nodes=st.integers(0, 9),
    rows=st.integers(0, 9),
    edges=st.integers(0, 40),
    heads=st.integers(1, 3),
    d=st.integers(1, 5),
    biased=st.booleans(),
)
def test_outputs_and_gradients_equal_plain_torch(nodes, rows, edges, heads, d, biased) -> None:
    inputs, node, row = case(nodes, rows, edges, heads, d, biased)
    grouping = Grouping.of(node, row, nodes, rows)
    found, expected = attend(*inputs, grouping), plain(*inputs, node, row)
    close(found, expected, 1e-12)
    up = torch.randn_like(expected)
    wanted = [x for x in inputs if x is not None]
    for mine, theirs in zip(
        torch.autograd.grad(found, wanted, up), torch.autograd.grad(expected, wanted, up), strict=True
    ):
        close(mine, theirs, 1e-11)


@pytest.mark.parametrize("biased", [False, True])
def test_gradients_equal_finite_differences(biased) -> None:
    inputs, node, row = case(4, 5, 14, 2, 3, biased)
    grouping = Grouping.of(node, row, 4, 5)
    assert torch.autograd.gradcheck(lambda *x: attend(*x, *([] if biased else [None]), grouping), inputs[: 3 + biased])


@pytest.mark.parametrize("threads", [1, 2])
def test_many_edges_on_several_threads_equal_plain_torch_in_single_precision(threads) -> None:
    inputs, node, row = case(300, 500, 20_000, 4, 32, True, dtype=torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = attend(inputs[0] / 6, *inputs[1:], Grouping.of(node, row, 300, 500))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    close(found, plain(inputs[0] / 6, *inputs[1:], node, row), 1e-5)


def test_scores_far_beyond_the_range_of_exp_stay_finite() -> None:
    (q, k, v, _), node, row = case(3, 4, 9, 1, 2, False, dtype=torch.float32)
    found = attend(q * 1e4, k, v, None, Grouping.of(node, row, 3, 4))
    assert bool(found.isfinite().all())
    close(found, plain(q * 1e4, k, v, None, node, row), 1e-5)


def test_half_precision_is_computed_in_single_precision_and_comes_back_as_it_was() -> None:
    (q, k, v, _), node, row = case(5, 6, 20, 2, 4, False, dtype=torch.bfloat16)
    grouping = Grouping.of(node, row, 5, 6)
    found = attend(q, k, v, None, grouping)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, attend(q.float(), k.float(), v.float(), None, grouping).bfloat16())


def test_the_operators_hold_what_torch_asks_of_custom_operators() -> None:
    inputs, node, row = case(6, 7, 25, 2, 3, True, dtype=torch.float32)
    order = [getattr(Grouping.of(node, row, 6, 7), name) for name in Grouping.__dataclass_fields__]
    torch.library.opcheck(kernels._attend, (*inputs, *order))
    out, weight = kernels._attend(*(x.detach() for x in inputs), *order)
    q, k, v, _ = (x.detach() for x in inputs)
    torch.library.opcheck(kernels._attend_backward, (torch.ones_like(out), q, k, v, out, weight, True, *order))


def test_the_compiler_takes_it_without_a_graph_break() -> None:
    inputs, node, row = case(6, 7, 25, 2, 3, True, dtype=torch.float32)
    grouping = Grouping.of(node, row, 6, 7)
    compiled = torch.compile(lambda *x: attend(*x, grouping).tanh(), fullgraph=True, backend="aot_eager")
    close(compiled(*inputs), attend(*inputs, grouping).tanh(), 1e-6)
    up = torch.ones(6, 2, 3)
    found = torch.autograd.grad(compiled(*inputs), inputs, up)
    expected = torch.autograd.grad(attend(*inputs, grouping).tanh(), inputs, up)
    for mine, theirs in zip(found, expected, strict=True):
        close(mine, theirs, 1e-6)


@settings(max_examples=60, deadline=None)
@given(edges=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=30))
def test_edges_are_grouped_both_ways_in_the_order_given(edges) -> None:
    node, row = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    found = Grouping.of(node, row, 7, 5)
    order = np.argsort(node.numpy(), kind="stable")
    assert found.edge.tolist() == order.tolist()
    assert found.row.tolist() == row[order].tolist()
    assert found.start.diff().tolist() == [int((node == n).sum()) for n in range(7)]
    back = np.argsort(row[order].numpy(), kind="stable")
    assert found.back_place.tolist() == back.tolist()
    assert found.back_node.tolist() == node[order][back].tolist()
    assert found.back_start.diff().tolist() == [int((row == r).sum()) for r in range(5)]
    for cut, count in ((found.cut, 7), (found.back_cut, 5)):
        assert (int(cut[0]), int(cut[-1])) == (0, count)
        assert bool((cut.diff() >= 0).all())
