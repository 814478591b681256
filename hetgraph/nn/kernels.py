"""Attention over edge lists on the CPU: numba kernels behind two custom operators of torch.

One call handles all edges of a graph at once. Destinations are the nodes of all types one after the other;
sources are rows of mapped keys and values. For every destination n and head h, over its edges e::

    s(e) = q[n, h] . k[h, row(e)] + bias(e, h),   p = softmax(s),   out[n, h] = sum_e p(e) v[h, row(e)]

The forward pass walks the edges grouped by destination (CSR) and keeps p, so nothing of size E x H x d is made.
The backward pass needs no atomics: dq, and the gradient of every score, by destination (CSR); dk and dv by
source row (CSC). Both groupings are made once per graph (:class:`Grouping`).

Shapes: N destinations, P source rows, E edges, H heads, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .threads import Kernel, in_pieces

_CHUNKS = 128
"""Work is cut into so many pieces of about as many edges each, whatever the number of threads."""


@dataclass(frozen=True)
class Grouping:
    """The edges of a graph sorted both ways; all int64, on the CPU.

    Attributes:
        start: ``[N + 1]``, where each destination's edges begin (CSR).
        row: ``[E]``, the source row of each edge, by destination.
        edge: ``[E]``, the number of each edge in the order it was given, by destination.
        back_start: ``[P + 1]``, where each source row's edges begin (CSC).
        back_place: ``[E]``, the place of each edge in the CSR order, by source row.
        back_node: ``[E]``, the destination of each edge, by source row.
        cut, back_cut: ``[chunks + 1]``, destinations and source rows in chunks of about as many edges.
    """

    start: Tensor
    row: Tensor
    edge: Tensor
    back_start: Tensor
    back_place: Tensor
    back_node: Tensor
    cut: Tensor
    back_cut: Tensor

    @classmethod
    def of(cls, node: Tensor, row: Tensor, nodes: int, rows: int) -> Grouping:
        """Sort edges that end in ``node`` int64 ``[E]`` and begin in ``row`` int64 ``[E]``; both sorts are stable."""
        group = _compiled().group
        ends, begins = node.numpy(), row.numpy()
        start, edge = group(ends, nodes)
        sorted_rows, sorted_nodes = begins[edge], ends[edge]
        back_start, back_place = group(sorted_rows, rows)
        found = (start, sorted_rows, edge, back_start, back_place, sorted_nodes[back_place])
        return cls(*(torch.from_numpy(a) for a in (*found, _cut(start), _cut(back_start))))


def _cut(start: np.ndarray) -> np.ndarray:
    wanted = np.linspace(0, start[-1], _CHUNKS + 1)[1:-1]
    inner = np.searchsorted(start, wanted, side="left").clip(0, len(start) - 1)
    return np.concatenate([[0], inner, [len(start) - 1]]).astype(np.int64)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, edges: Grouping) -> Tensor:
    """Attention of every destination over its edges, ``[N, H, d]``; zeros where there is no edge.

    Differentiable in ``q``, ``k``, ``v`` and ``bias``.

    Args:
        q: ``[N, H, d]``.
        k, v: ``[H, P, d]``.
        bias: ``[E, H]`` in the order the edges were given, or None.
        edges: see :class:`Grouping`.
    """
    dtype = q.dtype if q.dtype in (torch.float32, torch.float64) else torch.float32
    none = q.new_zeros(0, q.shape[1], dtype=dtype)
    inputs = (q.to(dtype), k.to(dtype), v.to(dtype), none if bias is None else bias.to(dtype))
    out, _ = _attend(
        *inputs,
        edges.start,
        edges.row,
        edges.edge,
        edges.back_start,
        edges.back_place,
        edges.back_node,
        edges.cut,
        edges.back_cut,
    )
    return out.to(q.dtype)


@torch.library.custom_op("hetgraph::attend", mutates_args=(), device_types="cpu")
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    start: Tensor,
    row: Tensor,
    edge: Tensor,
    back_start: Tensor,
    back_place: Tensor,
    back_node: Tensor,
    cut: Tensor,
    back_cut: Tensor,
) -> tuple[Tensor, Tensor]:
    nodes, heads, d = q.shape
    out = q.new_empty(nodes, heads, d)
    weight = q.new_empty(heads, len(row))
    in_pieces(_kernels()[0], _CHUNKS * heads, q, k, v, bias, start, row, edge, cut, out, weight)
    return out, weight


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, start: Tensor, row: Tensor, *rest: Tensor) -> Any:
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(q.shape[1], row.shape[0])


@torch.library.custom_op("hetgraph::attend_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    weight: Tensor,
    biased: bool,
    start: Tensor,
    row: Tensor,
    edge: Tensor,
    back_start: Tensor,
    back_place: Tensor,
    back_node: Tensor,
    cut: Tensor,
    back_cut: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq = q.new_empty(q.shape)
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    slope = torch.empty_like(weight)
    dbias = q.new_empty(len(row) if biased else 0, q.shape[1])
    _, by_node, by_row = _kernels()
    pieces = _CHUNKS * q.shape[1]
    in_pieces(by_node, pieces, grad, k, v, out, weight, start, row, edge, cut, dq, slope, dbias)
    in_pieces(by_row, pieces, grad, q, weight, slope, back_start, back_place, back_node, back_cut, dk, dv)
    return dq, dk, dv, dbias


@_attend_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, weight: Tensor, biased: bool, *rest: Tensor) -> Any:
    dbias = q.new_empty(weight.shape[1] if biased else 0, q.shape[1])
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dbias


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, *order = inputs
    ctx.save_for_backward(q, k, v, *output, *order)
    ctx.biased = len(bias) > 0
    ctx.mark_non_differentiable(output[1])


def _back(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, weight, *order = ctx.saved_tensors
    dq, dk, dv, dbias = _attend_backward(grad, q, k, v, out, weight, ctx.biased, *order)
    return dq, dk, dv, dbias, *(None for _ in order)


_attend.register_autograd(_back, setup_context=_keep)


@cache
def _kernels() -> tuple[Kernel, Kernel, Kernel]:
    """Forward, backward by destination, backward by source row; compiled on first use."""
    loops = _compiled()
    return (
        Kernel(loops.forward, loops.forward_task),
        Kernel(loops.backward_nodes, loops.backward_nodes_task),
        Kernel(loops.backward_rows, loops.backward_rows_task),
    )


@cache
def _compiled() -> Any:
    """The loops; numba is imported on first use."""
    from . import _numba

    return _numba
