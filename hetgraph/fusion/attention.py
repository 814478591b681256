"""Attention: over types, over all nodes at once, and from every type to every other.

Shapes: B samples, N nodes, S rows of Z (samples or groups), T node types, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import Graph
from ..nn import Pooling, Readout
from ..schema import Schema
from .common import Concatenation, FusionNetwork, OwnTransformers, Rows, StandIn, TransformerBlock, WeightedSum
from .output import FusionOutput


class AttentionFusion(WeightedSum, OwnTransformers):
    """``Z = sum_k alpha_k X_k`` with weights that depend on the sample.

    Every type is encoded by a transformer of its own and pooled to X_k; then ``alpha_k = softmax_k(u . tanh(P
    X_k + b_k))`` over the types that are present (additive attention: Bahdanau et al., ICLR 2015; over modalities:
    Hori et al., ICCV 2017). ``weights`` are the alphas.

    Shapes:
        X_k ``[S, D]``, P ``[D, D]``, u and b_k ``[D]``, Z ``[S, D]``.
    """

    def __init__(self, schema: Schema, width: int, **options: Any) -> None:
        super().__init__(schema, width, **options)
        self.readout = Readout(schema, width, self.heads)


class SelfAttentionFusion(WeightedSum, FusionNetwork):
    """One transformer over the nodes of all types of a sample: all attend to all.

    ``x_i = x_i + e_type(i)``, then ``layers`` blocks whose weights know no types (single-stream transformers:
    VisualBERT, Li et al., 2019; UNITER, Chen et al., ECCV 2020), then pooling per type and ``Z = sum_k alpha_k
    X_k`` as in :class:`AttentionFusion`. ``weights`` are the alphas.

    Shapes:
        all nodes of a sample padded side by side ``[B, L, D]``, e ``[T, D]``, X_k and Z ``[S, D]``.
    """

    def __init__(self, schema: Schema, width: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(schema, width, dropout=dropout, **options)
        self.kind = nn.Parameter(torch.randn(len(self.names), width) * 0.02)
        self.blocks = self.stack(lambda: TransformerBlock(width, self.heads, dropout))
        self.readout = Readout(schema, width, self.heads)

    def encode(self, graph: Graph, x: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        rows = Rows(graph, self.names)
        state = torch.cat([x[name] + self.kind[i] for i, name in enumerate(self.names)])
        for block in self.in_order(self.blocks):
            state = block(state, rows)
        return dict(zip(self.names, state.split(rows.sizes), strict=True))


class CrossAttentionFusion(FusionNetwork):
    """A crossmodal transformer for every ordered pair of types (MulT, Tsai et al., ACL 2019, section 3).

    For target a and source b, ``layers`` blocks from ``Y_ab = x_a``, all of which read the projected x_b::

        Y_ab = Y_ab + MHA(norm(Y_ab), norm(x_b))
        Y_ab = Y_ab + FFN(norm(Y_ab))
        y_a  = x_a + sum over b of J_ab Y_ab          (the concatenation over b, times one matrix)

    then a self-attention block on every y_a, pooling to X_a and ``Z = W [X_1; ...; X_T] + b``. A learned vector
    stands in the place of ``Y_ab`` where the sample has no b, and of X_a where it has no a. Differs from the paper
    in the pooling (there the last element is taken) and in the residual x_a, by which a type that is
    alone is not lost. ``weights`` are the shares of the lengths ``|W_a X_a|`` over the present types.

    Shapes:
        x_a, Y_ab, y_a ``[N_a, D]``, X_a and Z ``[S, D]``; T (T - 1) pairs.
    """

    def __init__(self, schema: Schema, width: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(schema, width, dropout=dropout, **options)
        types = range(len(self.names))
        self.pairs = [(a, b) for a in types for b in types if a != b]
        self.crosses = nn.ModuleDict(
            {
                f"{a}_{b}": self.stack(lambda: TransformerBlock(width, self.heads, dropout, cross=True))
                for a, b in self.pairs
            }
        )
        self.joins = nn.ModuleDict({f"{a}_{b}": nn.Linear(width, width, bias=False) for a, b in self.pairs})
        self.silent = nn.Parameter(torch.zeros(len(self.names), width))
        self.after = nn.ModuleList([TransformerBlock(width, self.heads, dropout) for _ in types if self.own])
        self.pooling = Pooling(schema, width, self.heads)
        self.stand_in = StandIn(len(self.names), width)
        self.join = Concatenation(len(self.names), width)

    def encode(self, graph: Graph, x: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        rows = {name: Rows(graph, [name]) for name in self.names}
        joined = dict(x)
        for a, b in self.pairs:
            target, source = self.names[a], self.names[b]
            state = x[target]
            blocks = self.crosses[f"{a}_{b}"]
            assert isinstance(blocks, nn.ModuleList)
            for block in self.in_order(blocks):
                state = block(state, rows[target], x[source], rows[source])
            there = (graph.counts[source] > 0)[graph.batch[target]]
            state = torch.where(there[:, None], state, self.silent[b])
            joined[target] = joined[target] + self.joins[f"{a}_{b}"](state)
        for name, block in zip(self.names, self.after, strict=False):
            joined[name] = block(joined[name], rows[name])
        return joined

    def fuse(
        self, graph: Graph, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], sample: Tensor
    ) -> FusionOutput:
        parts, present = self.pooling.pool(x, segment, len(sample))
        z, weights = self.join(self.stand_in(parts, present), present)
        return self.output(z, x, weights, parts, sample)
