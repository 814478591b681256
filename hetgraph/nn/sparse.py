"""Sparse backend in plain torch: gather along edge lists, softmax by destination, scatter.

The simple path that the others are proven against; it also gives the attention weight of every edge.

Shapes: N nodes of a type, E edges, H heads, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..edges import Edges
from ..graph import Graph
from ..schema import EdgeKey
from .attention import Attention
from .segment import segment_softmax


def aggregate(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """Messages for every destination type, ``[N, H, d]``; see :mod:`hetgraph.nn.attention`."""
    out: dict[str, Tensor] = {}
    for name, incoming in graph.schema.incoming.items():
        if not incoming:
            continue
        sources = [_sources(graph, key, inputs) for key in incoming]
        weight = _weights(graph, name, sources, inputs)
        message = torch.cat([values[place] for place, _, values in sources]) * weight[..., None]
        heads = torch.cat([graph.edges[key].index[1] for key in incoming])
        # q * 0: a type without any edge still takes part in the computation, with gradient zero
        out[name] = (inputs.q[name] * 0.0).index_add(0, heads, message)
    return out


def weights(graph: Graph, inputs: Attention) -> dict[EdgeKey, Tensor]:
    """Attention weight of every edge and head, edge key -> ``[E, H]``; over the edges into a node they sum to 1."""
    out: dict[EdgeKey, Tensor] = {}
    for name, incoming in graph.schema.incoming.items():
        if incoming:
            joined = _weights(graph, name, [_sources(graph, key, inputs) for key in incoming], inputs)
            out.update(zip(incoming, joined.split([len(graph.edges[key]) for key in incoming]), strict=True))
    return out


Sources = tuple[Tensor, Tensor, Tensor]


def _weights(graph: Graph, name: str, sources: list[Sources], inputs: Attention) -> Tensor:
    """Softmax over all edges that end in each node of a type, ``[E of all its edge types, H]``."""
    q = inputs.q[name]
    scores, heads = [], []
    for key, (place, keys, _) in zip(graph.schema.incoming[name], sources, strict=True):
        heads.append(graph.edges[key].index[1])
        score = (keys[place] * q[heads[-1]]).sum(-1)
        scores.append(score + inputs.bias[key] if key in inputs.bias else score)
    return segment_softmax(torch.cat(scores), torch.cat(heads), len(q))


def _sources(graph: Graph, key: EdgeKey, inputs: Attention) -> Sources:
    """Row of every edge ``[E]`` in the mapped keys and values ``[rows, H, d]`` of an edge type.

    Without relations there is one row per source node; with relations one per (source node, relation)
    that occurs, so that the product with the relation's matrix is done once per pair and not per edge.
    """
    edges, k, v = graph.edges[key], inputs.k[key[0]], inputs.v[key[0]]
    att, msg = inputs.att[key], inputs.msg[key]
    if edges.relation is None:
        return (
            edges.index[0],
            torch.einsum("nhd,hde->nhe", k, att[0]),
            torch.einsum("nhd,hde->nhe", v, msg[0]),
        )
    node, place, sizes = _pairs(graph, key, edges)
    mapped_k, mapped_v = [k[:0]], [v[:0]]
    for slot, rows in zip(sizes, node.split(list(sizes.values())), strict=True):
        mapped_k.append(torch.einsum("nhd,hde->nhe", k[rows], att[slot]))
        mapped_v.append(torch.einsum("nhd,hde->nhe", v[rows], msg[slot]))
    return place, torch.cat(mapped_k), torch.cat(mapped_v)


def _pairs(graph: Graph, key: EdgeKey, edges: Edges) -> tuple[Tensor, Tensor, dict[int, int]]:
    """The distinct (relation, source node) pairs, sorted.

    Returns the node of every pair ``[P]``, the pair of every edge ``[E]``, and how many pairs each relation has.
    """
    at = ("pairs", key)
    if at not in graph.cache:
        assert edges.relation is not None
        total = max(edges.src.total, 1)
        pairs, place = torch.unique(edges.relation * total + edges.index[0], return_inverse=True)
        present, size = torch.unique(pairs // total, return_counts=True)
        graph.cache[at] = pairs % total, place, dict(zip(present.tolist(), size.tolist(), strict=True))
    return graph.cache[at]
