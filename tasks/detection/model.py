"""Fusion with a head on the nodes of one type, in the place of a head on Z."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...errors import HetgraphError
from ...fusion import Fusion
from ...graph import Graph
from ...objectives import Objective
from ...predictor import Prediction, Predictor
from ...pretrained import Rules, schema_of
from .objective import Detecting
from .pointing import Pointing

OBJECTIVES: dict[str, type[Objective]] = {one.__name__: one for one in (Detecting, Pointing)}


class NodePredictor(Predictor):
    """``scores_i = W_2 dropout(gelu(W_1 [h_i; Z]))`` for every node i of one type; Z, of its sample, if asked for.

    It is trained and saved as any :class:`~hetgraph.predictor.Predictor`: the rows of its scores are nodes.

    Args:
        fusion: gives the states h_i (:attr:`~hetgraph.fusion.FusionOutput.nodes`) and Z.
        objective: what is predicted of a node.
        node: the node type.
        joint: the head reads Z too. Without it a node knows what message passing told it, and nothing else.
        dropout: probability inside the head.

    Raises:
        HetgraphError: there is no such node type.
    """

    def __init__(
        self, fusion: Fusion, objective: Objective, node: str = "region", joint: bool = False, dropout: float = 0.1
    ) -> None:
        super().__init__(fusion, objective, dropout)
        if node not in fusion.schema.nodes:
            raise HetgraphError(f"no node type {node!r}; known: {list(fusion.schema.nodes)}")
        self.node, self.joint = node, joint
        width = fusion.width
        self.head = nn.Sequential(
            nn.Linear((1 + joint) * width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, objective.outputs)
        )

    def forward(self, graph: Graph, backend: str = "auto") -> Prediction:
        fused = self.fusion(graph, backend)
        state, sample = fused.nodes[self.node], graph.batch[self.node]
        if self.joint:
            state = torch.cat([state, fused.z[sample]], 1)
        return Prediction(self.head(state), replace(fused, sample=sample))

    def to_config(self) -> dict[str, Any]:
        return {**super().to_config(), "node": self.node, "joint": self.joint}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> NodePredictor:
        fusion = Fusion(schema_of(config, rules), **config["settings"])
        said = dict(config["objective"])
        kind = said.pop("kind")
        if kind not in OBJECTIVES:
            raise HetgraphError(f"unknown objective {kind!r}; known: {', '.join(OBJECTIVES)}")
        objective = OBJECTIVES[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in said.items()})
        return cls(fusion, objective, config["node"], config["joint"], config["head_dropout"])
