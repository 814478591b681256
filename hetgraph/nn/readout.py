"""Readout: node states of every type to X_k, and Z = sum_k alpha_k X_k."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..schema import Schema
from .segment import segment_softmax


class Pooling(nn.Module):
    """Pool the nodes of every type by attention.

    For type k of a sample (or group), per head::

        X_k = sum_i softmax_i(w_k . x_i / sqrt(D)) V_k x_i

    (Ilse et al., ICML 2018.)

    Args:
        schema: the types.
        width: width of the states and of the X_k.
        heads: heads of the pooling.
    """

    def __init__(self, schema: Schema, width: int, heads: int = 4) -> None:
        super().__init__()
        self.names = list(schema.nodes)
        self.heads = heads
        types = len(self.names)
        bound = 1 / math.sqrt(width)
        self.query = nn.Parameter(torch.zeros(types, heads, width))
        self.value = nn.Parameter(torch.empty(types, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(types, width))

    def pool(
        self,
        x: Mapping[str, Tensor],
        segment: Mapping[str, Tensor],
        count: int,
        keys: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pool.

        Args:
            x: states, type -> ``[N, width]``.
            segment: sample (or group) of every node, type -> int64 ``[N]``; types left out are not read.
            count: number of samples (or groups), S.
            keys: what the queries are compared with in place of ``x``.

        Returns:
            The X_k side by side, ``[S, T, width]``, zero where absent; and which are present, bool ``[S, T]``.
        """
        pooled, there = [], []
        keys = x if keys is None else keys
        for i, name in enumerate(self.names):
            state, key = x[name], keys[name]
            if name not in segment:
                pooled.append(state.new_zeros(count, state.shape[1]))
                there.append(torch.zeros(count, dtype=torch.bool, device=state.device))
                continue
            at = segment[name]
            attention = segment_softmax(key @ self.query[i].T / math.sqrt(key.shape[1]), at, count)
            value = nn.functional.linear(state, self.value[i], self.bias[i]).unflatten(1, (self.heads, -1))
            summed = value.new_zeros(count, state.shape[1]).index_add(0, at, (value * attention[..., None]).flatten(1))
            pooled.append(summed)
            there.append(torch.zeros(count, dtype=torch.bool, device=state.device).index_fill(0, at, True))
        return torch.stack(pooled, 1), torch.stack(there, 1)


class Readout(Pooling):
    """Pool every node type by attention, then mix the types by attention.

    With the X_k of :class:`Pooling`::

        alpha_k = softmax_k(u . tanh(P X_k + b_k))   over the types that are present
        Z       = sum_k alpha_k X_k

    The alphas are non-negative and sum to one; an absent type gets zero (additive attention: Bahdanau et
    al., ICLR 2015).

    Args:
        schema: the types.
        width: width of the states and of Z.
        heads: heads of the pooling.
    """

    def __init__(self, schema: Schema, width: int, heads: int = 4) -> None:
        super().__init__(schema, width, heads)
        self.compare = nn.Linear(width, width)
        self.type_bias = nn.Parameter(torch.zeros(len(self.names), width))
        self.score = nn.Linear(width, 1, bias=False)

    def mix(self, pooled: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Z ``[S, width]`` and the alphas ``[S, T]`` from ``X [S, T, width]`` and what is present, ``[S, T]``."""
        score = self.score(torch.tanh(self.compare(pooled) + self.type_bias)).squeeze(-1)
        alpha = score.masked_fill(~present, -torch.inf).softmax(-1)
        return (pooled * alpha[..., None]).sum(1), alpha

    def forward(
        self, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], count: int
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Pool and mix.

        Args:
            x: states, type -> ``[N, width]``.
            segment: sample (or group) of every node, type -> int64 ``[N]``; types left out are not read.
            count: number of samples (or groups), S.

        Returns:
            Z ``[S, width]``; the alphas, type -> ``[S]``; the X_k, type -> ``[S, width]`` (zero where absent).
        """
        pooled, present = self.pool(x, segment, count)
        z, alpha = self.mix(pooled, present)
        return (
            z,
            dict(zip(self.names, alpha.unbind(-1), strict=True)),
            dict(zip(self.names, pooled.unbind(1), strict=True)),
        )
