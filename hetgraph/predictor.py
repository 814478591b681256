"""A fusion model with a head for one objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .fusion import Fusion, FusionOutput
from .graph import Graph
from .objectives import Objective, objective_from_json
from .pretrained import Pretrained, Rules, schema_of


@dataclass
class Prediction:
    """``scores [S, C]``, one row per row of Z, and the fusion they were made from."""

    scores: Tensor
    fused: FusionOutput


class Predictor(Pretrained, library_name="hetgraph", tags=["multimodal", "graph"]):
    """Fusion, then a two-layer head: ``scores = W_2 dropout(gelu(W_1 Z))``.

    Args:
        fusion: gives Z ``[S, width]``.
        objective: what is predicted.
        dropout: probability inside the head.
    """

    def __init__(self, fusion: Fusion, objective: Objective, dropout: float = 0.1) -> None:
        super().__init__()
        self.fusion = fusion
        self.schema = fusion.schema
        self.objective = objective
        self.dropout = dropout
        self.head = nn.Sequential(
            nn.Linear(fusion.width, fusion.width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(fusion.width, objective.outputs),
        )

    def forward(self, graph: Graph, backend: str = "auto") -> Prediction:
        fused = self.fusion(graph, backend)
        return Prediction(self.head(fused.z), fused)

    def to_config(self) -> dict[str, Any]:
        return {**self.fusion.to_config(), "objective": self.objective.to_json(), "head_dropout": self.dropout}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> Predictor:
        fusion = Fusion(schema_of(config, rules), **config["settings"])
        return cls(fusion, objective_from_json(config["objective"]), config["head_dropout"])
