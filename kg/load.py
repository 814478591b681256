"""Loading a knowledge graph from whatever holds one."""

from __future__ import annotations

import os
import warnings
from array import array
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pyoxigraph as ox

from .building import Raw, build
from .csr import KnowledgeGraph, Report
from .errors import EmptyGraphWarning, KnowledgeError
from .parsing import BY_LINE, TABLES, format_of, named, rows, statements
from .streams import Limits
from .strings import Numbering

FIRST = 5  # so many faults are kept when malformed lines are left out
_STRING = "http://www.w3.org/2001/XMLSchema#string"


def load_kg(
    source: Any,
    *,
    format: str | None = None,
    base: str | None = None,
    limits: Limits | None = None,
    on_error: str = "raise",
    contexts: Mapping[str, Any] | None = None,
    named_graphs: str | Collection[str] = "merge",
    languages: Collection[str] | None = None,
) -> KnowledgeGraph:
    """Load a knowledge graph, whole or not at all; nothing is fetched from anywhere.

    Args:
        source: a path, bytes or a binary file with Turtle, N-Triples, N-Quads, TriG, RDF/XML, JSON-LD or a table
            (CSV, TSV) of head, relation and tail, gzipped or not; a list of such; an rdflib or networkx graph; a
            ``TripleGraph``. Blank nodes of different files stay apart. A graph that was saved
            (``.npz``) is mapped.
        format: "nt", "nq", "ttl", "trig", "rdf", "jsonld", "csv" or "tsv"; ``None`` goes by the file's name.
        base: the IRI that relative ones are resolved against.
        limits: how much a source may hold.
        on_error: "skip" leaves out malformed lines of N-Triples, N-Quads and tables and counts them in ``report``.
        contexts: the remote contexts that a JSON-LD file may name: address -> dict.
        named_graphs: "merge" forgets which named graph a statement is in, "default" takes only those in none,
            names take only those in these.
        languages: keep literals in these only, and those without a language.

    Raises:
        ParseError: malformed, with file, line and column; UnsafeInputError: could crash or reach for the network;
            LiteralTooLarge; KnowledgeError: anything else.
    """
    if on_error not in ("raise", "skip"):
        raise KnowledgeError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if isinstance(named_graphs, str) and named_graphs not in ("merge", "default"):
        raise KnowledgeError(f"named_graphs must be 'merge', 'default' or a list of names, got {named_graphs!r}")
    if isinstance(languages, str):
        raise KnowledgeError(f"languages must be a list, got {languages!r}")
    if isinstance(source, (str, os.PathLike)) and format is None and os.fspath(source).endswith(".npz"):
        return KnowledgeGraph.load(source)  # type: ignore[arg-type]
    collected = Collected(named_graphs, languages)
    parts = source if isinstance(source, (list, tuple)) else [source]
    for part in parts:
        made = _from_object(part)
        if made is not None:
            if len(parts) > 1:
                raise KnowledgeError(f"a list of sources takes paths, bytes and files, not {type(part).__name__}")
            return made
        kind = format_of(part, format)
        if on_error == "skip" and kind not in (*BY_LINE, *TABLES):
            raise KnowledgeError(f"{named(part)}: on_error='skip' needs a format with a statement in each line")
        skip = collected.skip if on_error == "skip" else None
        if isinstance(kind, str):
            collected.add_rows(rows(part, format=kind, limits=limits, skip=skip))
        else:
            collected.add(statements(part, format=format, base=base, limits=limits, contexts=contexts, skip=skip))
    graph = collected.finish()
    if not len(graph) and not len(graph.literals.texts):
        warnings.warn(f"{', '.join(map(named, parts))}: no statement in it", EmptyGraphWarning, stacklevel=2)
    return graph


def _from_object(source: Any) -> KnowledgeGraph | None:
    """A graph of another library, or ``None`` if it is something to read."""
    from . import convert
    from .triples import TripleGraph

    if isinstance(source, KnowledgeGraph):
        return source
    if isinstance(source, TripleGraph):
        return convert.from_triples(source)
    # the libraries are imported only where somebody has a graph of theirs
    family = {base.__module__.split(".")[0] for base in type(source).__mro__}
    if "rdflib" in family:
        return convert.from_rdflib(source)
    if "networkx" in family:
        return convert.from_networkx(source)
    if not isinstance(source, (str, os.PathLike, bytes)) and not hasattr(source, "read"):
        raise KnowledgeError(
            f"a knowledge graph comes from a path, bytes, a file or a graph, not {type(source).__name__}"
        )
    return None


class Collected:
    """Statements as numbers, in order of appearance.

    Args:
        named_graphs, languages: as in :func:`load_kg`.
    """

    def __init__(self, named_graphs: str | Collection[str] = "merge", languages: Collection[str] | None = None) -> None:
        self._graphs = named_graphs if isinstance(named_graphs, str) else frozenset(named_graphs)
        self._languages = None if languages is None else {language.lower() for language in languages}
        self.entities, self.relations, self.attributes = Numbering(), Numbering(), Numbering()
        self.tags, self.forms = Numbering(), Numbering()
        # head, relation, tail one after the other: four bytes each instead of a tuple
        self._arcs, self._literals = array("i"), array("i")
        self._blanks = 0
        self.statements = self.skipped = self.other = 0
        self.first: list[str] = []

    def skip(self, message: str) -> None:
        """Count a statement that is left out."""
        self.skipped += 1
        if len(self.first) < FIRST:
            self.first.append(message)

    def add(self, quads: Iterable[Any]) -> None:
        """Take in the quads of one source; its blank nodes are other ones than those of the sources before."""
        blanks: dict[str, int] = {}
        entities, relations = self.entities.ids, self.relations.ids
        blank, literal, merge, take = ox.BlankNode, ox.Literal, self._graphs == "merge", self._arcs.append
        count = 0

        def number(node: Any) -> int:
            if node.value not in blanks:
                blanks[node.value] = self.entities(f"_:b{self._blanks}")
                self._blanks += 1
            return blanks[node.value]

        for quad in quads:
            count += 1
            if not merge and not self._wanted(quad.graph_name):
                continue
            subject, value = quad.subject, quad.object
            kind = type(value)
            if kind is literal:
                self._add_literal(subject, quad.predicate.value, value, number)
                continue
            head = number(subject) if type(subject) is blank else entities.setdefault(subject.value, len(entities))
            tail = number(value) if kind is blank else entities.setdefault(value.value, len(entities))
            take(head)
            take(relations.setdefault(quad.predicate.value, len(relations)))
            take(tail)
        self.statements += count

    def _add_literal(self, subject: Any, attribute: str, value: Any, number: Any) -> None:
        language = value.language
        if language and self._languages is not None and language.lower() not in self._languages:
            self.other += 1
            return
        head = number(subject) if type(subject) is ox.BlankNode else self.entities(subject.value)
        kind = "" if (datatype := value.datatype.value) == _STRING else datatype
        self.add_literal(head, attribute, f"@{language}" if language else kind, value.value)

    def add_literal(self, entity: int, attribute: str, tag: str, text: str) -> None:
        """Take in one literal; its tag is ``@language``, the datatype, or empty."""
        self._literals.extend((entity, self.attributes(attribute), self.tags(tag), self.forms(text)))

    def add_rows(self, triples: Iterable[tuple[str, str, str]]) -> None:
        """Take in triples of names."""
        for head, relation, tail in triples:
            self.statements += 1
            self._arcs.extend((self.entities(head), self.relations(relation), self.entities(tail)))

    def _wanted(self, graph: Any) -> bool:
        if isinstance(graph, ox.DefaultGraph):
            return self._graphs == "default"
        return isinstance(self._graphs, frozenset) and graph.value in self._graphs

    def finish(self) -> KnowledgeGraph:
        """The graph of everything taken in."""
        arcs = np.frombuffer(self._arcs, np.int32).reshape(-1, 3) if self._arcs else np.empty((0, 3), np.int32)
        table = np.frombuffer(self._literals, np.int32).reshape(-1, 4) if self._literals else np.empty((0, 4), np.int32)
        report = Report(self.statements, self.skipped, tuple(self.first), self.other)
        raw = Raw(self.entities, self.relations, arcs, table, self.attributes, self.tags, self.forms)
        return build(raw, report)
