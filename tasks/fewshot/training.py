"""Learning to learn on the training domains, and the plain training that it has to beat: equal steps, equal samples.

Every step of every regime reads ``ways x (shots + queries)`` samples. Meta-learning begins with conventional steps,
which count as its own (Meta-Baseline: Chen et al., ICCV 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ...fusion import Fusion
from ...graph import Graph
from ...progress import TrainingBar
from ...sample import Sample
from .episodes import Episode, FewShot, draw
from .learner import Learner, embedded, inner_loop, inner_loop_of_head, prototypes, second_order

REGIMES = ("conventional", "prototypes", "prior_prototypes", "maml", "anil", "untrained")
Vary = Callable[[Graph, Tensor, torch.Generator], None]
"""Changes the samples of a graph as other domains would, in place, given the number of every sample's domain."""


@dataclass(frozen=True)
class MetaSettings:
    """A learner and how it is trained on the training domains.

    Attributes:
        regime: ``conventional``: cross-entropy on mixed batches. ``prototypes``: episodes, nearest class mean (Snell et
            al., NeurIPS 2017). ``prior_prototypes``: the same with class means of 1 to ``shots`` samples that are drawn
            to those of all training domains (:meth:`.learner.Learner.means`); for classes that training knows.
            ``maml``: episodes, all weights adapted (Finn et al., ICML 2017). ``anil``: episodes, the head adapted
            (Raghu et al., ICLR 2020). ``untrained``: not at all.
        method, width, layers, heads, dropout: of fusion.
        steps: gradient steps.
        shots, queries: samples of every class in an episode's support and query.
        lr, weight_decay, clip: of AdamW, with a cosine.
        inner_steps, inner_lr, inner_lr_head: of the descent inside an episode, for all weights and for the head alone.
        warm: share of the steps of meta-learning that are conventional, ahead of the episodes.
        first_order: leave second derivatives out of ``maml``.
        seed: of weights and episodes.
    """

    regime: str = "prototypes"
    method: str = "graph"
    width: int = 32
    layers: int = 1
    heads: int = 4
    dropout: float = 0.0
    steps: int = 300
    shots: int = 5
    queries: int = 5
    lr: float = 1e-2
    weight_decay: float = 1e-2
    clip: float = 1.0
    inner_steps: int = 3
    inner_lr: float = 0.05
    inner_lr_head: float = 0.1
    warm: float = 0.5
    first_order: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.regime not in REGIMES:
            raise HetgraphError(f"unknown regime {self.regime!r}; known: {', '.join(REGIMES)}")
        if not 0 <= self.warm <= 1:
            raise HetgraphError(f"warm must be a share from 0 to 1, got {self.warm!r}")
        if min(self.steps, self.shots, self.queries, self.inner_steps) < 1 or min(self.lr, self.inner_lr) <= 0:
            raise HetgraphError(f"impossible settings: {self}")


def train(
    data: FewShot, settings: MetaSettings | None = None, *, vary: Vary | None = None, progress: bool = True
) -> Learner:
    """A learner, trained on the training domains; their samples alone set the scale of the features.

    Args:
        data: domains.
        settings: see :class:`MetaSettings`.
        vary: invents domains: one for an episode, several in a batch of conventional training.
        progress: show a progress bar.

    Raises:
        HetgraphError: too few samples, bad samples, ``prior_prototypes`` where classes are new, or a loss that is not
            finite.
    """
    s = settings or MetaSettings()
    if s.regime == "prior_prototypes" and not data.same_classes:
        raise HetgraphError(
            f"{data.name}: prior_prototypes: expected the classes of training in every part, got {data.test_classes} "
            f"to be told apart after {data.train_classes}"
        )
    if s.regime == "maml" and not s.first_order:
        with second_order(_fusion(data, s), torch.device("cpu")):
            return _train(data, s, vary, progress)
    return _train(data, s, vary, progress)


def _fusion(data: FewShot, s: MetaSettings) -> Fusion:
    return Fusion(data.schema, s.width, layers=s.layers, heads=s.heads, method=s.method, dropout=s.dropout)


def _train(data: FewShot, s: MetaSettings, vary: Vary | None, progress: bool) -> Learner:
    with torch.random.fork_rng():
        torch.manual_seed(s.seed)
        learner = Learner(_fusion(data, s), _outputs(data, s), prior=s.regime == "prior_prototypes")
        samples = data.samples
        if not samples:
            raise HetgraphError(f"{data.name}: no training samples")
        builder = GraphBuilder(data.schema)
        learner.fusion.standardize(builder(samples[i : i + 256]) for i in range(0, len(samples), 256))
        if s.regime == "untrained":
            return learner.eval()
        # a head of its own where the learner's does not know the classes of training
        known = nn.Linear(s.width, len(data.train_classes)) if learner.classes != data.train_classes else learner.head
        trained = list(dict.fromkeys([*learner.parameters(), *known.parameters()]))
        optimizer = torch.optim.AdamW(trained, lr=s.lr, weight_decay=s.weight_decay)
        rng = np.random.default_rng((s.seed, 3))
        voices = torch.Generator().manual_seed(s.seed)
        # the first episode
        first = s.steps if s.regime == "conventional" else math.ceil(s.warm * s.steps)
        learner.train()
        with TrainingBar(progress, 1, s.steps) as bar:
            for step in range(s.steps):
                for group in optimizer.param_groups:
                    group["lr"] = rate(s.lr, step, s.steps)
                if s.regime == "prior_prototypes" and step == first:
                    learner.set_prior(means_of(learner, samples))
                if step < first:
                    loss = _conventional(learner, known, data, s, samples, rng, voices, vary)
                else:
                    episode = _episode(data, s, rng)
                    loss = episode_loss(learner, episode, s, partial(_varied, vary=vary), voices)
                if not math.isfinite(loss.item()):
                    raise HetgraphError(f"the loss is {loss.item()} at step {step}; a lower learning rate may help")
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, s.clip)
                optimizer.step()
                bar.step(0, loss.item(), {})
        if s.regime == "prior_prototypes" and first >= s.steps:
            learner.set_prior(means_of(learner, samples))
    return learner.eval()


def means_of(learner: Learner, samples: Sequence[Sample]) -> Tensor:
    """Mean Z of the samples of each of the learner's classes, ``[W, D]``."""
    labels = torch.tensor([learner.classes.index(str(sample.target)) for sample in samples])
    z = embedded(learner, samples)
    return prototypes(z, labels.to(z.device), len(learner.classes))


def rate(peak: float, step: int, steps: int) -> float:
    """A twentieth of the steps up, then a cosine down to zero."""
    rising = max(1, steps // 20)
    return peak * min(1.0, (step + 1) / rising) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _outputs(data: FewShot, s: MetaSettings) -> tuple[str, ...]:
    if s.regime in ("maml", "anil") and not data.same_classes:
        return ways_of(data.ways)
    return data.train_classes


def ways_of(count: int) -> tuple[str, ...]:
    """Names of the outputs of a head that knows no classes, only how many."""
    return tuple(f"way {i}" for i in range(count))


def _conventional(
    learner: Learner,
    head: nn.Linear,
    data: FewShot,
    s: MetaSettings,
    samples: Sequence[Sample],
    rng: np.random.Generator,
    voices: torch.Generator,
    vary: Vary | None,
) -> Tensor:
    """Cross-entropy of samples of all training domains, each with an invented voice of its own."""
    count = data.ways * (s.shots + s.queries)
    some = [samples[i] for i in rng.permutation(len(samples))[:count]]
    graph = learner.graph(some)
    if vary is not None:
        vary(graph, torch.arange(len(graph)), voices)
    place = {name: i for i, name in enumerate(data.train_classes)}
    labels = torch.tensor([place[str(sample.target)] for sample in some]).to(graph.device)
    _, z, more = learner(graph)
    return functional.cross_entropy(head(z), labels) + more


def _varied(graph: Graph, seed: int, vary: Vary | None) -> None:
    if vary is not None:
        vary(graph, torch.zeros(len(graph), dtype=torch.long), torch.Generator().manual_seed(seed))


def _episode(data: FewShot, s: MetaSettings, rng: np.random.Generator) -> Episode:
    domains = list(data.train)
    domain = domains[int(rng.integers(len(domains)))]
    # where classes change from episode to episode, their numbers are dealt out anew
    ways = None if data.same_classes else data.ways
    return draw(domain, data.train[domain], data.train_classes, s.shots, s.queries, rng, ways)


def episode_loss(
    learner: Learner,
    episode: Episode,
    s: MetaSettings,
    change: Callable[[Graph, int], None] = lambda graph, seed: None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Query loss after learning from the support.

    Of ``prototypes`` and ``anil`` support and query also change places. Of ``anil`` it is the mean over all steps of
    the inner loop, the one before the first included (multi-step loss: MAML++, Antoniou et al., ICLR 2019).

    Args:
        learner: in training mode.
        episode: support and query.
        s: the regime and its inner loop.
        change: makes another domain of a graph, the same one for the same seed.
        generator: draws that seed.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    device = learner.head.weight.device
    labels, wanted = episode.support_labels.to(device), episode.query_labels.to(device)
    if s.regime == "maml":
        support, query = learner.graph(episode.support), learner.graph(episode.query)
        change(support, seed)
        change(query, seed)
        weights = inner_loop(
            learner,
            dict(learner.named_parameters()),
            support,
            labels,
            steps=s.inner_steps,
            lr=s.inner_lr,
            first_order=s.first_order,
        )
        scores, _, more = torch.func.functional_call(learner, weights, (query,))
        return functional.cross_entropy(scores, wanted) + more
    both = learner.graph([*episode.support, *episode.query])
    change(both, seed)
    _, z, more = learner(both)
    known, asked = z[: len(labels)], z[len(labels) :]
    # support and query change places: every sample is asked about once, at no more cost of Z
    one = _asked(learner, s, (known, labels), (asked, wanted), episode.classes, generator)
    other = _asked(learner, s, (asked, wanted), (known, labels), episode.classes, generator)
    return (one + other) / 2 + more


def _asked(
    learner: Learner,
    s: MetaSettings,
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    classes: Sequence[str],
    generator: torch.Generator | None,
) -> Tensor:
    """Loss of the query after learning from the support, each Z ``[S, D]`` and labels, class by class."""
    (z, labels), (asked, wanted) = support, query
    if s.regime in ("prototypes", "prior_prototypes"):
        if s.regime == "prior_prototypes":
            # few samples and many, so that it is learnt how many the prior is worth
            shots = len(labels) // len(classes)
            fewer = int(torch.randint(1, shots + 1, (), generator=generator))
            kept = (torch.arange(len(labels)) % shots < fewer).to(z.device)
            z, labels = z[kept], labels[kept]
        return functional.cross_entropy(learner.distances(asked, learner.means(z, labels, classes)), wanted)
    path = inner_loop_of_head(
        learner.head.weight, learner.head.bias, z, labels, steps=s.inner_steps, lr=s.inner_lr_head, first_order=False
    )
    return torch.stack([functional.cross_entropy(functional.linear(asked, *head), wanted) for head in path]).mean()
