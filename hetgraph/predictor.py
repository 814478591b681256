"""A fusion model with a head for one objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .fusion import Fusion, FusionOutput
from .graph import Graph
from .nn import DirectScores
from .objectives import Objective, objective_from_json
from .pretrained import Pretrained, Rules, schema_of


@dataclass
class Prediction:
    """``scores [S, C]``, one row per row of Z, and the fusion they were made from."""

    scores: Tensor
    fused: FusionOutput


class Predictor(Pretrained, library_name="hetgraph", tags=["multimodal", "graph"]):
    """Fusion, then a two-layer head: ``scores = W_2 dropout(gelu(W_1 Z))``.

    With the fusion method ``late`` there is such a head f_k for every node type, and ``scores = sum_k alpha_k
    f_k(X_k)``.

    Args:
        fusion: gives Z ``[S, width]``.
        objective: what is predicted.
        dropout: probability inside the head.
        norm: normalise Z in front of the head (layer normalisation: Ba et al., 2016). Worth it with many classes:
            Z is a mean over the node types, and small at first.
        direct: width of a plain network whose scores are added, from the mean features of every type past fusion
            (:class:`~hetgraph.nn.DirectScores`); 0: none.
    """

    def __init__(
        self, fusion: Fusion, objective: Objective, dropout: float = 0.1, norm: bool = False, direct: int = 0
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.schema = fusion.schema
        self.objective = objective
        self.dropout, self.norm = dropout, norm
        late = fusion.network.decisions
        self.head = nn.ModuleList([self._head() for _ in self.schema.nodes]) if late else self._head()
        # last, so that the weights before it are drawn as without it
        self.direct = DirectScores(self.schema, direct, objective.outputs, dropout) if direct else None
        self.auxiliary: ModalityHeads | None = None

    def _head(self) -> nn.Sequential:
        return nn.Sequential(
            *([nn.LayerNorm(self.fusion.width)] if self.norm else []),
            nn.Linear(self.fusion.width, self.fusion.width),
            nn.GELU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.fusion.width, self.objective.outputs),
        )

    def forward(self, graph: Graph, backend: str = "auto") -> Prediction:
        fused = self.fusion(graph, backend)
        scores = self._scores(fused)
        if self.direct is not None:
            network = self.fusion.network
            segment, sample = network.rows(graph)
            scores = scores + self.direct(network.project.scaled(graph), segment, len(sample))
        return Prediction(scores, fused)

    def _scores(self, fused: FusionOutput) -> Tensor:
        if not isinstance(self.head, nn.ModuleList):
            scores: Tensor = self.head(fused.z)
            return scores
        each = [
            fused.weights[name][:, None] * head(fused.parts[name])
            for name, head in zip(self.schema.nodes, self.head, strict=True)
        ]
        return torch.stack(each).sum(0)

    def to_config(self) -> dict[str, Any]:
        config = {**self.fusion.to_config(), "objective": self.objective.to_json(), "head_dropout": self.dropout}
        # left out where there is none: models that were saved before know of no such thing
        more = {"head_norm": True} if self.norm else {}
        return {**config, **more, **({} if self.direct is None else {"direct": self.direct.width})}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> Predictor:
        fusion = Fusion(schema_of(config, rules), **config["settings"])
        return cls(
            fusion,
            objective_from_json(config["objective"]),
            config["head_dropout"],
            config.get("head_norm", False),
            config.get("direct", 0),
        )


class ModalityHeads(nn.Module):
    """A linear head per node type, there only while a model is trained, that answers from X_k alone.

    Its loss keeps every encoder at work that the joint loss, once the strongest modality explains the answers, no
    longer reaches (Wang et al., CVPR 2020; Peng et al., CVPR 2022). The heads start at zero.

    Args:
        predictor: the model whose X_k are read.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.objective = predictor.objective
        # without drawing numbers, so that the run is otherwise the one it would be without these heads
        self.weight = nn.Parameter(
            torch.zeros(len(predictor.schema.nodes), predictor.objective.outputs, predictor.fusion.width)
        )
        self.bias = nn.Parameter(torch.zeros(len(predictor.schema.nodes), predictor.objective.outputs))

    def losses(self, fused: FusionOutput, target: Tensor) -> Tensor:
        """Loss of every row of Z, the mean over the types that are present, ``[S]``."""
        total, types = torch.zeros(len(target), device=target.device), torch.zeros(len(target), device=target.device)
        for i, (name, part) in enumerate(fused.parts.items()):
            rows = (fused.weights[name] > 0).nonzero().squeeze(1)
            scores = nn.functional.linear(part[rows].float(), self.weight[i], self.bias[i])
            total = total.index_add(0, rows, self.objective.losses(scores, target[rows]))
            types = types.index_add(0, rows, torch.ones(len(rows), device=target.device))
        return total / types.clamp(min=1)
