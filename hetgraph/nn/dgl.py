"""Attention by the CPU kernels of the Deep Graph Library (DGL), an optional extra.

Per destination type all incoming edge types form one bipartite graph: its sources are the rows of mapped keys
and values of every edge type one after the other, its destinations the nodes of the type. The kernels read the
rows where they lie, so that nothing of size E x H x d is made, forward or backward.

Shapes: N nodes of a type, E edges, H heads, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..graph import Graph
from ..interop.dgl import load_dgl
from . import sparse
from .attention import Attention

# the kernels know no others
_DTYPES = (torch.float32, torch.float64)


def aggregate(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """Messages for every destination type, ``[N, H, d]``; see :mod:`hetgraph.nn.attention`.

    On other devices than a CPU, and for half precision, this is the sparse backend.

    Raises:
        HetgraphError: DGL cannot be loaded, see :func:`hetgraph.interop.dgl.load_dgl`.
    """
    ops = load_dgl().ops
    if graph.device.type != "cpu" or any(q.dtype not in _DTYPES for q in inputs.q.values()):
        return sparse.aggregate(graph, inputs)
    out: dict[str, Tensor] = {}
    for name, incoming in graph.schema.incoming.items():
        if not incoming:
            continue
        q = inputs.q[name]
        if not any(len(graph.edges[key]) for key in incoming):
            # a type without any edge still takes part in the computation, with gradient zero
            out[name] = q * 0.0
            continue
        sources = [sparse.map_sources(graph, key, inputs) for key in incoming]
        links = _links(graph, name, sources)
        score = ops.u_dot_v(links, torch.cat([keys for _, keys, _ in sources]), q)
        if any(key in inputs.bias for key in incoming):
            heads = q.shape[1]
            bias = [inputs.bias.get(key, q.new_zeros(len(graph.edges[key]), heads)) for key in incoming]
            score = score + torch.cat(bias)[..., None]
        weight = ops.edge_softmax(links, score)
        out[name] = ops.u_mul_e_sum(links, torch.cat([values for _, _, values in sources]), weight)
    return out


def _links(graph: Graph, name: str, sources: list[sparse.Sources]) -> Any:
    """The DGL graph of all edges into a type, in the order of its incoming edge types; made once per graph."""
    at = ("dgl", name)
    if at not in graph.cache:
        tails, rows = [], 0
        for place, keys, _ in sources:
            tails.append(place + rows)
            rows += len(keys)
        heads = [graph.edges[key].index[1] for key in graph.schema.incoming[name]]
        sizes = {"source": rows, "node": graph.layout[name].total}
        links = {("source", "to", "node"): (torch.cat(tails), torch.cat(heads))}
        graph.cache[at] = load_dgl().heterograph(links, sizes)
    return graph.cache[at]
