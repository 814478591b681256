"""What :func:`hetgraph.tasks.generation.evaluate` measures, and the floors and ceilings beside it.

Shapes: S samples, N nodes of the target, d their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ..ridge import ridge
from .judging import Judge, chance, first_of_each, judge, pictures_compared, retrieval
from .translations import Translation
from .translator import Translator, mean_nodes

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of the ridge regression; the best on the validation part is taken."""


def squares(cells: Tensor) -> Tensor:
    """``[..., g * g, c * c]``, cells in reading order, to pictures ``[..., g c, g c]``.

    Raises:
        HetgraphError: no squares.
    """
    grid, cell = isqrt(cells.shape[-2]), isqrt(cells.shape[-1])
    if grid**2 != cells.shape[-2] or cell**2 != cells.shape[-1]:
        raise HetgraphError(f"expected a square of square cells, got {list(cells.shape[-2:])}")
    parts = cells.unflatten(-1, (cell, cell)).unflatten(-3, (grid, grid))
    return parts.transpose(-3, -2).reshape(*cells.shape[:-2], grid * cell, grid * cell)


def real_pictures(source: Translation, part: str) -> tuple[Tensor, Tensor]:
    """The different pictures of a part and their classes, ``[S, side, side]`` and ``[S]``."""
    rows, places = torch.unique(source.targets(part), dim=0, return_inverse=True)
    kinds = torch.zeros(len(rows), dtype=torch.int64)
    kinds[places] = source.labels(part)
    return squares(rows.unflatten(1, (source.nodes, source.dim))), kinds


@lru_cache(maxsize=2)
def _judge_of(source: Translation) -> Judge:
    return judge(*real_pictures(source, "train"))


def judge_of(source: Translation) -> Judge:
    """The judge of a translation's pictures, trained on its training part; kept for the last translations."""
    return _judge_of(source)


def pictures(model: Translator, source: Translation, part: str, seed: int) -> dict[str, float]:
    """See :func:`hetgraph.tasks.generation.evaluate`."""
    samples, kinds = source.samples(part), source.labels(part)
    heard = model.hear(samples)
    made = squares(model.decode(model.draw(heard, 1, seed))[:, 0]).cpu()
    found = pictures_compared(judge_of(source), made, kinds, *real_pictures(source, part))
    return {**found, "accuracy_heard": float((heard.scores.argmax(1).cpu() == kinds).double().mean())}


def bounds(model: Translator, source: Translation, part: str = "test", *, seed: int = 0) -> dict[str, dict[str, float]]:
    """The same scores for what a generator should be held against; all know the digit as well as the model's head.

    ``mean picture``: the mean training picture of the class that is heard (no diversity: the floor). ``training
    picture``: a random one of that class (the ceiling). ``real``: the test part's own pictures, of the right class.
    """
    kinds, (train, train_kinds) = source.labels(part), real_pictures(source, "train")
    heard = model.hear(source.samples(part)).scores.argmax(1).cpu()
    draw = torch.Generator().manual_seed(seed)
    mean = torch.stack([train[train_kinds == k].mean(0) for k in range(source.data.objective.outputs)])
    places = [(train_kinds == k).nonzero().squeeze(1) for k in range(source.data.objective.outputs)]
    drawn = [int(places[k][torch.randint(len(places[k]), (), generator=draw)]) for k in heard.tolist()]
    own = squares(source.targets(part).unflatten(1, (source.nodes, source.dim)))
    reader, real = judge_of(source), real_pictures(source, part)
    return {
        "mean picture": pictures_compared(reader, mean[heard], kinds, *real),
        "training picture": pictures_compared(reader, train[torch.tensor(drawn)], kinds, *real),
        "real": pictures_compared(reader, own, kinds, *real),
    }


def _means(source: Translation, values: Tensor) -> Tensor:
    """Means over the nodes, less the mean of the training part: ``[S, N d] -> [S, d]``.

    Features of a network have a large mean in common, which says nothing of what they are of.
    """
    shape = (source.nodes, source.dim)
    return values.unflatten(1, shape).mean(1) - source.train.unflatten(1, shape).mean((0, 1))


def chosen_of(source: Translation, part: str) -> list[int]:
    """Places of the samples of a part that are retrieved: one of every group.

    Raises:
        HetgraphError: the part is empty.
    """
    samples = source.samples(part)
    if not samples:
        raise HetgraphError(f"{source.name}: the {part} part is empty")
    return first_of_each([source.groups.get(str(s.id), str(s.id)) for s in samples])


def features(model: Translator, source: Translation, part: str, seed: int) -> dict[str, float]:
    """See :func:`hetgraph.tasks.generation.evaluate`."""
    chosen = chosen_of(source, part)
    samples = source.samples(part)
    heard = model.hear([samples[i] for i in chosen])
    return compared(source, part, model.space.decode(model.draw(heard, 1, seed))[:, 0].cpu(), chosen)


def compared(source: Translation, part: str, made: Tensor, chosen: Sequence[int]) -> dict[str, float]:
    """Retrieval of what is made, ``[Q, N d]``, for the part's samples at the places ``chosen``, and the cosine."""
    means, own = _means(source, made), _means(source, source.targets(part)[chosen])
    return {**retrieval(means, own), "cosine": float(functional.cosine_similarity(means, own).mean())}


def regression(source: Translation, part: str = "test") -> dict[str, float]:
    """Retrieval by a ridge regression from the mean nodes of the sources to the target.

    Several sources are put side by side, zeros for absent ones. The strength is chosen by :func:`strength_of`.
    """
    weights, shift = ridge(heard_means(source, "train"), source.train, strength_of(source, source.train))
    chosen = chosen_of(source, part)
    found = compared(source, part, (heard_means(source, part)[chosen].double() @ weights + shift).float(), chosen)
    return {name: value for name, value in found.items() if name != "cosine"}


def strength_of(source: Translation, y: Tensor, decode: Callable[[Tensor], Tensor] = lambda parts: parts) -> float:
    """The one of :data:`STRENGTHS` with the best recall at 10 on the validation part.

    Args:
        source: what is heard.
        y: training targets, as the regression is to make them, ``[S, P]``.
        decode: such rows to targets, ``[Q, P] -> [Q, N d]``.

    Raises:
        HetgraphError: the validation part is empty.
    """
    chosen = chosen_of(source, "valid")
    x, heard = heard_means(source, "train"), heard_means(source, "valid")[chosen].double()

    def recall(strength: float) -> float:
        weights, shift = ridge(x, y, strength)
        return compared(source, "valid", decode((heard @ weights + shift).float()), chosen)["recall@10"]

    return max(STRENGTHS, key=recall)


def heard_means(source: Translation, part: str) -> Tensor:
    """:func:`~.translator.mean_nodes` of a part, ``[S, F]``: what a model that was trained on it hears."""
    return mean_nodes(GraphBuilder(source.data.schema)(source.samples(part)))


def chances(source: Translation, part: str = "test") -> dict[str, float]:
    """Retrieval by a random order."""
    return chance(len(chosen_of(source, part)))
