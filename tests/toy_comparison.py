"""A small comparison: data of which one modality decides, quick settings, and a second method."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hetgraph import EdgeType, NodeType, Sample, Schema
from hetgraph.compare import Comparison
from hetgraph.comparison_runs import Parts
from hetgraph.fusion.graph import GraphFusion
from hetgraph.objectives import Classification, Objective
from hetgraph.training import TrainingSettings

SCHEMA = Schema([NodeType("word", 3), NodeType("noise", 2)], [EdgeType("noise", "with", "word")])

QUICK = TrainingSettings(epochs=3, batch_size=16, patience=3, modality_dropout=0.2)

SMALL = Comparison(
    methods=("graph",), seeds=(0, 1), width=8, layers=1, heads=2, lr=(0.01, 0.03), dropout=(0.0,), training=QUICK
)


class FlatFusion(GraphFusion):
    """Another method: no messages."""

    def __init__(self, *args: Any, layers: int = 2, **options: Any) -> None:
        super().__init__(*args, layers=0, **options)


def samples(count: int, seed: int, kind: str = "class") -> list[Sample]:
    """The words' mean decides, the other modality is noise and missing in every third sample."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        level = rng.uniform(-1, 1)
        nodes = {"word": rng.standard_normal((2, 3)) * 0.2 + level}
        if i % 3:
            nodes["noise"] = rng.standard_normal((1, 2))
        target: Any = {
            "class": "high" if level > 0 else "low",
            "value": torch.tensor([float(level)]),
            "labels": ["high"] if level > 0 else [],
        }[kind]
        made.append(Sample(id=f"{seed}-{i}", nodes=nodes, target=target))
    return made


CLASSES = Classification(("low", "high"))


def parts(objective: Objective = CLASSES, kind: str = "class", **other: Any) -> Parts:
    made = {"train": samples(40, 0, kind), "valid": samples(20, 1, kind), "test": samples(30, 2, kind)} | other
    return Parts("tiny", SCHEMA, objective=objective, **made)
