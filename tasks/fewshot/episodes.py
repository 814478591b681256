"""Episodes: a few labelled samples of a domain to learn from, and others of the same domain to be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import HetgraphError
from ...sample import Sample
from ...schema import Schema

Pool = Mapping[str, Sequence[Sample]]
"""Class -> samples of it."""


@dataclass(frozen=True, eq=False)
class FewShot:
    """Domains (speakers) in three parts; what is learnt on some is to be of use on others.

    Attributes:
        name: of the protocol.
        schema: node and edge types of the samples.
        train, valid, test: domain -> class -> samples. No domain is in two parts.
        train_classes, valid_classes, test_classes: what is told apart in each part. Where all three are equal, only
            the domains are new.
        ways: classes of an episode.
        notes: what to know before numbers are compared.
    """

    name: str
    schema: Schema
    train: Mapping[str, Pool]
    valid: Mapping[str, Pool]
    test: Mapping[str, Pool]
    train_classes: tuple[str, ...]
    valid_classes: tuple[str, ...]
    test_classes: tuple[str, ...]
    ways: int
    notes: str = ""

    @property
    def same_classes(self) -> bool:
        """Whether an episode is always about the same classes, so that a head knows them beforehand."""
        return self.train_classes == self.valid_classes == self.test_classes and self.ways == len(self.test_classes)

    @property
    def samples(self) -> list[Sample]:
        """All training samples."""
        return [sample for pool in self.train.values() for some in pool.values() for sample in some]


@dataclass(frozen=True, eq=False)
class Episode:
    """Samples of ``ways`` classes, class by class.

    Attributes:
        domain: whose samples they are.
        classes: the number of a class is its place here.
        support: to learn from, equally many of each class.
        query: to be told apart.
    """

    domain: str
    classes: tuple[str, ...]
    support: list[Sample]
    query: list[Sample]

    @property
    def shots(self) -> int:
        return len(self.support) // len(self.classes)

    @property
    def support_labels(self) -> Tensor:
        """int64 ``[ways * shots]``."""
        return self._labels(self.support)

    @property
    def query_labels(self) -> Tensor:
        return self._labels(self.query)

    def _labels(self, samples: Sequence[Sample]) -> Tensor:
        place = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([place[str(sample.target)] for sample in samples])

    def fewer(self, shots: int) -> Episode:
        """The same with the first ``shots`` of every class in its support.

        Raises:
            HetgraphError: there are not as many.
        """
        if not 1 <= shots <= self.shots:
            raise HetgraphError(f"episode of {self.domain!r}: shots: expected 1 to {self.shots}, got {shots}")
        kept = [s for i in range(len(self.classes)) for s in self.support[i * self.shots :][:shots]]
        return Episode(self.domain, self.classes, kept, self.query)


def draw(
    domain: str,
    pool: Pool,
    classes: Sequence[str],
    shots: int,
    queries: int,
    generator: np.random.Generator,
    ways: int | None = None,
) -> Episode:
    """An episode at random; support and query share no sample.

    Args:
        domain: whose samples they are.
        pool: the samples.
        classes: which classes there are.
        shots, queries: samples of every class in support and query.
        generator: draws.
        ways: so many of the classes, in random order; None: all of them, in their order.

    Raises:
        HetgraphError: too few classes or samples.
    """
    if ways is not None:
        if not 2 <= ways <= len(classes):
            raise HetgraphError(f"domain {domain!r}: ways: expected 2 to {len(classes)}, got {ways}")
        classes = [classes[i] for i in generator.permutation(len(classes))[:ways]]
    support: list[Sample] = []
    query: list[Sample] = []
    for name in classes:
        some = pool.get(name, ())
        if shots < 1 or queries < 1 or len(some) < shots + queries:
            raise HetgraphError(
                f"domain {domain!r}: class {name!r}: expected {shots} + {queries} samples, got {len(some)}"
            )
        order = generator.permutation(len(some))[: shots + queries].tolist()
        support += [some[i] for i in order[:shots]]
        query += [some[i] for i in order[shots:]]
    return Episode(domain, tuple(classes), support, query)
