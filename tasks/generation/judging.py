"""How good what is made is: read by a classifier that knows real pictures alone, compared in its features, retrieved.

Shapes: S samples, F width of the judge's features, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import HetgraphError

RANKS = (1, 5, 10)
NEIGHBOURS = 3


class Judge(nn.Module):
    """A small convolutional classifier of grey pictures: two convolutions of 5 x 5 with stride 2, then 64 features.

    Args:
        side: of the square pictures, in pixels; a multiple of 4.
        classes: how many.
    """

    def __init__(self, side: int, classes: int) -> None:
        super().__init__()
        if side % 4:
            raise HetgraphError(f"the judge reads squares whose side is a multiple of 4, got {side}")
        self.see = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(24, 48, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * (side // 4) ** 2, 64),
            nn.ReLU(),
        )
        self.kind = nn.Linear(64, classes)
        self.dropout = nn.Dropout(0.3)

    def forward(self, pictures: Tensor) -> Tensor:
        """``[S, side, side]`` to scores ``[S, classes]``."""
        return self.kind(self.dropout(self.see(pictures[:, None])))

    @torch.inference_mode()
    def read(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Class numbers ``[S]`` and features ``[S, F]``, in evaluation mode."""
        self.eval()
        features = torch.cat([self.see(part[:, None]) for part in pictures.split(256)])
        return self.kind(features).argmax(1), features


def judge(pictures: Tensor, kinds: Tensor, *, epochs: int = 10, batch: int = 64, seed: int = 0) -> Judge:
    """A judge trained on real pictures, moved by up to two pixels each time they are seen.

    Args:
        pictures: ``[S, side, side]``, from 0 to 1.
        kinds: class numbers ``[S]``.
        epochs, batch: of the training.
        seed: of weights and order.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Judge(pictures.shape[-1], int(kinds.max()) + 1)
        moves = torch.optim.AdamW(model.parameters(), lr=2e-3)
        plan = torch.optim.lr_scheduler.OneCycleLR(moves, 2e-3, total_steps=epochs * -(-len(kinds) // batch))
        model.train()
        for _ in range(epochs):
            for places in torch.randperm(len(kinds)).split(batch):
                down, right = (int(torch.randint(-2, 3, ())) for _ in range(2))
                loss = functional.cross_entropy(model(pictures[places].roll((down, right), (1, 2))), kinds[places])
                moves.zero_grad()
                loss.backward()
                moves.step()
                plan.step()
    return model.eval()


def spread_within(values: Tensor, kinds: Tensor) -> float:
    """Mean Euclidean distance of two different rows of the same class, ``[S, F], [S]``; the mean over the classes.

    Raises:
        HetgraphError: no class has two rows.
    """
    found = []
    for kind in kinds.unique().tolist():
        own = values[kinds == kind].double()
        if len(own) > 1:
            found.append(float(torch.nn.functional.pdist(own).mean()))
    if not found:
        raise HetgraphError("diversity needs two rows of a class")
    return sum(found) / len(found)


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two normal distributions with the means and covariances of ``[S, F]`` and ``[S', F]``.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (FID, Heusel et al., NeurIPS 2017, here in the judge's
    features); the root's trace by the eigenvalues of ``C_a^(1/2) C_b C_a^(1/2)``.
    """
    a, b = a.double(), b.double()
    first, second = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    both = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * both)


def precision_recall(real: Tensor, made: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Share of what is made that lies among what is real, and the other way round (Kynkäänniemi et al., NeurIPS 2019).

    A row lies among others if it is no farther from one of them than that one's k-th nearest neighbour is.

    Args:
        real, made: features ``[S, F]``, ``[S', F]``.
        neighbours: k.

    Raises:
        HetgraphError: too few rows.
    """
    if min(len(real), len(made)) <= neighbours:
        raise HetgraphError(f"precision and recall need more than {neighbours} rows of each")

    def among(rows: Tensor, others: Tensor) -> float:
        reach = torch.cdist(others, others).kthvalue(neighbours + 1, dim=1).values
        return float((torch.cdist(rows, others) <= reach).any(1).double().mean())

    real, made = real.double(), made.double()
    return among(made, real), among(real, made)


def pictures_compared(reader: Judge, made: Tensor, kinds: Tensor, real: Tensor, real_kinds: Tensor) -> dict[str, float]:
    """Scores of made pictures against real ones of the test part.

    Args:
        reader: the judge.
        made: ``[S, side, side]``.
        kinds: what they should show, ``[S]``.
        real, real_kinds: pictures of the test part with their classes.

    Returns:
        ``accuracy`` and ``accuracy_real`` of the judge; ``diversity`` and ``diversity_features``: the mean distance
        within a class as a share of that of real pictures, in pixels and in the judge's features; ``frechet``,
        ``precision`` and ``recall`` in the judge's features.
    """
    said, features = reader.read(made)
    right, real_features = reader.read(real)
    precision, recall = precision_recall(real_features, features)
    pixels = spread_within(made.flatten(1), kinds) / spread_within(real.flatten(1), real_kinds)
    return {
        "accuracy": float((said == kinds).double().mean()),
        "accuracy_real": float((right == real_kinds).double().mean()),
        "diversity": pixels,
        "diversity_features": spread_within(features, kinds) / spread_within(real_features, real_kinds),
        "frechet": frechet(features, real_features),
        "precision": precision,
        "recall": recall,
    }


def retrieval(made: Tensor, real: Tensor) -> dict[str, float]:
    """Whether what is made for an item finds that item's own among all: ``[Q, C], [Q, C]``, by the cosine.

    Returns:
        ``recall@1``, ``@5``, ``@10`` from 0 to 1, and ``median_rank`` from 1. Of equal cosines the own comes last.
    """
    alike = functional.normalize(made.double(), dim=1) @ functional.normalize(real.double(), dim=1).T
    ranks = (alike >= alike.diagonal()[:, None]).sum(1)
    found = {f"recall@{k}": float((ranks <= k).double().mean()) for k in RANKS}
    return {**found, "median_rank": float(median(ranks.tolist()))}


def chance(count: int) -> dict[str, float]:
    """Expected :func:`retrieval` of a random order of ``count`` items."""
    return {**{f"recall@{k}": min(1.0, k / count) for k in RANKS}, "median_rank": (count + 1) / 2}


def first_of_each(groups: Sequence[str]) -> list[int]:
    """Places of the first item of every group."""
    return sorted({group: i for i, group in reversed(list(enumerate(groups)))}.values())
