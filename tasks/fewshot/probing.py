"""How many labels a pretrained fusion model needs: a linear probe on frozen Z, and fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...errors import HetgraphError
from ...fusion import Fusion
from ...objectives import Classification
from ...sample import Sample
from .adapting import Adaptation, accuracy, choose, embedded, scores
from .episodes import Episode
from .learner import Learner

PENALTIES = (1e-3, 1e-2, 1e-1)
"""Of the linear probe, tried on validation samples."""
TUNED = [(Adaptation("all", "adam", lr), (20, 80)) for lr in (3e-3, 1e-2)]
"""Of fine-tuning, likewise."""


def few_labels(samples: Sequence[Sample], classes: Sequence[str], shots: int, seed: int) -> list[Sample]:
    """``shots`` samples of every class, class by class; those of fewer shots are among those of more.

    Raises:
        HetgraphError: a class has too few.
    """
    rng = np.random.default_rng((seed, 13))
    out: list[Sample] = []
    for name in classes:
        own = [sample for sample in samples if sample.target == name]
        if len(own) < shots:
            raise HetgraphError(f"class {name!r}: expected {shots} samples, got {len(own)}")
        out += [own[i] for i in rng.permutation(len(own))[:shots].tolist()]
    return out


def probe(z: Tensor, labels: Tensor, classes: int, penalty: float, steps: int = 50) -> tuple[Tensor, Tensor]:
    """Logistic regression: weights ``[C, D]`` and bias ``[C]`` of least mean cross-entropy ``+ penalty / 2 |W|^2``.

    Args:
        z: ``[S, D]``.
        labels: int64 ``[S]``.
        classes: C.
        penalty: of the weights.
        steps: of L-BFGS, at most.
    """
    weight = torch.zeros(classes, z.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    known, wanted = z.double().cpu(), labels.cpu()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(functional.linear(known, weight, bias), wanted)
        value = value + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()


def k_shot(
    fusion: Fusion,
    objective: Classification,
    parts: Mapping[str, Sequence[Sample]],
    shots: Sequence[int],
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Test accuracy with few labels: ``probe`` and ``finetuned``, by the number of shots.

    The penalty of the probe, and rate and steps of fine-tuning, are chosen on validation samples.

    Args:
        fusion: pretrained or not; is left as it is.
        objective: names the classes.
        parts: ``train``, ``valid`` and ``test``.
        shots: labelled training samples of every class.
        seed: which these are.
    """
    classes = objective.classes
    learner = Learner(fusion, classes).eval()
    z = {part: embedded(learner, some) for part, some in parts.items() if part != "train"}
    wanted = {part: objective.encode([s.target for s in some], [s.label for s in some]) for part, some in parts.items()}
    out: dict[str, dict[str, float]] = {"probe": {}, "finetuned": {}}
    for count in shots:
        support = few_labels(parts["train"], classes, count, seed)
        labels = objective.encode([s.target for s in support], [s.label for s in support])
        known = embedded(learner, support)
        # of every feature as much as of the others, by the few samples themselves
        mean, std = known.mean(0), known.std(0).clamp(min=1e-6)
        heads = [probe((known - mean) / std, labels, len(classes), penalty) for penalty in PENALTIES]

        def share(head: tuple[Tensor, Tensor], part: str, mean: Tensor = mean, std: Tensor = std) -> float:
            found = functional.linear(((z[part] - mean) / std).double().cpu(), *head).argmax(-1)
            return float((found == wanted[part]).double().mean())

        out["probe"][str(count)] = share(max(heads, key=lambda head: share(head, "valid")), "test")
        tuned = copy.deepcopy(learner)
        torch.nn.init.zeros_(tuned.head.weight)
        torch.nn.init.zeros_(tuned.head.bias)
        valid, test = (Episode("all", classes, support, list(parts[part])) for part in ("valid", "test"))
        how, _ = choose(tuned, [valid], count, TUNED)
        out["finetuned"][str(count)] = accuracy(scores(tuned, test, how), test)
    return out
