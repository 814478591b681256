"""Samples for which there is no graph: which they are, and how the rows of two methods become one output."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import Graph
from .output import FusionOutput


def without_edges(graph: Graph) -> Tensor:
    """bool ``[B]``: which samples have not a single edge."""
    edges = torch.zeros(len(graph), dtype=torch.long, device=graph.device)
    for some in graph.edges.values():
        edges = edges + some.per_sample
    return edges == 0


def merged(graph: Graph, own: FusionOutput, other: FusionOutput, lonely: Tensor) -> FusionOutput:
    """``own``, with everything that belongs to the ``lonely`` samples (bool ``[B]``) from ``other``."""
    rows = lonely[own.sample]

    def chosen(where: Tensor, mine: dict[str, Tensor], its: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.where(_like(where, value), its[name], value) for name, value in mine.items()}

    nodes = {
        name: torch.where(lonely[graph.batch[name]][:, None], other.nodes[name], value)
        for name, value in own.nodes.items()
    }
    return FusionOutput(
        torch.where(rows[:, None], other.z, own.z),
        nodes,
        chosen(rows, own.weights, other.weights),
        chosen(rows, own.parts, other.parts),
        own.sample,
        {**own.losses, **other.losses},
        rows,
    )


def _like(where: Tensor, value: Tensor) -> Tensor:
    return where if value.dim() == 1 else where[:, None]
