"""Dense backend: padded blocks, one ``scaled_dot_product_attention`` per destination type.

The keys of all edge types that end in a type are laid side by side along the source axis, and an additive
mask says which pairs are connected: log(multiplicity) where an edge exists (a repeated edge counts as
often as it is there), minus infinity elsewhere. Nothing of size E x H x d is made.

Shapes: B samples, S and D the longest source and destination node sets, H heads, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..edges import Edges
from ..graph import Graph
from ..schema import EdgeKey
from .attention import Attention


def aggregate(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """Messages for every destination type, ``[N, H, d]``; see :mod:`hetgraph.nn.attention`."""
    keys, values = _project_sources(graph, inputs)
    out: dict[str, Tensor] = {}
    for name, incoming in graph.schema.incoming.items():
        if not incoming:
            continue
        layout = graph.layout[name]
        blocks = [(key, slot) for key in incoming for slot in _slots(graph, key)]
        if not layout.total or not blocks:
            out[name] = inputs.q[name] * 0.0
            continue
        q = layout.pad(inputs.q[name]).transpose(1, 2)
        k = torch.cat([keys[block] for block in blocks], 2)
        v = torch.cat([values[block] for block in blocks], 2)
        mask, reached = _mask(graph, name, blocks, inputs)
        heard = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        if reached is not None:
            heard = heard * reached[:, None, :, None]
        out[name] = layout.unpad(heard.transpose(1, 2))
    return out


Block = tuple[EdgeKey, int]


def _slots(graph: Graph, key: EdgeKey) -> list[int]:
    """The relation ids of an edge type that occur in this graph; [0] without relations; [] without edges."""
    edges = graph.edges[key]
    if edges.src.total == 0 or edges.dst.total == 0:
        return []
    if edges.relation is None:
        return [0]
    at = ("relations present", key)
    if at not in graph.cache:
        graph.cache[at] = torch.unique(edges.relation).tolist()
    return graph.cache[at]


def _project_sources(graph: Graph, inputs: Attention) -> tuple[dict[Block, Tensor], dict[Block, Tensor]]:
    """Keys and values of every block, ``[B, H, S, d]``: one product per source type over all its relations."""
    keys: dict[Block, Tensor] = {}
    values: dict[Block, Tensor] = {}
    for name, layout in graph.layout.items():
        blocks = [(key, slot) for key in graph.schema.edges if key[0] == name for slot in _slots(graph, key)]
        if not blocks or not layout.total:
            continue
        for source, weights, made in ((inputs.k, inputs.att, keys), (inputs.v, inputs.msg, values)):
            weight = torch.cat([weights[key][slot] for key, slot in blocks], -1)  # [H, d, blocks * d]
            heads, d = weight.shape[:2]
            padded = layout.pad(source[name])
            samples, longest = padded.shape[:2]
            rows = padded.reshape(samples * longest, heads, d).transpose(0, 1)
            mapped = torch.bmm(rows, weight).view(heads, samples, longest, len(blocks), d)
            made.update(zip(blocks, mapped.permute(3, 1, 0, 2, 4).unbind(0), strict=True))
    return keys, values


def _mask(graph: Graph, name: str, blocks: list[Block], inputs: Attention) -> tuple[Tensor, Tensor | None]:
    """Additive mask ``[B, 1 or H, D, sum S]``, and bool ``[B, D]`` of the destinations some edge reaches.

    Rows that no edge reaches are opened to everything (a softmax over nothing is NaN) and the caller
    clears them afterwards; ``None`` if there is no such row. Without edge features the mask depends on the
    graph alone and is shared by all layers.
    """
    dtype = inputs.q[name].dtype
    fixed = ("dense mask", name, dtype)
    if fixed not in graph.cache:
        parts = [_log_multiplicity(graph.edges[key], slot, dtype) for key, slot in blocks]
        mask = torch.cat(parts, -1)[:, None]
        reached = (mask > -torch.inf).any(-1)[:, 0]
        if bool(reached.all()):
            graph.cache[fixed] = mask, None
        else:
            graph.cache[fixed] = mask.masked_fill(~reached[:, None, :, None], 0.0), reached
    mask, reached = graph.cache[fixed]
    if not any(key in inputs.bias for key, _ in blocks):
        return mask, reached
    widths = [graph.edges[key].src.longest for key, _ in blocks]
    parts = [
        _with_bias(graph.edges[key], slot, part, inputs.bias[key]) if key in inputs.bias else part
        for (key, slot), part in zip(blocks, mask.split(widths, -1), strict=True)
    ]
    heads = inputs.q[name].shape[1]
    return torch.cat([part.expand(-1, heads, -1, -1) for part in parts], -1), reached


def _log_multiplicity(edges: Edges, slot: int, dtype: torch.dtype) -> Tensor:
    """log of how often each pair is connected, ``[B, D, S]``."""
    if edges.relation is not None:
        times = _scatter(edges, edges.relation == slot, torch.ones_like(edges.relation, dtype=dtype))
    elif edges.multiplicity is not None:
        times = edges.multiplicity.to(dtype)
    else:
        times = edges.mask.to(dtype)
    return times.log().transpose(1, 2)


def _scatter(edges: Edges, chosen: Tensor, value: Tensor) -> Tensor:
    """Sum of ``value [E]`` of the chosen edges at every pair, ``[B, S, D]``."""
    shape = (len(edges.src.per_sample), edges.src.longest, edges.dst.longest)
    flat = value.new_zeros(shape[0] * shape[1] * shape[2])
    return flat.index_add(0, edges.cell[chosen], value[chosen]).view(shape)


def _with_bias(edges: Edges, slot: int, mask: Tensor, bias: Tensor) -> Tensor:
    """The mask of one block with the bias of its edges, ``[B, H, D, S]``.

    Parallel edges between a pair act as log(sum exp(bias)): together they weigh what they weigh one by one.
    """
    cell = edges.cell
    if edges.relation is not None:
        chosen = edges.relation == slot
        cell, bias = cell[chosen], bias[chosen]
    heads = bias.shape[1]
    samples, longest_src, longest_dst = len(edges.src.per_sample), edges.src.longest, edges.dst.longest
    cells = samples * longest_src * longest_dst
    if edges.listed:
        at = cell[:, None].expand(-1, heads)
        top = bias.detach().new_full((cells, heads), -torch.inf).scatter_reduce(0, at, bias.detach(), "amax")
        total = bias.new_zeros(cells, heads).index_add(0, cell, (bias - top[cell]).exp())
        # only touched cells: elsewhere both logarithms are of zero
        touched = torch.unique(cell)
        value = bias.new_zeros(cells, heads).index_copy(0, touched, total[touched].log() + top[touched])
        blocked = torch.ones(cells, dtype=torch.bool, device=bias.device).index_fill(0, touched, False)
    else:
        value = bias.new_zeros(cells, heads).index_copy(0, cell, bias)
        blocked = torch.ones(cells, dtype=torch.bool, device=bias.device).index_fill(0, cell, False)
    shape = (samples, longest_src, longest_dst)
    placed = value.view(*shape, heads).permute(0, 3, 2, 1)
    return torch.where(blocked.view(shape).transpose(1, 2)[:, None], mask, placed)
