"""Adversarial fusion: representations that do not give their type away, and translators that imagine absent types.

Shapes: S rows of Z (samples or groups), T node types, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..graph import Graph
from ..nn import Pooling
from ..schema import Schema
from .common import Concatenation, OwnTransformers, shares
from .output import FusionOutput


class AdversarialFusion(OwnTransformers):
    """``Z = W [C_1; ...; C_T] + b``, where C_k is X_k, or what the translators make of the others where k is absent.

    ::

        T_ab(X) = D_b gelu(E_a X + e_a) + d_b            translator from type a to type b
        C_b     = X_b if present, else mean over the present a of T_ab(X_a)

    with a transformer and attention pooling per type before. In training, four losses, each times ``strength``:

    * ``modality``: a discriminator tells from X_k which type k it is; the encoders hear its gradient reversed (Ganin
      et al., JMLR 2016), so that the X_k of all types come to lie in one space.
    * ``gan``: a discriminator per type tells X_b from T_ab(X_a), and the translators hear its gradient reversed
      (Goodfellow et al., NeurIPS 2014, the minimax form, which one optimiser can play).
    * ``cycle``: ``|T_ba(T_ab(X_a)) - X_a|`` (CycleGAN, Zhu et al., ICCV 2017; between modalities with a missing
      one: MCTN, Pham et al., AAAI 2019).
    * ``paired``: ``|T_ab(X_a) - X_b|`` where both are present (pix2pix, Isola et al., CVPR 2017).

    The last three train the translators and leave the X_k alone; only the task and ``modality`` move the encoders.
    ``weights`` are the shares of the lengths ``|W_k X_k|`` over the present types.

    Shapes:
        X_k, C_k, Z ``[S, D]``; E_a, D_b ``[D, D]``: all ordered pairs of types at the cost of 2 T matrices.
    """

    strength = 0.1

    def __init__(self, schema: Schema, width: int, **options: Any) -> None:
        super().__init__(schema, width, **options)
        types = len(self.names)
        self.pooling = Pooling(schema, width, self.heads)
        self.translate_in = PerType(types, width, width)
        self.translate_out = PerType(types, width, width)
        self.join = Concatenation(types, width)
        self.type_of = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, types))
        self.real_in = PerType(types, width, width)
        self.real_out = PerType(types, width, 1)
        self.register_buffer("other", ~torch.eye(types, dtype=torch.bool), persistent=False)
        self.other: Tensor

    def fuse(
        self, graph: Graph, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], sample: Tensor
    ) -> FusionOutput:
        parts, present = self.pooling.pool(x, segment, len(sample))
        share = shares(present.to(parts.dtype), present)
        imagined = (self.translate(parts) * share[:, :, None, None]).sum(1)
        z, weights = self.join(torch.where(present[..., None], parts, imagined), present)
        losses = self._losses(parts, present) if self.training and len(self.names) > 1 else {}
        return self.output(z, x, weights, parts, sample, losses)

    def translate(self, parts: Tensor) -> Tensor:
        """``X [S, T, D]`` to ``T_ab(X_a)``, ``[S, T (from), T (to), D]``."""
        return self.translate_out(functional.gelu(self.translate_in(parts))[:, :, None])

    def _losses(self, parts: Tensor, present: Tensor) -> dict[str, Tensor]:
        known = parts.detach()
        fake = self.translate(known)
        moved = present[:, :, None] & self.other
        both = moved & present[:, None, :]
        # back[s, a, b] = T_ba(T_ab(X_a))
        hidden = functional.gelu(self.translate_in(fake)).transpose(1, 2)
        back = self.translate_out(hidden).transpose(1, 2)
        kinds = torch.arange(len(self.names), device=parts.device).expand_as(present)
        told = functional.cross_entropy(self.type_of(reversed_gradient(parts)).transpose(1, 2), kinds, reduction="none")
        real, made = self._is_real(known), self._is_real(reversed_gradient(fake))
        losses = {
            "modality": _mean(told, present),
            "gan": _mean(functional.softplus(-real), present) + _mean(functional.softplus(made), moved),
            "cycle": _mean((back - known[:, :, None]).abs().mean(-1), moved),
            "paired": _mean((fake - known[:, None]).abs().mean(-1), both),
        }
        return {name: self.strength * loss for name, loss in losses.items()}

    def _is_real(self, parts: Tensor) -> Tensor:
        """Logit of being an X_k and no translation, ``[..., T, D] -> [..., T]``."""
        return self.real_out(functional.gelu(self.real_in(parts))).squeeze(-1)


class PerType(nn.Module):
    """A linear map of its own for every type, ``[..., T, D] -> [..., T, outputs]``."""

    def __init__(self, types: int, width: int, outputs: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(types, outputs, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(types, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...tw,tvw->...tv", x, self.weight) + self.bias


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return -gradient[0]


def reversed_gradient(x: Tensor) -> Tensor:
    """``x`` itself, through which the gradient goes back with the other sign (Ganin et al., JMLR 2016)."""
    return _Reversal.apply(x)


def _mean(value: Tensor, where: Tensor) -> Tensor:
    """The mean of the entries where ``where``; zero if there is none."""
    return value.masked_fill(~where, 0.0).sum() / where.sum().clamp(min=1)
