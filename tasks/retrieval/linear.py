"""Closed-form maps of the pooled nodes of each modality into one space: regularised generalised CCA.

Shapes: n items, p numbers of a modality, d dimensions of the shared space, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import HetgraphError
from ...graph import Graph
from ..datasets.retrieval import Pooled

NOTHING = 1e12
"""Divides what is constant: large, and finite, so that saved and averaged models stay so."""


def width(dim: int, how: Pooled) -> int:
    """Numbers that a node type of so many features becomes."""
    return (how.first or dim) * (1 + how.segments + how.spread) + how.count


def pool(graph: Graph, name: str, how: Pooled) -> Tensor:
    """Mean, deviation, means of stretches and number of the nodes of a type, ``[B, p]``; zeros where there are none.

    A stretch without a node (there are fewer nodes than stretches) has the mean over all.
    """
    x, at, count = graph.x[name], graph.batch[name], graph.counts[name]
    x = x[:, : how.first] if how.first else x
    mean = _means(x, at, count)
    parts = [mean]
    if how.spread:
        parts.append(_means((x - mean[at]).square(), at, count).clamp(min=1e-12).sqrt() * (count > 0)[:, None])
    if how.segments:
        place = torch.arange(len(x), device=x.device) - (count.cumsum(0) - count)[at]
        stretch = at * how.segments + place * how.segments // count[at]
        sizes = torch.bincount(stretch, minlength=len(count) * how.segments)
        inside = _means(x, stretch, sizes).unflatten(0, (len(count), how.segments))
        empty = (sizes == 0).unflatten(0, (len(count), how.segments))
        parts.append(torch.where(empty[..., None], mean[:, None], inside).flatten(1))
    if how.count:
        parts.append(count[:, None].to(x.dtype).log1p())
    return torch.cat(parts, 1)


def _means(x: Tensor, at: Tensor, count: Tensor) -> Tensor:
    total = x.new_zeros(len(count), x.shape[1]).index_add(0, at, x)
    return total / count.clamp(min=1)[:, None]


def scale_of(rows: Tensor, how: Pooled) -> tuple[Tensor, Tensor]:
    """Mean and divisor ``[p]`` that bring ``rows [n, p]`` to mean 0 and a mean square length of 1."""
    mean = rows.mean(0)
    std = rows.std(0, unbiased=False)
    if how.scale == "all":
        std = std.square().mean().sqrt().expand_as(std)
    # a constant number carries nothing
    std = torch.where(std > 1e-6, std, torch.full_like(std, NOTHING))
    return mean, std * rows.shape[1] ** 0.5


def nystrom(rows: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features whose products are a Gaussian kernel, by landmarks (Williams and Seeger, NIPS 2000).

    The kernel is ``exp(-|x - y|^2 / m)`` with the median m of the squared distances between landmarks; the features of
    ``x`` are ``k(x, L) k(L, L)^(-1/2)``, exact where x is a landmark.

    Args:
        rows: ``[n, p]``, among which landmarks are drawn.
        count: of landmarks.
        seed: of the draw.

    Returns:
        The landmarks ``[count, p]``, ``k(L, L)^(-1/2)`` ``[count, count]``, and m.

    Raises:
        HetgraphError: fewer rows than landmarks, or rows that are all the same.
    """
    if not 1 < count <= len(rows):
        raise HetgraphError(f"{count} landmarks need at least two, and as many items; got {len(rows)} items")
    chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count].to(rows.device)]
    apart = torch.cdist(chosen.double(), chosen.double()).square()
    middle = apart[~torch.eye(count, dtype=torch.bool, device=rows.device)].median()
    if not middle > 0:
        raise HetgraphError("a Gaussian kernel needs items that differ")
    values, vectors = torch.linalg.eigh(torch.exp(-apart / middle))
    root = vectors @ torch.diag(values.clamp(min=1e-6).rsqrt()) @ vectors.T
    return chosen, root.float(), middle.float()


def gaussian(rows: Tensor, landmarks: Tensor, middle: Tensor) -> Tensor:
    """``exp(-|x - y|^2 / m)`` between rows ``[n, p]`` and landmarks ``[k, p]``, ``[n, k]``."""
    return torch.exp(-torch.cdist(rows, landmarks).square() / middle)


def shared_space(
    rows: Mapping[str, Tensor],
    classes: Tensor | None,
    dims: int,
    ridge: float,
    label_weight: float = 1.0,
    weights: Mapping[str, float] | None = None,
    ridges: Mapping[str, float] | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Maps of every modality into the space in which they agree best.

    MAXVAR generalised CCA (Kettenring, Biometrika 1971) with ridge: the shared coordinates G ``[n, d]`` are the first
    eigenvectors of ``sum_k P_k``, where ``P_k = K_k (K_k + r I)^-1`` projects on modality k with
    ``K_k = X_k X_k^T`` and ``r = ridge * trace(K_k) / n``; the maps are ridge regressions on G,
    ``W_k = X_k^T (K_k + r I)^-1 G``. What is said less surely by a modality is mapped nearer to zero in its own map;
    lengths in the maps of different modalities, with different ridges, are no measure of each other. Classes are one
    more modality (Gong et al., IJCV 2014).

    Args:
        rows: modality -> ``[n, p]``, centred, zero rows where it is absent.
        classes: int64 ``[n]``, or None.
        dims: d, at most n.
        ridge: share of the mean eigenvalue that is added to all.
        label_weight: of the classes, a modality being 1.
        weights: of modalities in the sum of projections; 1 where nothing is said.
        ridges: of modalities; ``ridge`` where nothing is said.

    Returns:
        W_k ``[p, d]`` and the eigenvalues ``[d]``, the largest first.

    Raises:
        HetgraphError: no rows, or fewer than dimensions.
    """
    if not rows or len(next(iter(rows.values()))) <= dims:
        raise HetgraphError(f"a shared space of {dims} dimensions needs more items than that")
    count = len(next(iter(rows.values())))
    total = torch.zeros(count, count, dtype=torch.float64)
    regress: dict[str, Tensor] = {}
    for name, x in rows.items():
        regress[name] = _regression(x.double(), (ridges or {}).get(name, ridge))
        total += (weights or {}).get(name, 1.0) * (x.double() @ regress[name])
    if classes is not None and label_weight:
        one = torch.nn.functional.one_hot(classes).double()
        one = one[:, one.sum(0) > 0]
        total += label_weight * ((one / one.sum(0)) @ one.T - 1 / count)
    values, vectors = (torch.from_numpy(found) for found in _largest(total.numpy(), dims))
    shared = vectors.flip(1) * count**0.5
    # an eigenvector may point either way: the larger end is made positive, so that runs agree
    shared = shared * shared.gather(0, shared.abs().argmax(0, keepdim=True)).sign()
    return {name: (part @ shared).float() for name, part in regress.items()}, values.flip(0).float()


def _regression(x: Tensor, ridge: float) -> Tensor:
    """``X^T (X X^T + r I)^-1 = (X^T X + r I)^-1 X^T``, ``[p, n]``, by the smaller of the two."""
    size = ridge * x.square().sum() / len(x)
    if len(x) < x.shape[1]:
        return torch.linalg.solve(x @ x.T + size * torch.eye(len(x), dtype=x.dtype), x).T
    return torch.linalg.solve(x.T @ x + size * torch.eye(x.shape[1], dtype=x.dtype), x.T)


def _largest(matrix: Any, count: int) -> tuple[Any, Any]:
    """The largest eigenvalues of a symmetric matrix, in rising order, and their vectors."""
    from scipy.linalg import eigh

    size = len(matrix)
    return eigh((matrix + matrix.T) / 2, subset_by_index=[size - count, size - 1])


def logistic(x: Tensor, classes: Tensor, count: int, penalty: float, steps: int = 60) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a squared penalty, by L-BFGS: ``[p, C]`` and ``[C]``.

    Minimises ``mean cross-entropy + penalty / 2 * |W|^2``.
    """
    weight = torch.zeros(x.shape[1], count, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    data = x.double()
    solver = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(data @ weight + bias, classes) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return weight.detach().float(), bias.detach().float()


def cca(a: Tensor, b: Tensor, dims: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Canonical correlation analysis of two centred sides with ridge: maps ``[p, d]``, ``[q, d]``.

    Hotelling (Biometrika 1936), in the regularised form of Vinod (J. Econometrics 1976).
    """
    whiten = []
    for x in (a, b):
        cov = x.double().T @ x.double() / len(x)
        cov = cov + ridge * cov.trace() / len(cov) * torch.eye(len(cov), dtype=torch.float64)
        values, vectors = torch.linalg.eigh(cov)
        whiten.append(vectors @ torch.diag(values.clamp(min=1e-12).rsqrt()) @ vectors.T)
    cross = whiten[0] @ (a.double().T @ b.double() / len(a)) @ whiten[1]
    u, size, v = torch.linalg.svd(cross, full_matrices=False)
    kept = min(dims, len(size))
    weigh = size[:kept].sqrt()
    return (whiten[0] @ u[:, :kept] * weigh).float(), (whiten[1] @ v[:kept].T * weigh).float()


def ordered(names: Sequence[str]) -> list[tuple[str, str]]:
    """All ordered pairs of different names."""
    return [(a, b) for a in names for b in names if a != b]
