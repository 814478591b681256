"""Modality dropout: leave node types out of samples, the same ones in every process and after every restart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .sample import Sample


def without(sample: Sample, *types: str) -> Sample:
    """The sample with these node types, and the edges that touch them, taken out."""
    out = Sample(id=sample.id, target=sample.target)
    out.nodes = {name: value for name, value in sample.nodes.items() if name not in types}
    out.edges = {key: value for key, value in sample.edges.items() if key[0] not in types and key[2] not in types}
    return out


def mix(*numbers: int) -> int:
    """One seed from several numbers."""
    digest = hashlib.blake2b(json.dumps(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Thinning:
    """Takes node types out of a sample at random, never all of them, and of every group leaves a node.

    Attributes:
        rate: probability for every type, or one per type.
        seed: of the run.
        group: field that numbers the groups of nodes, if Z is per group.
    """

    rate: float | Mapping[str, float]
    seed: int
    group: str | None = None

    def __call__(self, sample: Sample, epoch: int, i: int) -> Sample:
        """What is left of training sample ``i`` in an epoch; depends on nothing but seed, epoch and ``i``."""
        if not self.rate:
            return sample
        generator = torch.Generator().manual_seed(mix(self.seed, epoch, i, 1))
        names = [name for name, value in sample.nodes.items() if len(value["x"])]
        draw = torch.rand(len(names), generator=generator).tolist()
        limit = [self.rate.get(n, 0.0) if isinstance(self.rate, Mapping) else self.rate for n in names]
        gone = [n for n, d, p in zip(names, draw, limit, strict=True) if d < p]
        if len(gone) == len(names):
            gone.remove(names[int(torch.randint(len(names), (1,), generator=generator))])
        if self.group is not None and gone:
            shuffled = [gone[j] for j in torch.randperm(len(gone), generator=generator)]
            gone = _spare_groups(sample, shuffled, self.group)
        return without(sample, *gone) if gone else sample


def _spare_groups(sample: Sample, gone: list[str], field: str) -> list[str]:
    """Those of the node types ``gone``, taken in turn, without which every group still has a node."""
    groups = {name: set(values[field].tolist()) for name, values in sample.nodes.items() if field in values}
    leaving = []
    for name in gone:
        rest = {n: numbers for n, numbers in groups.items() if n != name}
        if set().union(*rest.values()) == set().union(*groups.values()):
            groups = rest
            leaving.append(name)
    return leaving
