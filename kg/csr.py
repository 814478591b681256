"""A knowledge graph as integer arrays: compressed rows in both directions, names and literals beside them.

Nothing in it changes, nothing depends on the order of the statements it was made from: entities, relations, attributes
and literals are numbered in the order of their names, arcs are sorted, none is there twice.

Shapes: N entities, R relations, E arcs, A attributes (predicates with literals), L literals.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import KnowledgeError
from .strings import Numbering, Strings

if TYPE_CHECKING:
    from pathlib import Path

RDFS, SKOS = "http://www.w3.org/2000/01/rdf-schema#", "http://www.w3.org/2004/02/skos/core#"
LABELS = (f"{SKOS}prefLabel", f"{RDFS}label", f"{SKOS}altLabel")
"""Predicates whose literals are labels, the preferred one first."""


class Literal(NamedTuple):
    """A statement with a literal: the predicate, the lexical form as it was written, and its language or datatype."""

    attribute: str
    text: str
    language: str = ""
    datatype: str = ""


def short(name: str) -> str:
    """The end of a name, after its last slash, hash or colon."""
    end = re.split("[/#]", name.rstrip("/#:"))[-1]
    return name if name.startswith("_:") else end.rsplit(":", 1)[-1] or name


@dataclass(frozen=True, eq=False)
class Rows:
    """Arcs grouped by the entity at one end; in a group they are sorted by the other end, then by relation.

    Args:
        offsets: ``[N + 1]``; entity i has the arcs ``offsets[i] .. offsets[i + 1]``.
        nodes: ``[E]``, the other ends.
        types: ``[E]``, the relations.
    """

    offsets: NDArray[Any]
    nodes: NDArray[Any]
    types: NDArray[Any]

    def degree(self) -> NDArray[np.int64]:
        """Arcs of every entity ``[N]``."""
        return np.diff(self.offsets).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Literals:
    """The literals of all entities, grouped by entity.

    Args:
        offsets: ``[N + 1]``; entity i has the literals ``offsets[i] .. offsets[i + 1]``.
        attributes: int32 ``[L]``, places in the graph's ``attributes``.
        tags: int32 ``[L]``, places in ``kinds``.
        texts: ``[L]``, places in ``forms``.
        kinds: ``""`` for plain strings, ``@en`` for a language, an IRI for a datatype.
        forms: the distinct lexical forms.
    """

    offsets: NDArray[Any]
    attributes: NDArray[Any]
    tags: NDArray[Any]
    texts: NDArray[Any]
    kinds: Strings
    forms: Strings


@dataclass(frozen=True)
class Report:
    """What loading found.

    Attributes:
        statements: read, with repeated ones.
        skipped: left out because they were malformed or too large.
        first: what was wrong with the first few of them.
        other_languages: literals left out because of their language.
    """

    statements: int = 0
    skipped: int = 0
    first: tuple[str, ...] = ()
    other_languages: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class KnowledgeGraph:
    """An immutable knowledge graph; :func:`hetgraph.kg.load_kg` makes one.

    Args:
        entities: N names, sorted: IRIs, ``_:b0`` ... for blank nodes, or whatever a table calls them.
        relations: R names, sorted.
        attributes: A predicates of literals, sorted.
        out, into: the E arcs by their heads and by their tails.
        literals: labels and all other literals.
        report: what loading found.
        file: where the arrays are mapped from.
    """

    entities: Strings
    relations: Strings
    attributes: Strings
    out: Rows
    into: Rows
    literals: Literals
    report: Report = field(default_factory=Report)
    file: Path | None = None

    @classmethod
    def from_arcs(
        cls, heads: ArrayLike, relations: ArrayLike, tails: ArrayLike, entities: Sequence[str], names: Sequence[str]
    ) -> KnowledgeGraph:
        """From numbered arcs.

        Args:
            heads, relations, tails: integers ``[E]``.
            entities: the name that belongs to each number of an end.
            names: the name that belongs to each number of a relation.

        Raises:
            KnowledgeError: arrays of different lengths, numbers without a name, or a name twice.
        """
        from .building import Raw, build

        parts = [np.asarray(part) for part in (heads, relations, tails)]
        ends, kinds = Numbering(entities), Numbering(names)
        for what, given, known in (("entities", entities, ends), ("names", names, kinds)):
            if len(known.ids) != len(given):
                raise KnowledgeError(f"{what}: {len(given)} names, only {len(known.ids)} of them distinct")
        for what, part, count in zip(
            ("heads", "relations", "tails"), parts, (len(entities), len(names), len(entities)), strict=True
        ):
            if part.ndim != 1 or len(part) != len(parts[0]) or (part.size and part.dtype.kind not in "iu"):
                raise KnowledgeError(
                    f"{what}: expected integers [{len(parts[0])}], got {part.dtype} {list(part.shape)}"
                )
            if part.size and not (part.min() >= 0 and part.max() < count):
                raise KnowledgeError(f"{what}: {part.min()} .. {part.max()} where there are {count} names")
        return build(Raw(ends, kinds, np.stack(parts, axis=1).astype(np.int64, copy=False)))

    def __len__(self) -> int:
        return len(self.out.nodes)

    @property
    def num_entities(self) -> int:
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        return len(self.relations)

    def __repr__(self) -> str:
        return (
            f"KnowledgeGraph({self.num_entities:,} entities, {self.num_relations:,} relations, {len(self):,} arcs, "
            f"{len(self.literals.texts):,} literals)"
        )

    @cached_property
    def heads(self) -> NDArray[Any]:
        """The heads of all arcs ``[E]``, in the order of ``out.nodes`` (their tails) and ``out.types``."""
        dtype = self.out.nodes.dtype
        return np.repeat(np.arange(self.num_entities, dtype=dtype), self.out.degree())

    def arcs(self) -> Iterable[tuple[str, str, str]]:
        """Every arc by its names: head, relation, tail."""
        entities, relations = self.entities, self.relations
        for head in range(self.num_entities):
            begin, end = self.out.offsets[head], self.out.offsets[head + 1]
            name = entities[head] if begin < end else ""
            for tail, kind in zip(self.out.nodes[begin:end], self.out.types[begin:end], strict=True):
                yield name, relations[int(kind)], entities[int(tail)]

    def numbers(self, names: Iterable[int | str]) -> list[int]:
        """Entities by number or name, as numbers.

        Raises:
            KnowledgeError: one is not in the graph.
        """
        found = []
        for name in names:
            if isinstance(name, str):
                number = self.entities.find(name)
            else:
                number = int(name) if 0 <= int(name) < self.num_entities else -1
            if number < 0:
                raise KnowledgeError(f"{name!r} is not one of the {self.num_entities} entities")
            found.append(number)
        return found

    def values(self, entity: int | str) -> list[Literal]:
        """The literals of an entity, labels too, sorted by attribute, language or datatype, and text."""
        (number,) = self.numbers([entity])
        table = self.literals
        found = []
        for row in range(int(table.offsets[number]), int(table.offsets[number + 1])):
            kind, text = table.kinds[int(table.tags[row])], table.forms[int(table.texts[row])]
            language, datatype = (kind[1:], "") if kind.startswith("@") else ("", kind)
            found.append(Literal(self.attributes[int(table.attributes[row])], text, language, datatype))
        return found

    def labels_of(self, entity: int | str, languages: Sequence[str] | None = None) -> list[str]:
        """The labels of an entity: skos:prefLabel before rdfs:label before skos:altLabel, each text once.

        Args:
            languages: only these and, where it holds ``""``, labels without one; the first ones come first.
        """
        kinds = {name: i for i, name in enumerate(LABELS)}
        wanted = None if languages is None else {language.lower(): i for i, language in enumerate(languages)}
        found = [v for v in self.values(entity) if v.attribute in kinds]
        if wanted is not None:
            found = [v for v in found if v.language.lower() in wanted]
        order = sorted(found, key=lambda v: (0 if wanted is None else wanted[v.language.lower()], kinds[v.attribute]))
        return list(dict.fromkeys(v.text for v in order))

    def label(self, entity: int | str, languages: Sequence[str] = ("", "en")) -> str:
        """One label to show: in one of the languages, else any, else the end of the name."""
        found = self.labels_of(entity, languages) or self.labels_of(entity)
        if found:
            return found[0]
        return short(self.entities[self.numbers([entity])[0]])

    @cached_property
    def labels(self) -> Mapping[int, list[str]]:
        """Entity -> its labels, for all that have one."""
        names = [self.attributes.find(name) for name in LABELS]
        rows = np.flatnonzero(np.isin(self.literals.attributes, [n for n in names if n >= 0]))
        owners = np.searchsorted(self.literals.offsets, rows, side="right") - 1
        return {int(owner): self.labels_of(int(owner)) for owner in np.unique(owners)}

    def languages(self) -> dict[str, int]:
        """Language -> how many literals are in it; ``""`` for those without."""
        counts = np.bincount(self.literals.tags, minlength=len(self.literals.kinds)).tolist()
        total: Counter[str] = Counter()
        for kind, count in zip(self.literals.kinds, counts, strict=True):
            total[kind[1:] if kind.startswith("@") else ""] += count
        return {language: count for language, count in total.items() if count}

    def of_relations(self, names: Iterable[str]) -> KnowledgeGraph:
        """The graph with nothing but the arcs of some relations; entities keep their numbers and literals.

        Args:
            names: whole names, or ends of names after a slash, hash or colon, as :func:`short` gives them.

        Raises:
            KnowledgeError: a name that no relation has, or several.
        """
        from .building import both_ways

        known = list(self.relations)
        chosen = []
        for name in dict.fromkeys(names):
            found = [i for i, own in enumerate(known) if own == name] or [
                i for i, own in enumerate(known) if short(own) == name
            ]
            if len(found) != 1:
                raise KnowledgeError(f"{name!r} names {len(found)} of the {len(known)} relations: {known[:8]}")
            chosen += found
        chosen = sorted(set(chosen))
        new = np.full(len(known), -1, np.int64)
        new[chosen] = np.arange(len(chosen))
        kinds = new[self.out.types]
        kept = kinds >= 0
        heads, tails = (part[kept].astype(np.int64) for part in (self.heads, self.out.nodes))
        out, into = both_ways(heads, kinds[kept], tails, self.num_entities, len(chosen))
        return replace(self, relations=Strings.of([known[i] for i in chosen]), out=out, into=into, file=None)

    def degree(self) -> NDArray[np.int64]:
        """Arcs at every entity ``[N]``, in both directions."""
        return self.out.degree() + self.into.degree()

    def relation_counts(self) -> dict[str, int]:
        """Relation -> its arcs, the most frequent first."""
        counts = np.bincount(self.out.types, minlength=self.num_relations)
        return {self.relations[int(i)]: int(counts[i]) for i in np.argsort(-counts, kind="stable")}

    def save(self, path: str | Path) -> None:
        """Write one ``.npz`` file, whole or not at all; :meth:`load` maps it into memory."""
        from .saved import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> KnowledgeGraph:
        """Map a file that :meth:`save` wrote; it must stay in its place while the graph is in use.

        Raises:
            KnowledgeError: no such file, or one that is damaged.
        """
        from .saved import load

        return load(path)

    def __reduce__(self) -> Any:
        from .saved import load, stamp_of, unpickled

        if self.file is not None:
            # processes that get the graph map the same file instead of copying it
            return load, (self.file, stamp_of(self))
        state = {name: getattr(self, name) for name in ("entities", "relations", "attributes", "out", "into")}
        return unpickled, ({**state, "literals": self.literals, "report": self.report},)
