"""Sparse backend: edge lists, softmax by destination.

On the CPU all edges of the graph go through one fused kernel (:mod:`hetgraph.nn.kernels`); elsewhere plain
torch gathers, takes the softmax and scatters. The plain form is also what the others are proven against, and
it gives the attention weight of every edge.

Shapes: N nodes of a type, E edges, H heads, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..edges import Edges
from ..graph import Graph
from ..schema import EdgeKey
from .attention import Attention
from .kernels import Grouping, attend
from .segment import segment_softmax


def aggregate(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """Messages for every destination type, ``[N, H, d]``; see :mod:`hetgraph.nn.attention`."""
    return fused(graph, inputs) if graph.device.type == "cpu" else plain(graph, inputs)


def fused(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """The messages of all types by one call of the fused kernel (CPU)."""
    names = [name for name, incoming in graph.schema.incoming.items() if incoming]
    if not names:
        return {}
    lists = _edge_lists(graph, names)
    queries = torch.cat([inputs.q[name] for name in names])
    keys, values = (
        _mapped(graph, lists, side, maps) for side, maps in ((inputs.k, inputs.att), (inputs.v, inputs.msg))
    )
    heard = attend(queries, keys, values, _biases(graph, names, inputs), lists.grouping)
    return dict(zip(names, heard.split([graph.layout[name].total for name in names]), strict=True))


@dataclass(frozen=True)
class _EdgeLists:
    """All edges of a graph as one list from source rows to destinations.

    A source row is a node's key (or value) mapped by one edge type, or by one relation of an edge type that has
    some. Rows lie source type by source type, node by node, edge type by edge type; behind them those of the
    edge types with relations.

    Attributes:
        plain: source type -> its edge types without relations.
        related: edge types with relations.
    """

    plain: dict[str, list[EdgeKey]]
    related: list[EdgeKey]
    grouping: Grouping


def _edge_lists(graph: Graph, names: list[str]) -> _EdgeLists:
    if "edge lists" not in graph.cache:
        edges = graph.edges
        plain = {
            name: [key for key in edges if key[0] == name and edges[key].relation is None] for name in graph.layout
        }
        plain = {name: keys for name, keys in plain.items() if keys}
        related = [key for key in edges if edges[key].relation is not None]
        row: dict[EdgeKey, Tensor] = {}
        rows = 0
        for name, keys in plain.items():
            for j, key in enumerate(keys):
                row[key] = edges[key].index[0] * len(keys) + (rows + j)
            rows += graph.layout[name].total * len(keys)
        for key in related:
            node, place, _ = _pairs(graph, key, edges[key])
            row[key] = place + rows
            rows += len(node)
        nodes = 0
        ends, begins = [], []
        for name in names:
            for key in graph.schema.incoming[name]:
                ends.append(edges[key].index[1] + nodes)
                begins.append(row[key])
            nodes += graph.layout[name].total
        grouping = Grouping.of(torch.cat(ends), torch.cat(begins), nodes, rows)
        graph.cache["edge lists"] = _EdgeLists(plain, related, grouping)
    return graph.cache["edge lists"]


def _mapped(graph: Graph, lists: _EdgeLists, side: dict[str, Tensor], maps: dict[EdgeKey, Tensor]) -> Tensor:
    """Keys (or values) of all source rows, ``[H, P, d]``: one product per source type over all its edge types."""
    parts = []
    for name, keys in lists.plain.items():
        weight = torch.cat([maps[key][0] for key in keys], -1)  # [H, d, edge types * d]
        parts.append(torch.bmm(side[name].transpose(0, 1), weight).view(len(weight), -1, weight.shape[1]))
    for key in lists.related:
        node, _, sizes = _pairs(graph, key, graph.edges[key])
        sources = side[key[0]][node].transpose(0, 1).split(list(sizes.values()), 1)
        parts += [torch.bmm(rows, maps[key][slot]) for slot, rows in zip(sizes, sources, strict=True)]
        parts.append(side[key[0]][:0].transpose(0, 1))
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _biases(graph: Graph, names: list[str], inputs: Attention) -> Tensor | None:
    """Biases of all edges in their order, ``[E, H]``; zero for edge types without features."""
    if not inputs.bias:
        return None
    some = next(iter(inputs.bias.values()))
    incoming = [key for name in names for key in graph.schema.incoming[name]]
    return torch.cat(
        [
            inputs.bias[key] if key in inputs.bias else some.new_zeros(len(graph.edges[key]), some.shape[1])
            for key in incoming
        ]
    )


def plain(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """The same in plain torch, on any device: gather along edge lists, softmax by destination, scatter."""
    out: dict[str, Tensor] = {}
    for name, incoming in graph.schema.incoming.items():
        if not incoming:
            continue
        sources = [map_sources(graph, key, inputs) for key in incoming]
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
            joined = _weights(graph, name, [map_sources(graph, key, inputs) for key in incoming], inputs)
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


def map_sources(graph: Graph, key: EdgeKey, inputs: Attention) -> Sources:
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
