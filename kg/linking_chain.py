"""Linkers made of others: for labels of regions and sounds, and several linkers in turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import KnowledgeError
from .linking import AliasLinker, Link, TextLinker
from .spelling import Span


class RegionLinker:
    """Links regions, sounds or whatever else has labels: the classes that a detector or a tagger found.

    A label means the entities that ``same`` gives it, else those that have it as a name, whole; else those of its
    parts, as classes are often called (``"tabby, tabby cat"``, ``"dog/bark"``), the first part that is known. ``_``
    is read as a space. The score is the detector's times the candidate's among the entities of that name.

    Args:
        linker: has the names.
        classes: the names of numbered classes, as a detector's attribute ``labels`` has them.
        same: label -> entity, for those that are called otherwise in the graph.
        threshold: a candidate that scores less is no link (NIL).
        most: candidates of one label at most; None gives all.
    """

    def __init__(
        self,
        linker: AliasLinker,
        classes: Mapping[int, str] | Sequence[str] = (),
        same: Mapping[str, int] | None = None,
        *,
        threshold: float = 0.0,
        most: int | None = 1,
    ) -> None:
        self.linker, self.threshold, self.most = linker, threshold, most
        self.classes = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes))
        self.same = dict(same or {})

    def entities_of(self, label: str) -> tuple[tuple[int, float], ...]:
        """The candidates of a label: (entity, score), best first; empty if there are none."""
        if label in self.same:
            return ((self.same[label], 1.0),)
        plain = label.replace("_", " ")
        parts = [part for piece in plain.split(",") for part in piece.split("/")]
        for name in (plain, *parts):
            found = self.linker.lookup(name)
            if found:
                return found
        return ()

    def link(self, labels: Iterable[Any], scores: Iterable[float] | None = None, type: str = "region") -> list[Link]:
        """Links of N nodes, in their order.

        Args:
            labels: N labels, or numbers of ``classes``; None: a node without a label.
            scores: N numbers in 0..1, how sure the detector is.
            type: node type of what has the labels.

        Raises:
            KnowledgeError: an unknown number, other than N scores, or scores out of range.
        """
        names = [self._name(label) for label in _plain(labels)]
        sure = [1.0] * len(names) if scores is None else [float(s) for s in np.ravel(np.asarray(_plain(scores)))]
        if len(sure) != len(names) or not all(0.0 <= s <= 1.0 for s in sure):
            raise KnowledgeError(f"{len(names)} labels need as many scores in 0..1, got {len(sure)}: {sure[:5]}")
        found = []
        for node, (name, score) in enumerate(zip(names, sure, strict=True)):
            candidates = [] if name is None else [(entity, score * share) for entity, share in self.entities_of(name)]
            kept = [pair for pair in candidates if pair[1] >= self.threshold][: self.most]
            found += [Link(entity, total, "region", type, (node, node + 1)) for entity, total in kept]
        return found

    def unknown(self) -> list[str]:
        """The classes that no entity stands for."""
        return [name for name in self.classes.values() if not self.entities_of(name)]

    def _name(self, label: Any) -> str | None:
        if label is None or isinstance(label, str):
            return label
        if label not in self.classes:
            raise KnowledgeError(f"label {label!r} is neither a name nor one of the {len(self.classes)} classes")
        return self.classes[label]


class ChainLinker(TextLinker):
    """Asks several linkers of texts.

    In turn: what a linker links, those after it do not touch. Together (``merge=True``): every linker sees the whole
    text and all links are given, which may overlap then; of a mention and an entity that several linkers link, the link
    with the highest score counts, between equal ones that of the first linker.

    Args:
        *linkers: the one to trust most first.
        merge: together instead of in turn.
        threshold: a link that scores less is left out (NIL).

    Raises:
        KnowledgeError: no linker.
    """

    def __init__(self, *linkers: TextLinker, merge: bool = False, threshold: float = 0.0) -> None:
        super().__init__(threshold)
        if not linkers:
            raise KnowledgeError("a chain needs at least one linker")
        self.linkers, self.merge = linkers, merge

    def link(self, text: str, type: str = "token", taken: Sequence[Span] = ()) -> list[Link]:
        best: dict[tuple[Any, ...], Link] = {}
        occupied = list(taken)
        for linker in self.linkers:
            found = [link for link in linker.link(text, type, occupied) if link.score >= self.threshold]
            for link in found:
                known = best.get((link.span, link.entity))
                if known is None or link.score > known.score:
                    best[link.span, link.entity] = link
            if not self.merge:
                occupied += [link.span for link in found if link.span is not None]
        return sorted(best.values(), key=lambda link: (link.span, -link.score, link.entity))


def _plain(values: Any) -> list[Any]:
    """A list of Python values, of a tensor or an array too."""
    out: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    return out
