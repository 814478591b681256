"""What a training run reads, in an order known beforehand, so that others can read ahead of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .loader import named
from .sample import Sample
from .thinning import Thinning, mix

Key = tuple[int, int, int]
"""What for, epoch, place."""

_SCALE, _TRAIN, _VALID = range(3)


def in_turn(count: int, size: int) -> list[list[int]]:
    """0 .. count - 1 in lists of ``size``; the last one may be shorter."""
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


@dataclass(frozen=True)
class Reading:
    """The samples of a run by key; whatever torch draws at random while one is read depends on seed and key alone."""

    samples: Sequence[Sample]
    valid: Sequence[Sample]
    thinning: Thinning

    def __getitem__(self, key: Key) -> Sample:
        part, epoch, i = key
        torch.default_generator.manual_seed(mix(self.thinning.seed, *key))
        sample = named(self.valid if part == _VALID else self.samples, i)
        return self.thinning(sample, epoch, i) if part == _TRAIN else sample

    def scale(self, size: int) -> Iterator[list[Key]]:
        """Batches of all training samples as they are."""
        for part in in_turn(len(self.samples), size):
            yield [(_SCALE, 0, i) for i in part]

    def epoch(self, epoch: int, size: int, *, step: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[Key]]:
        """Batches of an epoch from a step on: a process's share of training samples, then all validation samples.

        A process without a share of a small last batch reads a sample of it nevertheless.
        """
        generator = torch.Generator().manual_seed(mix(self.thinning.seed, epoch))
        order = torch.randperm(len(self.samples), generator=generator).tolist()
        for start in range(step * size, len(order), size):
            chosen = order[start : start + size]
            yield [(_TRAIN, epoch, i) for i in chosen[rank::world] or chosen[:1]]
        for part in in_turn(len(self.valid), size):
            yield [(_VALID, epoch, i) for i in part]
