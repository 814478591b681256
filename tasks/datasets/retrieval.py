"""Data sets for retrieval across modalities: samples, their modalities, and what counts as found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from ...errors import HetgraphError
from ...sample import Sample
from . import Dataset


@dataclass(frozen=True)
class Pooled:
    """How the nodes of a type become one vector for the closed-form maps.

    Attributes:
        segments: beside the mean over all nodes the means of so many equal stretches of them; 0: none.
        spread: also the standard deviation over the nodes.
        scale: ``"each"``: every feature gets deviation 1; ``"all"``: one factor for all (for histograms and word
            counts, where rare entries would become loud, and for principal components, where faint ones would).
        count: also the logarithm of one more than the number of nodes (of frames: how long it lasts).
        first: only so many features of a node, the first ones; 0: all.
    """

    segments: int = 0
    spread: bool = False
    scale: str = "each"
    count: bool = False
    first: int = 0


@dataclass(frozen=True, eq=False)
class RetrievalData(Dataset):
    """A :class:`~hetgraph.tasks.datasets.Dataset` whose samples are to be found by some of their modalities.

    Attributes:
        views: modality -> the node types it is made of; a query or a candidate is a sample with some modalities.
        relevance: ``"group"``: what has the query's group is right, and one sample per group is asked for and looked
            through; ``"target"``: what has the query's target is right.
        pooled: node type -> how it enters the closed-form maps; types that are missing do not.
        weights: modality -> its weight in the closed-form maps, 1 where nothing is said.
        ridges: modality -> the ridge of its closed-form map, where it is another one than the settings'.
        kernels: modality -> so many landmarks (training items) of a Gaussian kernel; its maps are linear in the
            kernel's features (:func:`hetgraph.tasks.retrieval.linear.nystrom`) instead of in the pooled nodes.

    ``about`` has of every sample its ``group`` and its ``title``.
    """

    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    relevance: str = "group"
    pooled: Mapping[str, Pooled] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    ridges: Mapping[str, float] = field(default_factory=dict)
    kernels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owned = [name for types in self.views.values() for name in types]
        if unknown := sorted(set(owned) - set(self.schema.nodes)):
            raise HetgraphError(f"{self.name}: a modality has the node type {unknown[0]!r}, which the schema has not")
        if len(set(owned)) != len(owned) or len(self.views) < 2:
            raise HetgraphError(f"{self.name}: expected two or more modalities without a common node type")
        for name in ("weights", "ridges", "kernels"):
            if strange := sorted(set(getattr(self, name)) - set(self.views)):
                raise HetgraphError(f"{self.name}: {name} of {strange[0]!r}; modalities are {', '.join(self.views)}")
        if self.relevance not in ("group", "target"):
            raise HetgraphError(f"{self.name}: relevance must be 'group' or 'target', got {self.relevance!r}")

    def keys(self, samples: Sequence[Sample]) -> list[str]:
        """What must be equal for a sample to be right, one per sample.

        Raises:
            HetgraphError: nothing is known of a sample.
        """
        out = []
        for sample in samples:
            known = sample.target if self.relevance == "target" else self.about.get(str(sample.id), {}).get("group")
            if known is None:
                raise HetgraphError(f"{self.name}: {sample.label}: no {self.relevance}")
            out.append(str(known))
        return out

    def asked(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that are asked for and looked through: the first of every group, or all of them."""
        if self.relevance == "target":
            return list(samples)
        first: dict[str, Sample] = {}
        for sample, key in zip(samples, self.keys(samples), strict=True):
            first.setdefault(key, sample)
        return list(first.values())

    def has(self, sample: Sample, view: str) -> bool:
        """Whether a sample has any node of a modality."""
        return any(name in sample.nodes and len(sample.nodes[name]["x"]) for name in self.views[view])


READERS = {"wikipedia": ("wikipedia", "pairs"), "tuxpaint": ("tuxpaint_retrieval", "items")}
"""Name -> module and function."""


def load(name: str, folder: str | Path | None = None, *, cache: str | Path | None = None) -> RetrievalData:
    """A data set for retrieval by name.

    Args:
        name: a key of :data:`READERS`.
        folder: where its files lie; default: ``wiki_retrieval`` or ``tuxpaint_stamps`` in ``$HETGRAPH_DATA``.
        cache: keeps what encoders compute.

    Raises:
        HetgraphError: an unknown name, or a file that is missing or wrong.
    """
    if name not in READERS:
        raise HetgraphError(f"no data set {name!r} for retrieval; known: {', '.join(READERS)}")
    module, function = READERS[name]
    made = getattr(import_module(f".{module}", __package__), function)(folder, cache=cache)
    assert isinstance(made, RetrievalData)
    return made
