"""What an attention backend takes and gives.

For a destination node t the Heterogeneous Graph Transformer computes, over all its incoming edges
e = (s, r, t) of every edge type at once,

    a(e) = softmax_e( (k_s W_att^r) . q_t * mu^r / sqrt(d) + b(e) ),    out_t = sum_e a(e) v_s W_msg^r

A backend is a function ``(graph, Attention) -> {destination type: [N, H, d]}``; a node without incoming
edges gets zeros. Backends differ in the form of the edges they read, never in the result.

Shapes: N nodes of a type, E edges of an edge type, H heads, d width of a head, R relations of an edge type.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..schema import EdgeKey


@dataclass
class Attention:
    """The inputs of one attention step.

    Attributes:
        projected: type -> keys, queries and values side by side, ``[N, 3, H, d]``.
        att: edge key -> ``[R, H, d, d]``, already times ``mu / sqrt(d)``; R is 1 without relations.
        msg: edge key -> ``[R, H, d, d]``.
        bias: edge key -> ``[E, H]`` in the order of ``edges.index``, for edge types with features.
        k, q, v: type -> keys, queries, values, ``[N, H, d]``.
    """

    projected: dict[str, Tensor]
    att: dict[EdgeKey, Tensor]
    msg: dict[EdgeKey, Tensor]
    bias: dict[EdgeKey, Tensor]

    def __post_init__(self) -> None:
        # here and not on demand: taken apart once, and the compiler does not follow cached properties
        sides = {name: value.unbind(1) for name, value in self.projected.items()}
        self.k = {name: side[0] for name, side in sides.items()}
        self.q = {name: side[1] for name, side in sides.items()}
        self.v = {name: side[2] for name, side in sides.items()}
