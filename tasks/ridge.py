"""Ridge regression in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weights ``[F, C]`` and intercept ``[C]`` of the least squares with ``strength |W|^2``; ``[S, F], [S, C]``."""
    x, y = x.double(), y.double()
    center, mean = x.mean(0), y.mean(0)
    own = (x - center).T @ (x - center)
    weights = torch.linalg.solve(own + strength * torch.eye(len(own), dtype=own.dtype), (x - center).T @ (y - mean))
    return weights, mean - center @ weights
