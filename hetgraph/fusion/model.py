"""``Fusion``: one class for every fusion method, saved and loaded with its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..errors import HetgraphError
from ..graph import Graph
from ..nn.project import POSITIONS
from ..pretrained import Pretrained, Rules, schema_of
from ..schema import EdgeKey, Schema
from .graph import GraphFusion
from .output import FusionOutput

METHODS: dict[str, type[GraphFusion]] = {"graph": GraphFusion}


class Fusion(Pretrained, library_name="hetgraph", tags=["multimodal", "graph"]):
    """The joint representation Z = F(X1, ..., XK) of every sample of a graph.

    Args:
        schema: the node and edge types the graphs have.
        width: width of Z.
        layers: message passing blocks.
        heads: attention heads.
        method: the fusion family; ``"graph"``.
        dropout: probability.
        group: name of an integer field; then Z is given per group of nodes (per utterance of a conversation)
            instead of per sample.
        positions: float fields that say where a node is; they are encoded beside the features.
        shared: the layers share their weights, so that a step of reasoning learnt once serves everywhere.

    Raises:
        HetgraphError: unknown method, or width not divisible by heads.

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
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise HetgraphError(f"unknown fusion method {method!r}; known: {', '.join(METHODS)}")
        if not isinstance(schema, Schema):
            raise HetgraphError(f"schema must be a Schema, got {type(schema).__name__}")
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
        }
        options = {k: v for k, v in self.settings.items() if k not in ("method", "width")}
        self.network = METHODS[method](schema, width, **options)

    def forward(self, graph: Graph, backend: str = "auto") -> FusionOutput:
        """Fuse.

        Args:
            graph: B samples.
            backend: attention backend, ``auto``, ``dense``, ``sparse`` or ``dgl``.

        Raises:
            HetgraphError: the graph is of another schema.
        """
        if graph.schema is not self.schema and graph.schema != self.schema:
            raise HetgraphError(
                f"the graph is of another schema than the model: {graph.schema.difference(self.schema)}"
            )
        return self.network(graph, backend)

    def standardize(self, graphs: Iterable[Graph]) -> None:
        """Set the mean and std of the input features of every node type from these graphs."""
        self.network.standardize(graphs)

    def attention(self, graph: Graph) -> list[dict[EdgeKey, Tensor]]:
        """Attention weight of every edge, per layer: edge key -> ``[E, heads]``, ordered as ``graph.edge_index``."""
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
