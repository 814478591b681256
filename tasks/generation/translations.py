"""What is to be translated into what: samples of some modalities, and for each the nodes of another.

Shapes: S samples, N nodes of the target, d their width, C = N d numbers of a target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ...errors import HetgraphError
from ...sample import Sample
from ...schema import Schema
from ...thinning import without
from ..datasets import Dataset

PARTS = ("train", "valid", "test")
NAMES = ("digits", "tuxpaint", "tuxpaint_back")
"""What :func:`load` knows."""
WRITTEN = 350
"""Training pairs per digit: each picture of the training part once."""


@dataclass(frozen=True, eq=False)
class Translation:
    """A data set without one of its modalities, and that modality apart.

    Attributes:
        name: what messages call it.
        data: the samples without the target.
        target: the node type that is left out of ``data``.
        nodes, dim: how many nodes the target has and how wide they are.
        train, valid, test: the targets of ``data``'s parts, ``[S, N d]``, as they are.
        exchange: the pairs are by class alone: any target of a class belongs to any sample of that class.
        places: positional fields of the target's nodes, name -> ``[N, w]``: means over the training part.
        groups: sample id -> what it shares with others, where of several only one may be retrieved.
    """

    name: str
    data: Dataset
    target: str
    nodes: int
    dim: int
    train: Tensor
    valid: Tensor
    test: Tensor
    exchange: bool = False
    places: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    def labels(self, part: str) -> Tensor:
        """Class numbers of a part's samples, int64 ``[S]``."""
        samples = self.samples(part)
        return self.data.objective.encode([s.target for s in samples], [str(s.id) for s in samples])

    def samples(self, part: str) -> list[Sample]:
        """The samples of a part, without the target."""
        return getattr(self.data, part) or []

    def targets(self, part: str) -> Tensor:
        """Of a part, ``[S, N d]``."""
        return getattr(self, part)


def only(data: Dataset, kept: Iterable[str]) -> Dataset:
    """The data set with some node types, of all samples.

    Raises:
        HetgraphError: it has no such node type, or a sample has none of them.
    """
    names = list(kept)
    unknown = [name for name in names if name not in data.schema.nodes]
    if unknown or not names:
        raise HetgraphError(f"{data.name}: expected node types out of {list(data.schema.nodes)}, got {names}")
    gone = [name for name in data.schema.nodes if name not in names]
    edges = [edge for (a, _, b), edge in data.schema.edges.items() if a in names and b in names]
    parts = {part: [without(s, *gone) for s in getattr(data, part) or []] for part in PARTS}
    for sample in (s for part in parts.values() for s in part if not s.nodes):
        raise HetgraphError(f"{data.name}: {sample.label} has none of the node types {names}")
    schema = Schema([data.schema.nodes[name] for name in data.schema.nodes if name in names], edges)
    return replace(data, schema=schema, train=parts["train"], valid=parts["valid"] or None, test=parts["test"])


def translation(
    data: Dataset,
    target: str,
    sources: Sequence[str] | None = None,
    *,
    exchange: bool = False,
    pooled: bool | None = None,
    name: str | None = None,
    groups: dict[str, str] | None = None,
) -> Translation:
    """Take one modality out of a data set, to be made from the others.

    Args:
        data: samples with the target and at least one source; others are left out.
        target: the node type to be made.
        sources: node types that it is made from; default: all others.
        exchange: see :class:`Translation`; the samples' targets are then class names.
        pooled: the target is the mean of its nodes. Default: where samples have different numbers of nodes.
        name: default: ``SOURCE+SOURCE->TARGET``.
        groups: see :class:`Translation`.

    Raises:
        HetgraphError: an unknown node type, the target among the sources, or no training sample with both.
    """
    named = [n for n in data.schema.nodes if n != target] if sources is None else list(sources)
    if target not in data.schema.nodes or target in named:
        raise HetgraphError(f"{data.name}: expected a target apart from {named} in the schema, got {target!r}")
    held = {part: [s for s in getattr(data, part) or [] if _has(s, [target]) and _has(s, named)] for part in PARTS}
    if not held["train"]:
        raise HetgraphError(f"{data.name}: no training sample has {target!r} and one of {named}")
    counts = {len(s.nodes[target]["x"]) for part in held.values() for s in part}
    if pooled is None:
        pooled = len(counts) > 1
    if not pooled and len(counts) > 1:
        raise HetgraphError(f"{data.name}: {target!r} has {sorted(counts)} nodes; only their mean can be made (pooled)")
    dim, nodes = data.schema.nodes[target].dim, 1 if pooled else counts.pop()
    full = only(replace(data, **held), [*named])  # type: ignore[arg-type]
    values = {part: _targets(samples, target, pooled, nodes * dim) for part, samples in held.items()}
    return Translation(
        name or f"{'+'.join(named)}->{target}",
        full,
        target,
        nodes,
        dim,
        values["train"],
        values["valid"],
        values["test"],
        exchange,
        {} if pooled else _places(held["train"], target),
        groups or {},
    )


def _has(sample: Sample, names: Sequence[str]) -> bool:
    return any(name in sample.nodes and len(sample.nodes[name]["x"]) for name in names)


def _targets(samples: Sequence[Sample], target: str, pooled: bool, size: int) -> Tensor:
    rows = [s.nodes[target]["x"].float() for s in samples]
    flat = [row.mean(0) if pooled else row.reshape(-1) for row in rows]
    return torch.stack(flat) if flat else torch.zeros(0, size)


def _places(samples: Sequence[Sample], target: str) -> dict[str, Tensor]:
    """Means of the real-valued fields that all samples have."""
    first = samples[0].nodes[target]
    names = [n for n, value in first.items() if n != "x" and value.is_floating_point()]
    common = [n for n in names if all(n in s.nodes[target] for s in samples)]
    return {name: torch.stack([s.nodes[target][name].float() for s in samples]).mean(0) for name in common}


def load(name: str, folder: str | Path | None = None, *, seed: int = 0, cache: str | Path | None = None) -> Translation:
    """A translation by name.

    ``digits``: a spoken digit into its picture (784 pixels in 16 cells), clean, 350 training pairs per digit.
    ``tuxpaint``: a caption's words into the picture's regions; ``tuxpaint_back``: regions into the mean of the words.

    Args:
        name: one of :data:`NAMES`.
        folder: where the files lie; default: in ``$HETGRAPH_DATA``.
        seed: of the pairs of ``digits``.
        cache: keeps what pretrained encoders compute.

    Raises:
        HetgraphError: another name, or a file is missing or damaged.
    """
    if name not in NAMES:
        raise HetgraphError(f"no translation {name!r}; known: {', '.join(NAMES)}")
    if name == "digits":
        from ..datasets.av_digits import digits

        data = digits(folder, seed=seed, noisy=False, train=WRITTEN)
        return translation(data, "region", ["frame"], exchange=True, name=name)
    from ..datasets.tuxpaint import groups, stamps

    data = stamps(folder, cache=cache)
    source, target = ("token", "region") if name == "tuxpaint" else ("region", "token")
    return translation(data, target, [source], name=name, groups=groups(folder))
