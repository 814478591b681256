"""A pre-norm residual block: message passing, then a feed-forward network on every node."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..graph import Graph
from ..schema import Schema
from .hgt import HGTLayer


class GraphBlock(nn.Module):
    """``x = x + HGT(norm_t(x))``, then ``x = x + FFN(norm_t(x))`` (pre-norm: Xiong et al., ICML 2020).

    The norms have their own scale and shift per node type; the feed-forward network is shared by all types.

    Args:
        schema: the types.
        width: width of the states.
        heads: attention heads.
        dropout: probability, after the messages and inside and after the feed-forward network.
        expansion: the feed-forward network is ``expansion * width`` wide.

    Shapes:
        ``{type: [N, width]}`` -> the same.
    """

    def __init__(self, schema: Schema, width: int, heads: int, dropout: float = 0.0, expansion: int = 2) -> None:
        super().__init__()
        self.names = list(schema.nodes)
        self.attention = HGTLayer(schema, width, heads, residual=False)
        self.norm_in = nn.ModuleList([nn.LayerNorm(width) for _ in self.names])
        self.norm_mid = nn.ModuleList([nn.LayerNorm(width) for _ in self.names])
        self.forward_in = nn.Linear(width, expansion * width)
        self.forward_out = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)

    def normed(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the attention of this block reads."""
        return {name: norm(x[name]) for name, norm in zip(self.names, self.norm_in, strict=True)}

    def forward(self, graph: Graph, x: Mapping[str, Tensor], backend: str = "auto") -> dict[str, Tensor]:
        normed = self.normed(x)
        heard = self.attention(graph, normed, backend)
        # a type that nothing is sent to hears what a node without edges hears, so that declaring an edge type
        # that no sample uses changes nothing
        silent = self.attention.out_bias
        for i, n in enumerate(self.names):
            if heard[n] is normed[n]:
                heard[n] = silent[i].expand_as(x[n])
        x = {n: x[n] + self.dropout(heard[n]) for n in self.names}
        sizes = [len(x[name]) for name in self.names]
        packed = torch.cat([norm(x[name]) for name, norm in zip(self.names, self.norm_mid, strict=True)])
        inner = self.dropout(nn.functional.gelu(self.forward_in(packed)))
        change = self.dropout(self.forward_out(inner)).split(sizes)
        return {name: x[name] + step for name, step in zip(self.names, change, strict=True)}
