"""Feature and decision level: every type is encoded and pooled by itself, then the X_k are combined.

Shapes: S rows of Z (samples or groups), T node types, D width, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import Graph
from ..nn import Pooling
from ..schema import Schema
from .common import Concatenation, OwnTransformers, StandIn, shares
from .output import FusionOutput


class FeatureFusion(OwnTransformers):
    """Base: a transformer and attention pooling per type give X_k ``[S, D]``; :meth:`combine` makes Z of them."""

    def __init__(self, schema: Schema, width: int, **options: Any) -> None:
        super().__init__(schema, width, **options)
        self.pooling = Pooling(schema, width, self.heads)

    def combine(self, parts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Z ``[S, D]`` and weights ``[S, T]`` from ``parts [S, T, D]`` and ``present``, bool ``[S, T]``."""
        raise NotImplementedError

    def fuse(
        self, graph: Graph, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], sample: Tensor
    ) -> FusionOutput:
        parts, present = self.pooling.pool(x, segment, len(sample))
        z, weights = self.combine(parts, present)
        return self.output(z, x, weights, parts, sample)


class ConcatFusion(FeatureFusion):
    """``Z = W [X_1; ...; X_T] + b``, a learned vector in the place of every absent X_k.

    Early fusion of features (Baltrusaitis et al., TPAMI 2019, section 6.1). ``weights`` are the shares of the
    lengths ``|W_k X_k|`` over the present types: a description, without a gradient.

    Shapes:
        X_k ``[S, D]``, W ``[D, T D]``, Z ``[S, D]``.
    """

    def __init__(self, schema: Schema, width: int, **options: Any) -> None:
        super().__init__(schema, width, **options)
        self.stand_in = StandIn(len(self.names), width)
        self.join = Concatenation(len(self.names), width)

    def combine(self, parts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        return self.join(self.stand_in(parts, present), present)


class SumFusion(FeatureFusion):
    """``Z = sum_k alpha_k X_k`` with one learned number per type: ``alpha = softmax(a)`` over the present types.

    The weighted sum of ensembles (Kittler et al., TPAMI 1998, section 3) with weights that are learned and do
    not depend on the sample. ``weights`` are the alphas.

    Shapes:
        X_k ``[S, D]``, a ``[T]``, Z ``[S, D]``.
    """

    def __init__(self, schema: Schema, width: int, **options: Any) -> None:
        super().__init__(schema, width, **options)
        self.level = nn.Parameter(torch.zeros(len(self.names)))

    def combine(self, parts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.level.expand_as(present).masked_fill(~present, -torch.inf).softmax(1)
        return (parts * alpha[..., None]).sum(1), alpha


class LateFusion(SumFusion):
    """Decision level: the head of the task answers from every X_k by itself, ``scores = sum_k alpha_k f_k(X_k)``.

    The sum rule (Kittler et al., TPAMI 1998) on the scores, with the weights of :class:`SumFusion`. The heads f_k
    are the predictor's, one per type; Z, for those who ask for it, is ``sum_k alpha_k X_k``.

    Shapes:
        X_k ``[S, D]``, f_k ``[S, D] -> [S, C]``, Z ``[S, D]``.
    """

    decisions = True


class GatedFusion(FeatureFusion):
    """Gated multimodal units (Arevalo et al., ICLR workshop 2017, section 3.2), for any number of types.

    ::

        h_k = tanh(W_k X_k)
        g_k = sigmoid(U_k [X_1; ...; X_T] + c_k)
        Z   = sum_k g_k * h_k   over the present types

    The gates see a learned vector in the place of every absent X_k. ``weights`` are the mean gates as shares.

    Shapes:
        X_k ``[S, D]``, W_k ``[D, D]``, U_k ``[D, T D]``, g_k, h_k, Z ``[S, D]``.
    """

    def __init__(self, schema: Schema, width: int, **options: Any) -> None:
        super().__init__(schema, width, **options)
        types = len(self.names)
        bound = width**-0.5
        self.stand_in = StandIn(types, width)
        self.value = nn.Parameter(torch.empty(types, width, width).uniform_(-bound, bound))
        bound = (types * width) ** -0.5
        self.gate = nn.Parameter(torch.empty(types, width, types, width).uniform_(-bound, bound))
        self.gate_bias = nn.Parameter(torch.zeros(types, width))

    def combine(self, parts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(torch.einsum("stw,tvw->stv", parts, self.value))
        seen = self.stand_in(parts, present)
        gate = torch.sigmoid(torch.einsum("siw,tviw->stv", seen, self.gate) + self.gate_bias)
        gate = gate * present[..., None]
        return (gate * hidden).sum(1), shares(gate.mean(2), present)


class TensorFusion(FeatureFusion):
    """The low-rank form of the outer product of all types (LMF, Liu et al., ACL 2018, section 3.3).

    ::

        Z = sum_r w_r prod_k (W_k^r X_k + b_k^r) + b

    which is the full tensor ``[X_1; 1] x ... x [X_T; 1]`` (TFN, Zadeh et al., EMNLP 2017) contracted with a
    weight tensor of rank R. A learned vector stands in the place of every absent X_k. The b_k^r start at one, so
    that the product starts near one whatever the number of types. ``weights`` are the shares of how far the
    factors of a type are from one, the factor that changes nothing: a description, without a gradient.

    Shapes:
        X_k ``[S, D]``, W_k ``[R, D, D]``, b_k ``[R, D]``, w ``[R]``, Z ``[S, D]``.
    """

    rank = 4

    def __init__(self, schema: Schema, width: int, **options: Any) -> None:
        super().__init__(schema, width, **options)
        types, bound = len(self.names), width**-0.5
        self.stand_in = StandIn(types, width)
        self.factor = nn.Parameter(torch.empty(types, self.rank, width, width).uniform_(-bound, bound))
        self.factor_bias = nn.Parameter(torch.ones(types, self.rank, width))
        self.rank_weight = nn.Parameter(torch.full((self.rank,), self.rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(width))

    def combine(self, parts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.stand_in(parts, present)
        factors = torch.einsum("stw,trvw->strv", seen, self.factor) + self.factor_bias
        product = reduce(torch.mul, factors.unbind(1))
        z = torch.einsum("srv,r->sv", product, self.rank_weight) + self.bias
        return z, shares((factors.detach() - 1).flatten(2).norm(dim=2), present)
