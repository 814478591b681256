"""Graph fusion: message passing over the heterogeneous graph, then a readout per node type."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..graph import Graph
from ..nn import GraphBlock, Readout
from ..schema import EdgeKey, Schema
from .common import FusionNetwork, WeightedSum


class GraphFusion(WeightedSum, FusionNetwork):
    """``layers`` pre-norm blocks of heterogeneous attention along the edges, then ``Z = sum_k alpha_k X_k``.

    The layer is the Heterogeneous Graph Transformer (Hu et al., WWW 2020), see :class:`~hetgraph.nn.HGTLayer`; the
    way to Z is :class:`~hetgraph.nn.Readout`. ``weights`` are the alphas. A node without edges goes through the
    blocks without hearing anything.

    Shapes:
        states of a type ``[N, D]``, X_k and Z ``[S, D]``.
    """

    def __init__(self, schema: Schema, width: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(schema, width, dropout=dropout, **options)
        self.blocks = self.stack(lambda: GraphBlock(schema, width, self.heads, dropout))
        self.readout = Readout(schema, width, self.heads)

    def encode(self, graph: Graph, x: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        for block in self._layers():
            x = block(graph, x, backend)
        return x

    def _layers(self) -> list[GraphBlock]:
        return [block for block in self.in_order(self.blocks) if isinstance(block, GraphBlock)]

    def attention(self, graph: Graph) -> list[dict[EdgeKey, Tensor]]:
        """Attention weights of every block: edge key -> ``[E, heads]`` in the order of ``graph.edge_index``."""
        x = self.inputs(graph)
        found = []
        for block in self._layers():
            found.append(block.attention.attention(graph, block.normed(x)))
            x = block(graph, x)
        return found
