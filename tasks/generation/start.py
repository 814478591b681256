"""The closed-form start of a translator: ridge regression from the mean nodes of what is heard to the components.

Shapes: S training samples, F widths of all heard node types together, P components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ridge import ridge
from .scoring import STRENGTHS, heard_means, strength_of
from .translations import Translation
from .translator import Translator

MIDDLE = STRENGTHS[len(STRENGTHS) // 2]
"""The strength where there is no validation part to choose it by."""


@torch.no_grad()
def fit_start(model: Translator, source: Translation) -> Tensor:
    """Set R and r of a model with ``anchor``, and silence its generator.

    The strength is that of :func:`.scoring.strength_of`; without a validation part it is :data:`MIDDLE`.

    Returns:
        What the closed form says of every training sample when it is fitted to all others, ``[S, P]``: with what it
        says of samples that it has seen, a generator would learn to correct errors that others do not have.
    """
    device = model.center.device
    x, y = heard_means(source, "train"), model.space.encode(source.train.to(device)).cpu()
    strength = MIDDLE
    if source.samples("valid"):
        strength = strength_of(source, y, lambda parts: model.space.decode(parts.to(device)).cpu())
    weights, shift = ridge(x, y, strength)
    model.get_buffer("start_weight").copy_(weights)
    model.get_buffer("start_shift").copy_(shift)
    model.generator.silence()
    return left_out(x, y, strength).float().to(device)


def left_out(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """What :func:`.judging.ridge` says of each row when it is fitted to all others: ``[S, F], [S, P] -> [S, P]``.

    ``y - (y - y') / (1 - h)`` with the prediction y' from all rows and the leverage h of each (PRESS, Allen,
    Technometrics 1974).
    """
    x, y = x.double(), y.double()
    weights, shift = ridge(x, y, strength)
    apart = x - x.mean(0)
    own = apart.T @ apart + strength * torch.eye(x.shape[1], dtype=x.dtype)
    leverage = (apart * torch.linalg.solve(own, apart.T).T).sum(1) + 1 / len(x)
    return y - (y - x @ weights - shift) / (1 - leverage)[:, None]
