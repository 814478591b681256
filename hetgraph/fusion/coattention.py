"""Co-attention: types that look at each other, in one step (parallel) or layer by layer (guided).

Shapes: B samples, N nodes, S rows of Z (samples or groups), T node types, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HetgraphError
from ..graph import Graph
from ..nn import Readout
from ..schema import Schema
from .common import FeedForward, FusionNetwork, MultiHead, Rows, TransformerBlock
from .output import FusionOutput

KINDS = ("parallel", "guided")


class CoattentionFusion(FusionNetwork):
    """Co-attention, of two kinds.

    ``"parallel"`` (Lu et al., NeurIPS 2016, section 3.3; for two types the paper's equations). Every type has
    ``layers`` of a transformer of its own; then the nodes of each type are pooled with an eye on all others::

        C_ab = tanh(x_a M_ab x_b^T / sqrt(D)),   C_ba = C_ab^T
        H_a  = tanh(W_a x_a + sum over b of C_ab W_b x_b / N_b)
        X_a  = sum_i softmax_i(w_a . H_a,i / sqrt(D)) V_a x_a,i      (per head)

    The divisions by ``sqrt(D)`` and by the number of nodes are not in the paper: they keep the tanh from saturating.

    ``"guided"`` (MCAN, Yu et al., CVPR 2019, section 3.1). In each of ``layers`` blocks, all with weights per type,
    the nodes look at those of their own type, then at those of all other types::

        x_a = x_a + SA(norm(x_a))
        x_a = x_a + GA(norm(x_a), norm(x_b) of all b != a)
        x_a = x_a + FFN(norm(x_a))

    then pooling. There is no question that guides and no image that is guided, as in the paper: all do both.

    Both end in ``Z = sum_k alpha_k X_k`` (as :class:`~hetgraph.fusion.attention.AttentionFusion`). ``weights`` are the
    alphas.

    Args:
        coattention: ``"parallel"`` or ``"guided"``; the other arguments are those of all families.

    Shapes:
        x_a, H_a ``[N_a, D]``, C_ab ``[B, N_a, N_b]``, M_ab, W_a ``[D, D]``, X_a and Z ``[S, D]``.
    """

    def __init__(
        self, schema: Schema, width: int, *, dropout: float = 0.0, coattention: str = "parallel", **options: Any
    ) -> None:
        super().__init__(schema, width, dropout=dropout, **options)
        if coattention not in KINDS:
            raise HetgraphError(f"unknown co-attention {coattention!r}; known: {', '.join(KINDS)}")
        self.guided = coattention == "guided"
        self.blocks = nn.ModuleList([self.stack(lambda: self._block(dropout)) for _ in self.names])
        self.readout = Readout(schema, width, self.heads)
        types = range(len(self.names))
        self.pairs = [] if self.guided else list(combinations(types, 2))
        self.affinity = nn.ModuleDict({f"{a}_{b}": nn.Linear(width, width, bias=False) for a, b in self.pairs})
        self.look = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in types if not self.guided])

    def _block(self, dropout: float) -> nn.Module:
        kind = GuidedBlock if self.guided else TransformerBlock
        return kind(self.width, self.heads, dropout)

    def encode(self, graph: Graph, x: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        rows = {name: Rows(graph, [name]) for name in self.names}
        others = {name: Rows(graph, [n for n in self.names if n != name]) for name in self.names}
        stacks = [self.in_order(blocks) for blocks in self.blocks if isinstance(blocks, nn.ModuleList)]
        for layer in zip(*stacks, strict=True):
            blocks = dict(zip(self.names, layer, strict=True))
            if not self.guided:
                x = {name: block(x[name], rows[name]) for name, block in blocks.items()}
                continue
            x = {name: block.alone(x[name], rows[name]) for name, block in blocks.items()}
            x = {
                name: block(x[name], rows[name], [x[n] for n in self.names if n != name], others[name])
                for name, block in blocks.items()
            }
        return x

    def fuse(
        self, graph: Graph, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], sample: Tensor
    ) -> FusionOutput:
        keys = None if self.guided else self._looks(graph, x)
        parts, present = self.readout.pool(x, segment, len(sample), keys)
        z, alpha = self.readout.mix(parts, present)
        return self.output(z, x, alpha, parts, sample)

    def _looks(self, graph: Graph, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The H_a, type -> ``[N, D]``."""
        layouts = [graph.layout[name] for name in self.names]
        size = [counts.per_sample.clamp(min=1)[:, None, None] for counts in layouts]
        looks = [look(x[name]) for name, look in zip(self.names, self.look, strict=True)]
        # padding is zero in all three, so that C is zero there and adds nothing
        padded = [counts.pad(x[name]) for name, counts in zip(self.names, layouts, strict=True)]
        seen = [counts.pad(look) / n for counts, look, n in zip(layouts, looks, size, strict=True)]
        heard = list(looks)
        for a, b in self.pairs:
            if not layouts[a].total or not layouts[b].total:
                continue
            compared = layouts[b].pad(self.affinity[f"{a}_{b}"](x[self.names[b]]))
            affinity = torch.tanh(padded[a] @ compared.transpose(1, 2) / self.width**0.5)
            heard[a] = heard[a] + layouts[a].unpad(affinity @ seen[b])
            heard[b] = heard[b] + layouts[b].unpad(affinity.transpose(1, 2) @ seen[a])
        return {name: torch.tanh(value) for name, value in zip(self.names, heard, strict=True)}


class GuidedBlock(nn.Module):
    """Self-attention (:meth:`alone`), then attention to other nodes and a feed-forward network; all pre-norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own = MultiHead(width, heads)
        self.guide = MultiHead(width, heads)
        self.norm_own, self.norm_in, self.norm_guide, self.norm_mid = (nn.LayerNorm(width) for _ in range(4))
        self.ahead = FeedForward(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def alone(self, x: Tensor, rows: Rows) -> Tensor:
        """``x [N, D]`` after looking at itself."""
        normed = self.norm_own(x)
        return x + self.dropout(self.own(normed, rows, normed, rows))

    def forward(self, x: Tensor, rows: Rows, others: list[Tensor], of: Rows) -> Tensor:
        """``x [N, D]`` after looking at the nodes of the other types, ``[M, D]`` in all."""
        if others:
            heard = self.guide(self.norm_in(x), rows, self.norm_guide(torch.cat(others)), of)
        else:  # the only type of the schema hears what a node hears whose sample has no other type
            heard = self.guide.out.bias.expand_as(x)
        x = x + self.dropout(heard)
        return x + self.dropout(self.ahead(self.norm_mid(x)))
