"""Graph fusion: message passing over the heterogeneous graph, then a readout per node type."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..graph import Graph
from ..nn import GraphBlock, InputProjection, Readout
from ..nn.project import POSITIONS
from ..schema import EdgeKey, Schema
from .output import FusionOutput


class GraphFusion(nn.Module):
    """Typed projections, ``layers`` pre-norm blocks of heterogeneous attention, readout.

    Args:
        schema: the node and edge types.
        width: width of states and of Z.
        layers: number of message passing blocks.
        heads: attention heads.
        dropout: probability.
        group: name of the field whose values number the groups that get a Z each; None: one Z per sample.
        positions: fields that say where a node is.
        shared: all layers are one block with one set of weights, run ``layers`` times (Dehghani et al., ICLR
            2019): what is learnt for one step of reasoning is known to all.
    """

    def __init__(
        self,
        schema: Schema,
        width: int,
        *,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        group: str | None = None,
        positions: Iterable[str] = POSITIONS,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.group = group
        self.project = InputProjection(schema, width, positions)
        self.dropout = nn.Dropout(dropout)
        own = 1 if shared and layers else layers
        self.blocks = nn.ModuleList([GraphBlock(schema, width, heads, dropout) for _ in range(own)])
        self.steps = layers // own if own else 0
        self.norm = nn.ModuleList([nn.LayerNorm(width) for _ in schema.nodes])
        self.readout = Readout(schema, width, heads)

    def standardize(self, graphs: Iterable[Graph]) -> None:
        """Set the scale of the input features from these graphs."""
        self.project.standardize(graphs)

    def forward(self, graph: Graph, backend: str = "auto") -> FusionOutput:
        x = {name: self.dropout(state) for name, state in self.project(graph).items()}
        for block in self._layers():
            x = block(graph, x, backend)
        x = {name: norm(x[name]) for name, norm in zip(x, self.norm, strict=True)}
        if self.group is None:
            segment = dict(graph.batch)
            sample = torch.arange(len(graph), device=graph.device)
        else:
            segment, sample = graph.groups(self.group)
        z, weights, parts = self.readout(x, segment, len(sample))
        return FusionOutput(z, x, weights, parts, sample)

    def _layers(self) -> list[GraphBlock]:
        """The blocks in the order they are run; the same one several times if they share weights."""
        return [block for _ in range(self.steps) for block in self.blocks if isinstance(block, GraphBlock)]

    def attention(self, graph: Graph) -> list[dict[EdgeKey, Tensor]]:
        """Attention weights of every block: edge key -> ``[E, heads]`` in the order of ``graph.edge_index``."""
        x = self.project(graph)
        found = []
        for block in self._layers():
            found.append(block.attention.attention(graph, block.normed(x)))
            x = block(graph, x)
        return found
