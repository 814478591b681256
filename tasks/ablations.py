"""Does the structure of the graph matter? A data set with some of its edges left out, or dealt out anew.

for kind in EDGES:
    data = ablate(load("shapes"), kind)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HetgraphError
from ..rules import AllPairs, Given, NodeSet
from ..sample import Sample
from ..schema import EdgeKey, EdgeType, Schema
from .datasets import Dataset

EDGES = ("all edges", "no cross-modal edges", "no within-modality edges", "shuffled edges", "no edges")
"""Kinds of :func:`ablate`."""


class Shuffled:
    """A rule whose destinations are dealt out anew within each sample.

    Who is connected to how many stays; who with whom does not. The order is drawn from the destination's features, so
    that a sample has the same edges in every batch.

    Args:
        rule: the true rule.
        seed: of the order.
    """

    def __init__(self, rule: Callable[..., Any], seed: int) -> None:
        self.rule, self.seed = rule, seed

    def __call__(self, src: NodeSet, dst: NodeSet) -> Any:
        found = self.rule(src, dst)
        mask, features = found if isinstance(found, tuple) else (found, {})
        order = torch.stack([self._order(x, valid) for x, valid in zip(dst["x"], dst.valid, strict=True)])
        dealt = [_take(value, order) for value in (mask, *features.values())]
        return (dealt[0], dict(zip(features, dealt[1:], strict=True))) if features else dealt[0]

    def _order(self, x: Tensor, valid: Tensor) -> Tensor:
        order = torch.arange(len(valid), device=valid.device)
        places = valid.nonzero().flatten()
        content = zlib.crc32(x[places].detach().float().cpu().numpy().tobytes())
        drawn = np.random.default_rng((self.seed, content)).permutation(len(places))
        order[places] = places[torch.from_numpy(drawn).to(places.device)]
        return order


def _take(value: Tensor, order: Tensor) -> Tensor:
    """``[B, N_src, N_dst, ...]`` with the third axis in the order ``[B, N_dst]``."""
    index = order.reshape(len(order), 1, -1, *[1] * (value.dim() - 3)).expand_as(value)
    return value.gather(2, index)


def ablate(data: Dataset, kind: str, *, seed: int = 0) -> Dataset:
    """The data set with other edges.

    A node type counts as a modality: edges between two types are cross-modal, those within one are not. Shuffled
    edges between all pairs are all pairs again, and stay as they are.

    Args:
        data: whose edges.
        kind: one of :data:`EDGES`.
        seed: of shuffled edges.

    Raises:
        HetgraphError: there is no such kind.
    """
    if kind not in EDGES:
        raise HetgraphError(f"no ablation {kind!r}; known: {', '.join(EDGES)}")
    if kind == "all edges":
        return data
    nodes, edges = list(data.schema.nodes.values()), list(data.schema.edges.values())
    if kind == "shuffled edges":
        kept = [e if isinstance(e.rule, AllPairs | Given) else replace(e, rule=Shuffled(e.rule, seed)) for e in edges]
    else:
        kept = [e for e in edges if _stays(e, kind)]
    schema = Schema(nodes, kept)
    parts = {
        name: None if part is None else [_other_edges(sample, schema, kind, seed) for sample in part]
        for name, part in (("train", data.train), ("valid", data.valid), ("test", data.test))
    }
    return replace(data, schema=schema, **parts)  # type: ignore[arg-type]


def _stays(edge: EdgeType, kind: str) -> bool:
    return kind != "no edges" and (edge.src == edge.dst) == (kind == "no cross-modal edges")


def _other_edges(sample: Sample, schema: Schema, kind: str, seed: int) -> Sample:
    """The sample with the edges that the schema has; shuffled, each type's destinations exchanged among them."""
    if not sample.edges:
        return sample
    edges: dict[EdgeKey, Any] = {key: value for key, value in sample.edges.items() if key in schema.edges}
    if kind == "shuffled edges":
        draw = np.random.default_rng((seed, zlib.crc32(str(sample.id).encode())))
        for key, value in edges.items():
            index = value["index"].clone()
            count = len(sample.nodes[key[2]]["x"])
            index[1] = torch.from_numpy(draw.permutation(count))[index[1]]
            edges[key] = {**value, "index": index}
    return Sample(nodes=sample.nodes, edges=edges, target=sample.target, id=sample.id)
