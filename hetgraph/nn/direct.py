"""A way from features to scores past fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..schema import Schema


class DirectScores(nn.Module):
    """Scores from the mean features of every type, whatever fusion makes of them.

    ::

        h_k    = gelu(norm(dropout(W_k mean(x_k))))      zero where type k is absent
        scores = V dropout(gelu(U [h_1; ...; h_T]))

    The wide part beside the deep one (Wide & Deep: Cheng et al., DLRS 2016): what a plain network finds in counts and
    bags of words needs no messages, and comes through them blurred where samples are few.

    Args:
        schema: the types.
        width: of each h_k; U makes twice as many of all.
        outputs: number of scores.
        dropout: probability.

    Shapes:
        features ``{type: [N, dim]}`` -> ``[S, outputs]``.
    """

    def __init__(self, schema: Schema, width: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.names = list(schema.nodes)
        self.width = width
        self.own = nn.ModuleList([nn.Linear(node.dim, width) for node in schema.nodes.values()])
        self.norm = nn.ModuleList([nn.LayerNorm(width) for _ in self.names])
        self.dropout = nn.Dropout(dropout)
        self.join = nn.Linear(width * len(self.names), 2 * width)
        self.out = nn.Linear(2 * width, outputs)

    def forward(self, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], count: int) -> Tensor:
        """Scores ``[S, outputs]``.

        Args:
            x: features, type -> ``[N, dim]``.
            segment: row of Z that every node belongs to, type -> int64 ``[N]``; types left out are not read.
            count: number of rows, S.
        """
        states = []
        for name, own, norm in zip(self.names, self.own, self.norm, strict=True):
            if name not in segment:
                states.append(self.join.weight.new_zeros(count, self.width))
                continue
            rows = segment[name]
            size = torch.bincount(rows, minlength=count).to(x[name].dtype)[:, None]
            mean = x[name].new_zeros(count, x[name].shape[1]).index_add(0, rows, x[name]) / size.clamp(min=1)
            states.append(functional.gelu(norm(self.dropout(own(mean)))) * (size > 0))
        return self.out(self.dropout(functional.gelu(self.join(torch.cat(states, 1)))))
