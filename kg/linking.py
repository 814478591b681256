"""Entity linking: what in a text, a picture or a sound names which entity of a knowledge graph.

:class:`AliasLinker` finds names as they are spelled; :class:`~hetgraph.kg.linking_typos.TypoLinker` finds misspelled
ones, :class:`~hetgraph.kg.linking_dense.DenseLinker` similar vectors, :class:`~hetgraph.kg.linking_chain.RegionLinker`
links labels of regions and sounds, and :class:`~hetgraph.kg.linking_chain.ChainLinker` asks several in turn.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .csr import LABELS, KnowledgeGraph, short
from .errors import KnowledgeError
from .spelling import Span, Spelling
from .triples import TripleGraph


class Link(NamedTuple):
    """A mention and an entity that it may mean.

    Attributes:
        entity: number in the graph.
        score: in 0..1, the larger the surer.
        method: of the linker: ``"alias"``, ``"typo"``, ``"dense"`` or ``"region"``.
        type: node type of the mention.
        nodes: the first and the last + 1 node of the mention. For a linked text these are words as the linker counts
            them; a sample finds its own nodes by ``span``.
        span: the first and the last + 1 character of the mention; None where there is no text.
    """

    entity: int
    score: float
    method: str
    type: str
    nodes: Span
    span: Span | None = None


class TextLinker(ABC):
    """What linkers of texts share.

    Args:
        threshold: a candidate that scores less is no link (NIL).
        most: candidates of one mention at most; None gives all.
    """

    def __init__(self, threshold: float = 0.0, most: int | None = None) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise KnowledgeError(f"threshold must be in 0..1, got {threshold!r}")
        if most is not None and (not isinstance(most, int) or most < 1):
            raise KnowledgeError(f"most must be a positive integer, got {most!r}")
        self.threshold, self.most = threshold, most

    @abstractmethod
    def link(self, text: str, type: str = "token", taken: Sequence[Span] = ()) -> list[Link]:
        """Links from left to right, those of one mention by falling score, then by number.

        Args:
            text: any.
            type: node type of the text's words.
            taken: characters that belong to other mentions; no link touches them.
        """

    def link_words(self, words: Sequence[str], type: str = "token") -> list[Link]:
        """The same for a text that is cut into words already: ``nodes`` counts these words, there is no ``span``."""
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])
        found = []
        for link in self.link(" ".join(words), type):
            assert link.span is not None
            first, last = (int(np.searchsorted(starts, at, "right")) for at in (link.span[0], link.span[1] - 1))
            found.append(link._replace(nodes=(first - 1, last), span=None))
        return found

    def _chosen(self, candidates: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
        """The (entity, score) that may be links, best first."""
        kept = sorted((pair for pair in candidates if pair[1] >= self.threshold), key=lambda pair: (-pair[1], pair[0]))
        return tuple(kept[: self.most])


class AliasLinker(TextLinker):
    """Finds the names of entities in texts: at every word the longest name that begins there, and on behind it.

    Mentions are whole words and do not overlap. Several entities of one name are several candidates; the score of a
    candidate is its share of their priors, so one without rivals scores 1. No candidate over the threshold leaves
    the mention without a link: shorter names inside of it are not tried.

    Args:
        source: a graph, or pairs (name, entity) or triples (name, entity, prior); of repeated ones the largest prior
            counts. A name without a word or sign is never found.
        languages: only labels of a ``KnowledgeGraph`` in these; ``""`` stands for labels without one.
        names: also find entities without a label by the end of their name, ``_`` read as a space. Default: if the
            graph has no labels at all, as that of a table.
        prior: numbers ``[N]``, how well known the entities of a graph are, ``graph.degree() + 1`` for example.
        accents: whether accents make a difference; see :class:`~hetgraph.kg.spelling.Spelling`.
        threshold, most: see :class:`TextLinker`.

    Raises:
        KnowledgeError: a prior that is not a positive number, an entity that is no number from 0 on, or options
            that the source does not have.
    """

    def __init__(
        self,
        source: KnowledgeGraph | TripleGraph | Iterable[tuple[Any, ...]],
        *,
        languages: Sequence[str] | None = None,
        names: bool | None = None,
        prior: ArrayLike | None = None,
        accents: bool = True,
        threshold: float = 0.0,
        most: int | None = None,
    ) -> None:
        super().__init__(threshold, most)
        self.spelling = Spelling(accents)
        if not isinstance(source, KnowledgeGraph) and (languages is not None or names is not None):
            raise KnowledgeError(f"languages and names are options of a KnowledgeGraph, not of {type(source).__name__}")
        if isinstance(source, (KnowledgeGraph, TripleGraph)):
            pairs = aliases(source, languages, names)
            known = None if prior is None else _priors(prior, len(source.entities))
            triples = ((name, e, 1.0 if known is None else known[e]) for name, e in pairs)
        elif prior is not None:
            raise KnowledgeError("prior= goes with a graph; give triples (name, entity, prior)")
        else:
            triples = (_triple(row) for row in source)
        found: dict[str, dict[int, float]] = {}
        for name, entity, weight in triples:
            key = self.spelling.key(name)
            if key:
                known_as = found.setdefault(key, {})
                known_as[entity] = max(weight, known_as.get(entity, 0.0))
        self._candidates = {key: self._chosen(_shares(weights)) for key, weights in found.items()}
        lengths: dict[str, set[int]] = {}
        for key in found:
            words = key.split(" ")
            if len(words) > 1:
                lengths.setdefault(f"{words[0]} {words[1]}", set()).add(len(words))
        # first two words -> how many words the names have that begin so, the longest first
        self._lengths = {pair: tuple(sorted(some, reverse=True)) for pair, some in lengths.items()}
        self._starts = {pair.split(" ", 1)[0] for pair in self._lengths}

    def __len__(self) -> int:
        """How many names are known, those alike counted once."""
        return len(self._candidates)

    @property
    def names(self) -> Iterator[str]:
        """The names, as they are compared."""
        return iter(self._candidates)

    def lookup(self, name: str) -> tuple[tuple[int, float], ...]:
        """The candidates of a whole name: (entity, score), best first; empty if there are none."""
        return self._candidates.get(self.spelling.key(name), ())

    def link(self, text: str, type: str = "token", taken: Sequence[Span] = ()) -> list[Link]:
        read = self.spelling.read(text)
        words = read.words
        if taken:
            # no name has an empty word
            words = [word if free else "" for word, free in zip(words, free_of(taken, read.spans()), strict=True)]
        starts, lengths_of, candidates_of = self._starts, self._lengths.get, self._candidates.get
        hits: list[tuple[int, int, tuple[tuple[int, float], ...]]] = []
        count, at = len(words), 0
        while at < count:
            word = words[at]
            end, candidates = at + 1, None
            if word in starts and end < count:
                for length in lengths_of(f"{word} {words[end]}", ()):
                    if at + length <= count:
                        candidates = candidates_of(" ".join(words[at : at + length]))
                        if candidates is not None:
                            end = at + length
                            break
            if candidates is None:
                candidates = candidates_of(word)
            if candidates:
                hits.append((at, end, candidates))
            at = end
        if not hits:
            return []
        starts_at, ends_at = read.edges()
        # what Link() does, without its call for every link
        new = tuple.__new__
        return [
            new(Link, (entity, score, "alias", type, (at, end), (starts_at[at], ends_at[end - 1])))
            for at, end, candidates in hits
            for entity, score in candidates
        ]


class Linker:
    """The labels of a graph in a text, as bare numbers; all entities of a label, in the order of the graph.

    The simple form of :class:`AliasLinker`, which says what is found.

    Args:
        graph: gives the labels.
    """

    def __init__(self, graph: KnowledgeGraph | TripleGraph) -> None:
        self._linker = AliasLinker(graph)

    def link(self, text: str) -> list[tuple[int, int, int]]:
        """Mentions in a text, from left to right: (start, end, entity) with ``text[start:end]`` the mention."""
        return [(*link.span, link.entity) for link in self._linker.link(text) if link.span]

    def link_words(self, words: Sequence[str]) -> list[tuple[int, int, int]]:
        """The same for a text that is cut into words already: (first, last + 1, entity) counted in words."""
        return [(*link.nodes, link.entity) for link in self._linker.link_words(words)]


def aliases(
    graph: KnowledgeGraph | TripleGraph, languages: Sequence[str] | None = None, names: bool | None = None
) -> Iterator[tuple[str, int]]:
    """Every label with its entity, in the order of the entities; arguments as of :class:`AliasLinker`."""
    if isinstance(graph, TripleGraph):
        for entity in sorted(graph.labels):
            yield from ((label, entity) for label in graph.labels[entity])
        return
    table = graph.literals
    wanted = None if languages is None else {language.lower() for language in languages}
    kinds = [
        wanted is None or ((kind.startswith("@") or kind == "") and kind[1:].lower() in wanted) for kind in table.kinds
    ]
    labels = [number for number in map(graph.attributes.find, LABELS) if number >= 0]
    every = np.flatnonzero(np.isin(table.attributes, labels))
    rows = every[np.array(kinds, bool)[table.tags[every]]]
    owners = np.searchsorted(table.offsets, rows, side="right") - 1
    yield from zip((table.forms[int(i)] for i in table.texts[rows]), owners.tolist(), strict=True)
    if names or (names is None and not len(every)):
        bare = np.ones(graph.num_entities, bool)
        bare[np.searchsorted(table.offsets, every, side="right") - 1] = False
        for entity in np.flatnonzero(bare).tolist():
            name = graph.entities[entity]
            if not name.startswith("_:"):
                yield short(name).replace("_", " "), entity


def free_of(taken: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """Which spans none of the taken ones touches."""
    ordered = sorted(taken)
    starts = [start for start, _ in ordered]
    reach = [0, *accumulate((end for _, end in ordered), max)]
    # of those that begin before the span ends, the one that ends last
    return [reach[bisect_left(starts, end)] <= start for start, end in spans]


def _triple(row: tuple[Any, ...]) -> tuple[str, int, float]:
    name, entity, *rest = row
    prior = float(rest[0]) if rest else 1.0
    whole = isinstance(entity, (int, np.integer)) and not isinstance(entity, bool)
    if not isinstance(name, str) or not whole or entity < 0 or len(rest) > 1:
        raise KnowledgeError(f"expected (name, entity) or (name, entity, prior), got {row!r}")
    if not (prior > 0 and math.isfinite(prior)):
        raise KnowledgeError(f"{name!r}: the prior of entity {entity} must be a positive number, got {prior}")
    return name, int(entity), prior


def _priors(prior: ArrayLike, count: int) -> list[float]:
    numbers = np.asarray(prior, np.float64)
    if numbers.shape != (count,) or not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise KnowledgeError(f"prior must be [{count}] positive numbers, got {list(numbers.shape)}")
    out: list[float] = numbers.tolist()
    return out


def _shares(weights: Mapping[int, float]) -> list[tuple[int, float]]:
    if len(weights) == 1:  # one number for all of them: the tables are smaller, and quicker to read
        return [(entity, 1.0) for entity in weights]
    total = math.fsum(weights.values())
    return [(entity, weight / total) for entity, weight in weights.items()]
