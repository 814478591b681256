"""Using a few labelled samples of a new domain, and how well the rest of it is then told apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import HetgraphError
from ...sample import Sample
from ..classification import Answered
from .episodes import Episode, FewShot, Pool, draw
from .learner import Learner, embedded
from .training import MetaSettings, ways_of

KINDS = ("none", "prototypes", "head", "all", "all from prototypes")
BATCH = 50
"""Support samples of a step; fewer are all taken at once."""
MOST_SHOTS = 20
VALID_QUERIES, TEST_QUERIES = 15, 30
STEPS = (0, 10, 30)
"""Of an adaptation, tried on validation domains."""
EPISODES = 2
"""Of every domain."""


@dataclass(frozen=True)
class Adaptation:
    """How the support is used.

    Attributes:
        kind: ``none``: not at all. ``prototypes``: nearest class mean. ``head``: gradient steps of the head. ``all``:
            of all weights. ``all from prototypes``: the same, from a head that answers as the prototypes do
            (Proto-MAML: Triantafillou et al., ICLR 2020).
        optimizer: ``adam`` or ``sgd``.
        lr, steps: of the gradient steps.
    """

    kind: str = "prototypes"
    optimizer: str = "adam"
    lr: float = 3e-3
    steps: int = 10

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.optimizer not in ("adam", "sgd") or self.lr <= 0 or self.steps < 0:
            raise HetgraphError(f"impossible adaptation: {self}; kinds: {', '.join(KINDS)}")


def scores_along(
    learner: Learner, episode: Episode, how: Adaptation, at: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Scores of the query samples after each of so many steps.

    Args:
        learner: is left as it is.
        episode: support and query; a head of other classes is replaced by one of zeros.
        how: kind, optimiser and rate.
        at: numbers of steps, rising.

    Yields:
        Steps, and scores ``[Q, W]``.

    Raises:
        HetgraphError: nothing is adapted and the head knows other classes.
    """
    device = learner.head.weight.device
    labels, ways = episode.support_labels.to(device), len(episode.classes)
    if how.kind != "all":
        z = embedded(learner, [*episode.support, *episode.query])
        known, asked = z[: len(labels)], z[len(labels) :]
    if how.kind == "prototypes":
        with torch.no_grad():
            found = learner.distances(asked, learner.means(known, labels, episode.classes))
        yield from ((steps, found) for steps in at)
        return
    model = copy.deepcopy(learner).eval()
    if how.kind == "all from prototypes":
        model.head = learner.head_of(learner.means(known, labels, episode.classes))
    elif episode.classes != learner.classes and learner.classes != ways_of(ways):
        if how.kind == "none":
            raise HetgraphError(f"the head knows the classes {learner.classes}, expected {episode.classes}")
        model.head = learner.head_of(torch.zeros(ways, learner.fusion.width, device=device))
    if how.kind == "none":
        with torch.no_grad():
            found = model.head(asked)
        yield from ((steps, found) for steps in at)
    elif how.kind == "head":
        yield from _descend(model.head, lambda step: (model.head(known), labels), lambda: model.head(asked), how, at)
    else:
        order = torch.Generator().manual_seed(0)
        places = torch.randperm(len(labels), generator=order).split(BATCH)
        graphs = [(model.graph([episode.support[i] for i in some.tolist()]), labels[some]) for some in places]
        query = model.graph(episode.query)

        def one(step: int) -> tuple[Tensor, Tensor]:
            graph, wanted = graphs[step % len(graphs)]
            return model(graph)[0], wanted

        yield from _descend(model, one, lambda: model(query)[0], how, at)


def _descend(
    model: nn.Module, batch: Any, answer: Any, how: Adaptation, at: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    make = torch.optim.Adam if how.optimizer == "adam" else torch.optim.SGD
    optimizer = make(model.parameters(), lr=how.lr)
    done = 0
    for steps in at:
        for step in range(done, steps):
            optimizer.zero_grad()
            scores, labels = batch(step)
            functional.cross_entropy(scores, labels).backward()
            optimizer.step()
        done = steps
        with torch.no_grad():
            yield steps, answer()


def scores(learner: Learner, episode: Episode, how: Adaptation) -> Tensor:
    """Scores ``[Q, W]`` of the query samples."""
    [(_, found)] = scores_along(learner, episode, how, [how.steps])
    return found


def predict(
    learner: Learner, support: Sequence[Sample], query: Sequence[Sample], how: Adaptation | None = None
) -> list[Answered]:
    """Answers to samples of a new domain, or of new classes.

    Args:
        learner: trained by :func:`~hetgraph.tasks.fewshot.train`.
        support: labelled samples, equally many of each class; the classes are those of their targets, in the learner's
            order where it knows them.
        query: samples to be answered; targets are not needed.
        how: default: prototypes.

    Raises:
        HetgraphError: no support, or another number of samples of one class than of another.
    """
    names = list(dict.fromkeys(str(sample.target) for sample in support))
    classes = learner.classes if set(names) == set(learner.classes) else tuple(sorted(names))
    ordered = [s for name in classes for s in support if str(s.target) == name]
    counts = {name: sum(str(s.target) == name for s in support) for name in classes}
    if not support or len(set(counts.values())) != 1:
        raise HetgraphError(f"support: expected equally many samples of each class, got {counts}")
    chances = scores(learner, Episode("support", tuple(classes), ordered, list(query)), how or Adaptation()).softmax(-1)
    best = chances.max(-1)
    return [
        Answered(
            id=str(i) if sample.id is None else sample.id,
            sample=str(i) if sample.id is None else sample.id,
            group=None,
            answer=classes[place],
            confidence=chance,
            target=sample.target,
        )
        for i, (sample, place, chance) in enumerate(
            zip(query, best.indices.tolist(), best.values.tolist(), strict=True)
        )
    ]


def episodes_of(data: FewShot, part: str, *, seed: int = 0, count: int = EPISODES) -> list[Episode]:
    """The episodes that a part is scored on: for every domain ``count``, with up to ``MOST_SHOTS`` shots.

    They depend on nothing but data and seed, so that all learners have the same ones.
    """
    domains: Mapping[str, Pool] = data.test if part == "test" else data.valid
    classes = data.test_classes if part == "test" else data.valid_classes
    queries = TEST_QUERIES if part == "test" else VALID_QUERIES
    rng = np.random.default_rng((seed, 5 if part == "test" else 6))
    ways = None if len(classes) == data.ways else data.ways
    found = []
    for domain, pool in domains.items():
        least = min(len(pool[name]) for name in classes)
        # of small pools two fifths to learn from: of the 50 recordings of a speaker and digit they are 20
        shots = min(MOST_SHOTS, max(1, 2 * least // 5))
        asked = min(queries, least - shots)
        found += [draw(domain, pool, classes, shots, asked, rng, ways) for _ in range(count)]
    return found


def accuracy(found: Tensor, episode: Episode) -> float:
    """Share of the query samples with the right class."""
    return float((found.argmax(-1).cpu() == episode.query_labels).double().mean())


def choose(
    learner: Learner, episodes: Sequence[Episode], shots: int, candidates: Sequence[tuple[Adaptation, Sequence[int]]]
) -> tuple[Adaptation, float]:
    """The rate and number of steps that do best on validation episodes; of equals the first and the fewest steps.

    Args:
        learner: to be adapted.
        episodes: of validation domains.
        shots: of the support.
        candidates: adaptations, each with the numbers of steps to try.
    """
    best: tuple[Adaptation, float] | None = None
    for how, at in candidates:
        curves: dict[int, list[float]] = {steps: [] for steps in at}
        for whole in episodes:
            episode = whole.fewer(shots)
            for steps, found in scores_along(learner, episode, how, at):
                curves[steps].append(accuracy(found, episode))
        for steps, values in curves.items():
            if best is None or fmean(values) > best[1] + 1e-12:
                best = replace(how, steps=steps), fmean(values)
    assert best is not None
    return best


def evaluate(
    learner: Learner,
    data: FewShot,
    how: Adaptation | None = None,
    *,
    shots: int = 5,
    part: str = "test",
    seed: int = 0,
    episodes: int = EPISODES,
) -> dict[str, float]:
    """Accuracy over the episodes of a part, and that of every domain: ``accuracy``, ``accuracy_DOMAIN``.

    Raises:
        HetgraphError: the domains have too few samples for so many shots.
    """
    found: dict[str, list[float]] = {}
    for whole in episodes_of(data, part, seed=seed, count=episodes):
        episode = whole.fewer(shots)
        value = accuracy(scores(learner, episode, how or Adaptation()), episode)
        found.setdefault(episode.domain, []).append(value)
    means = {domain: fmean(values) for domain, values in found.items()}
    return {"accuracy": fmean(means.values())} | {f"accuracy_{domain}": value for domain, value in means.items()}


def candidates(kind: str, settings: MetaSettings) -> list[tuple[Adaptation, Sequence[int]]]:
    """What is tried on validation domains: two rates with as many numbers of steps each, for every regime.

    ``maml`` and the head of ``anil`` go on as they were trained, by plain gradient descent at their inner rate and at
    twice that; everything else is Adam's.
    """
    if kind in ("none", "prototypes"):
        return [(Adaptation(kind), (0,))]
    if (settings.regime, kind) in (("maml", "all"), ("anil", "head")):
        lr = settings.inner_lr if kind == "all" else settings.inner_lr_head
        return [(Adaptation(kind, "sgd", factor * lr), STEPS) for factor in (1, 2)]
    # what has learnt nothing yet has more to learn
    steps = tuple(4 * count for count in STEPS) if settings.regime == "untrained" else STEPS
    return [(Adaptation(kind, "adam", lr), steps) for lr in ((3e-3, 3e-2) if kind == "head" else (1e-3, 3e-3))]


KIND_OF = {
    "conventional": "all",
    "untrained": "all",
    "prototypes": "prototypes",
    "prior_prototypes": "all from prototypes",
    "anil": "head",
    "maml": "all",
}
"""Regime -> what its learners do with a support."""


def adaptation(learner: Learner, data: FewShot, settings: MetaSettings, shots: int = 5) -> Adaptation:
    """What suits a learner: the kind by its regime, rate and steps by the validation domains.

    Args:
        learner: trained with the settings.
        data: its domains.
        settings: name the regime and the inner rates.
        shots: of the supports that it will be used on.
    """
    episodes = episodes_of(data, "valid", seed=settings.seed)
    return choose(learner, episodes, shots, candidates(KIND_OF[settings.regime], settings))[0]
