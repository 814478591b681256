"""What every fusion method returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class FusionOutput:
    """The joint representation and what it was made of.

    Attributes:
        z: ``[B, width]``, one row per sample; ``[G, width]`` where Z is asked per group.
        nodes: type -> final node states ``[N_type, width]``.
        weights: type -> ``[B]`` (or ``[G]``), the alpha_k of ``Z = sum_k alpha_k X_k``: non-negative, they sum
            to one over the types that are present, absent ones are zero.
        parts: type -> X_k, ``[B, width]`` (or ``[G, width]``), zero where absent.
        sample: int64 ``[B]`` (or ``[G]``), the sample that each row of ``z`` belongs to.
    """

    z: Tensor
    nodes: dict[str, Tensor]
    weights: dict[str, Tensor]
    parts: dict[str, Tensor]
    sample: Tensor
