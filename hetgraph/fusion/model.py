"""``Fusion``: one class for every fusion method, saved and loaded with its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import HetgraphError
from ..graph import Graph
from ..nn.project import POSITIONS
from ..pretrained import Pretrained, Rules, schema_of
from ..schema import EdgeKey, Schema
from .adversarial import AdversarialFusion
from .attention import AttentionFusion, CrossAttentionFusion, SelfAttentionFusion
from .coattention import CoattentionFusion
from .common import FusionNetwork
from .fallback import merged, without_edges
from .feature import ConcatFusion, GatedFusion, LateFusion, SumFusion, TensorFusion
from .graph import GraphFusion
from .output import FusionOutput

METHODS: dict[str, type[FusionNetwork]] = {
    "graph": GraphFusion,
    "concat": ConcatFusion,
    "sum": SumFusion,
    "gated": GatedFusion,
    "tensor": TensorFusion,
    "attention": AttentionFusion,
    "self_attention": SelfAttentionFusion,
    "cross_attention": CrossAttentionFusion,
    "coattention": CoattentionFusion,
    "adversarial": AdversarialFusion,
    "late": LateFusion,
}
"""The fusion families by name; each class says what it computes and from which paper."""


class Fusion(Pretrained, library_name="hetgraph", tags=["multimodal", "graph"]):
    """The joint representation Z = F(X1, ..., XK) of every sample of a graph.

    Args:
        schema: the node and edge types the graphs have.
        width: width of Z.
        layers: blocks that every node's state goes through (message passing, transformers).
        heads: attention heads.
        method: the fusion family, a name in :data:`METHODS`.
        dropout: probability.
        group: name of an integer field; then Z is given per group of nodes (per utterance of a conversation)
            instead of per sample.
        positions: float fields that say where a node is; they are encoded beside the features.
        shared: the layers share their weights, so that a step of reasoning learnt once serves everywhere.
        temporal: ``"lstm"`` or ``"gru"``: a recurrent network over the nodes of each type in the order of their
            time, before the layers.
        fallback: with the method ``graph``, the method that takes over the samples that have no edges; its rows
            are marked in the output. None: such samples go through the graph network, where nothing reaches them.
        coattention: ``"parallel"`` or ``"guided"``, the kind of the method ``coattention``.

    Raises:
        HetgraphError: unknown method, temporal encoder, fallback or co-attention, or width not divisible by heads.

    Example:
        >>> model = Fusion(schema, width=128, layers=2, heads=4)
        >>> model(graph).z.shape
        torch.Size([2, 128])
    """

    def __init__(
        self,
        schema: Schema,
        width: int = 128,
        *,
        layers: int = 2,
        heads: int = 4,
        method: str = "graph",
        dropout: float = 0.0,
        group: str | None = None,
        positions: Iterable[str] = POSITIONS,
        shared: bool = False,
        temporal: str | None = None,
        fallback: str | None = None,
        coattention: str = "parallel",
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise HetgraphError(f"unknown fusion method {method!r}; known: {', '.join(METHODS)}")
        if not isinstance(schema, Schema):
            raise HetgraphError(f"schema must be a Schema, got {type(schema).__name__}")
        if fallback is not None and method != "graph":
            raise HetgraphError(f"the method {method!r} needs no edges and takes no fallback; 'graph' does")
        if fallback is not None and fallback not in [name for name in METHODS if name != "graph"]:
            raise HetgraphError(
                f"unknown fallback {fallback!r}; known: {', '.join(n for n in METHODS if n != 'graph')}"
            )
        self.schema = schema
        self.width = width
        self.settings: dict[str, Any] = {
            "width": width,
            "layers": layers,
            "heads": heads,
            "method": method,
            "dropout": dropout,
            "group": group,
            "positions": list(positions),
            "shared": shared,
            "temporal": temporal,
            "fallback": fallback,
            "coattention": coattention,
        }
        self.network = self._network(method)
        self.fallback = None if fallback is None else self._network(fallback)

    def _network(self, method: str) -> FusionNetwork:
        apart = {"method", "width", "fallback"} | (set() if method == "coattention" else {"coattention"})
        options = {name: value for name, value in self.settings.items() if name not in apart}
        return METHODS[method](self.schema, self.width, **options)

    def forward(self, graph: Graph, backend: str = "auto") -> FusionOutput:
        """Fuse.

        Args:
            graph: B samples.
            backend: attention backend of the method ``graph``: ``auto``, ``dense``, ``sparse`` or ``dgl``.

        Raises:
            HetgraphError: the graph is of another schema.
        """
        if graph.schema is not self.schema and graph.schema != self.schema:
            raise HetgraphError(
                f"the graph is of another schema than the model: {graph.schema.difference(self.schema)}"
            )
        if self.fallback is None:
            return self.network(graph, backend)
        lonely = without_edges(graph)
        own = self.network(graph, backend)
        if not bool(lonely.any()):
            return replace(own, fallback=torch.zeros_like(own.sample, dtype=torch.bool))
        return merged(graph, own, self.fallback(graph), lonely)

    def standardize(self, graphs: Iterable[Graph]) -> None:
        """Set the mean and std of the input features of every node type from these graphs."""
        self.network.standardize(graphs)
        if self.fallback is not None:
            for name, value in self.network.project.named_buffers():
                self.fallback.project.get_buffer(name).copy_(value)

    def attention(self, graph: Graph) -> list[dict[EdgeKey, Tensor]]:
        """Attention weight of every edge, per layer: edge key -> ``[E, heads]``, ordered as ``graph.edge_index``.

        Raises:
            HetgraphError: the method does not look at edges.
        """
        return self.network.attention(graph)

    def to_config(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_json(),
            "fingerprint": self.schema.fingerprint,
            "settings": self.settings,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> Fusion:
        return cls(schema_of(config, rules), **config["settings"])
