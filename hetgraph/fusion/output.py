"""What every fusion method returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class FusionOutput:
    """The joint representation and what it was made of.

    Attributes:
        z: ``[B, width]``, one row per sample; ``[G, width]`` where Z is asked per group.
        nodes: type -> final node states ``[N_type, width]``.
        weights: type -> ``[B]`` (or ``[G]``), how much each type counts: non-negative, they sum to one over the
            types that are present, absent ones are zero. They are the alpha_k of ``Z = sum_k alpha_k X_k`` for
            the methods that have such a sum (all but ``concat``, ``gated``, ``tensor``, ``cross_attention`` and
            ``adversarial``, which say in their docstrings what they give in its place).
        parts: type -> X_k, ``[B, width]`` (or ``[G, width]``), zero where absent.
        sample: int64 ``[B]`` (or ``[G]``), the sample that each row of ``z`` belongs to.
        losses: name -> a number that training adds to the task's loss, already weighted; empty in evaluation
            and for methods without losses of their own.
        fallback: bool ``[B]`` (or ``[G]``), which rows were made by the fallback method because their sample has
            no edges; None where no fallback was asked for.
    """

    z: Tensor
    nodes: dict[str, Tensor]
    weights: dict[str, Tensor]
    parts: dict[str, Tensor]
    sample: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    fallback: Tensor | None = None
