"""One model that maps samples with any modalities into one space.

Shapes: B samples, W width of fusion, d dimensions of the shared space, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ...fusion import Fusion
from ...graph import Graph
from ...pretrained import Pretrained, Rules, schema_of
from ...sample import Sample
from ...schema import Schema
from ...thinning import without
from ..datasets.retrieval import Pooled
from . import linear


class Embedded(NamedTuple):
    """z ``[B, d]`` of length one, log-probabilities of classes ``[B, C]``, what fusion adds to the loss."""

    z: Tensor
    classes: Tensor
    losses: Tensor


class RetrievalModel(Pretrained, library_name="hetgraph", tags=["multimodal", "graph", "retrieval"]):
    """``z = normalize(normalize(sum_k normalize(W_k pool_k)) + A Z)`` with the Z of a fusion network, and classes.

    Queries and candidates go through the same weights, whatever modalities they have. ``A`` starts at zero: training
    starts from the closed-form maps W_k (:func:`.linear.shared_space`), which stay as they are, and adds what the
    fusion network learns. Every modality counts alike in the sum: ridge regression draws the maps of different
    modalities to zero by different amounts, and that says little of how right they are. The logits of the classes are
    ``sum_k V_k pool_k + B Z``.

    The score of two samples is the product of their :meth:`embed` vectors: ``(1 - a) cos(z, z') + a sum_c p_c p'_c``,
    where the sum is the probability that they have the same class (semantic matching, Rasiwasia et al., 2010).

    Args:
        schema: of the samples.
        views: modality -> its node types.
        pooled: node type -> how it enters the maps; empty: there are no maps.
        fusion: settings of :class:`~hetgraph.fusion.Fusion`, or None: the maps alone.
        dims: d.
        classes: C; 0: no classifier.
        agreement: a.
        kernels: modality -> landmarks of a Gaussian kernel; in place of its pooled nodes the maps then have the
            kernel's features (:func:`.linear.nystrom`).
    """

    def __init__(
        self,
        schema: Schema,
        views: Mapping[str, Sequence[str]],
        pooled: Mapping[str, Pooled],
        fusion: Mapping[str, Any] | None,
        dims: int,
        classes: int = 0,
        agreement: float = 0.0,
        kernels: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if fusion is None and not pooled:
            raise HetgraphError("a model without a fusion network and without closed-form maps says nothing")
        self.schema, self.dims, self.classes, self.agreement = schema, dims, classes, agreement
        self.views = {name: tuple(types) for name, types in views.items()}
        self.pooled = dict(pooled)
        self.fusion = None if fusion is None else Fusion(schema, **fusion)
        self.history: dict[str, Any] = {}
        self.mapped = [view for view in self.views if any(name in pooled for name in self.views[view])]
        self.kernels = {view: count for view, count in (kernels or {}).items() if view in self.mapped}
        for i, view in enumerate(self.mapped):
            size = self.map_width(view)
            self.register_buffer(f"scale_{i}", torch.stack([torch.zeros(size), torch.ones(size)]))
            if view in self.kernels:
                own, size = size, self.kernels[view]
                self.register_buffer(f"landmarks_{i}", torch.zeros(size, own))
                self.register_buffer(f"root_{i}", torch.eye(size))
                self.register_buffer(f"middle_{i}", torch.ones(()))
                self.register_buffer(f"mean_{i}", torch.zeros(size))
            self.register_buffer(f"map_{i}", torch.zeros(size, dims))
            self.register_buffer(f"classify_{i}", torch.zeros(size + 1, classes))
        self.temperature = nn.Parameter(torch.zeros(()))
        if self.fusion is not None:
            self.out = nn.Linear(self.fusion.width, dims)
            self.head = nn.Linear(self.fusion.width, classes) if classes else None
            if self.mapped:
                nn.init.zeros_(self.out.weight)
                nn.init.zeros_(self.out.bias)
                if self.head is not None:
                    nn.init.zeros_(self.head.weight)
                    nn.init.zeros_(self.head.bias)

    def map_width(self, view: str) -> int:
        types = [name for name in self.views[view] if name in self.pooled]
        return sum(linear.width(self.schema.nodes[name].dim, self.pooled[name]) for name in types)

    def rows(self, graph: Graph, view: str) -> tuple[Tensor, Tensor]:
        """Pooled nodes of a modality ``[B, p]``, not scaled; and which samples have any of its nodes, bool ``[B]``."""
        types = [name for name in self.views[view] if name in self.pooled]
        there = torch.stack([graph.counts[name] > 0 for name in types]).any(0)
        return torch.cat([linear.pool(graph, name, self.pooled[name]) for name in types], 1), there

    def scaled(self, graph: Graph, view: str) -> tuple[Tensor, Tensor]:
        """:meth:`rows` as the training part scales them, zero where the modality is absent; and where it is there."""
        mean, std = self.get_buffer(f"scale_{self.mapped.index(view)}")
        rows, there = self.rows(graph, view)
        return (rows - mean) / std * there[:, None], there

    def features(self, graph: Graph, view: str) -> tuple[Tensor, Tensor]:
        """What the maps of a modality are linear in, ``[B, p]``, zero where it is absent; and where it is there."""
        rows, there = self.scaled(graph, view)
        if view not in self.kernels:
            return rows, there
        i = self.mapped.index(view)
        landmarks, root, middle = (self.get_buffer(f"{name}_{i}") for name in ("landmarks", "root", "middle"))
        seen = linear.gaussian(rows, landmarks, middle) @ root - self.get_buffer(f"mean_{i}")
        return seen * there[:, None], there

    def forward(self, graph: Graph, backend: str = "auto") -> Embedded:
        z = torch.zeros(len(graph), self.dims, device=graph.device)
        logits = torch.zeros(len(graph), self.classes, device=graph.device)
        for i, view in enumerate(self.mapped):
            scaled, there = self.features(graph, view)
            z = z + nn.functional.normalize(scaled @ self.get_buffer(f"map_{i}"), dim=1)
            weight = self.get_buffer(f"classify_{i}")
            logits = logits + scaled @ weight[:-1] + there[:, None] * weight[-1]
        z = nn.functional.normalize(z, dim=1)
        losses = z.new_zeros(())
        if self.fusion is not None:
            fused = self.fusion(graph, backend)
            z = nn.functional.normalize(z + self.out(fused.z), dim=1)
            logits = logits if self.head is None else logits + self.head(fused.z)
            losses = sum(fused.losses.values(), losses)
        return Embedded(z, logits.log_softmax(1), losses)

    def embed(self, graph: Graph) -> Tensor:
        """Vectors ``[B, d + C]`` whose products are the scores."""
        made = self(graph)
        return torch.cat([(1 - self.agreement) ** 0.5 * made.z, self.agreement**0.5 * made.classes.exp()], 1)

    @torch.inference_mode()
    def vectors(self, samples: Sequence[Sample], views: Sequence[str], *, batch_size: int = 128) -> Tensor:
        """:meth:`embed` of samples by some of their modalities, ``[B, d + C]``, on the CPU.

        Raises:
            HetgraphError: an unknown modality, or a sample that has none of them.
        """
        chosen = [restricted(sample, self.views, views) for sample in samples]
        builder, training = GraphBuilder(self.schema), self.training
        device = self.temperature.device
        self.eval()
        parts = []
        for start in range(0, len(chosen), batch_size):
            graph = builder(chosen[start : start + batch_size]).to(device)
            parts.append(self.embed(graph).float().cpu())
        self.train(training)
        return torch.cat(parts) if parts else torch.zeros(0, self.dims + self.classes)

    def to_config(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_json(),
            "fingerprint": self.schema.fingerprint,
            "views": {name: list(types) for name, types in self.views.items()},
            "pooled": {name: asdict(how) for name, how in self.pooled.items()},
            "fusion": None if self.fusion is None else self.fusion.settings,
            "dims": self.dims,
            "classes": self.classes,
            "agreement": self.agreement,
            "kernels": dict(self.kernels),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> RetrievalModel:
        pooled = {name: Pooled(**how) for name, how in config["pooled"].items()}
        own = {name: config[name] for name in ("views", "fusion", "dims", "classes", "agreement")}
        # models that were saved before have none
        return cls(schema_of(config, rules), pooled=pooled, kernels=config.get("kernels"), **own)


def restricted(sample: Sample, views: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> Sample:
    """The sample with the node types of the chosen modalities alone.

    Raises:
        HetgraphError: an unknown modality, or the sample has none of them.
    """
    if unknown := [view for view in chosen if view not in views]:
        raise HetgraphError(f"no modality {unknown[0]!r}; known: {', '.join(views)}")
    kept = {name for view in chosen for name in views[view]}
    out = without(sample, *(name for name in sample.nodes if name not in kept))
    if not any(len(nodes["x"]) for nodes in out.nodes.values()):
        raise HetgraphError(f"{sample.label}: modality {' + '.join(chosen)!r} expected, got {sorted(sample.nodes)}")
    return out
