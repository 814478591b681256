"""Reading RDF into integer arrays: entities, relations, edges and labels.

The parser is pyoxigraph's, which is strict; a file is read whole or not at all. Only N-Triples, N-Quads and
Turtle are read: RDF/XML can blow up through entity definitions, JSON-LD through nesting and remote contexts.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyoxigraph as ox
from numpy.typing import NDArray

from ..errors import HetgraphError
from .streams import Bounded, opened

LABELS = ("http://www.w3.org/2000/01/rdf-schema#label", "http://www.w3.org/2004/02/skos/core#prefLabel")
MAX_LITERAL = 1 << 20  # bytes in UTF-8
MAX_UNPACKED = 1 << 32  # bytes that a .gz may unpack to

_FORMATS = {
    **dict.fromkeys(("nt", "ntriples", "n-triples"), ox.RdfFormat.N_TRIPLES),
    **dict.fromkeys(("ttl", "turtle"), ox.RdfFormat.TURTLE),
    **dict.fromkeys(("nq", "nquads", "n-quads"), ox.RdfFormat.N_QUADS),
}
_UNSAFE = {
    **dict.fromkeys(("rdf", "xml", "owl", "rdf/xml", "rdfxml"), "RDF/XML"),
    **dict.fromkeys(("jsonld", "json", "json-ld"), "JSON-LD"),
}


@dataclass(frozen=True, eq=False)
class TripleGraph:
    """A knowledge graph of N entities, R relations and E edges; no edge twice.

    Args:
        entities: N names in order of appearance: IRIs, and ``_:b0``, ``_:b1`` ... for blank nodes.
        relations: R IRIs in order of appearance.
        heads, relation_ids, tails: int64 [E], edge e goes from ``heads[e]`` to ``tails[e]``.
        labels: entity -> its labels (rdfs:label, skos:prefLabel) in order of appearance.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    heads: NDArray[np.int64]
    relation_ids: NDArray[np.int64]
    tails: NDArray[np.int64]
    labels: dict[int, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.heads)

    def __repr__(self) -> str:
        return f"TripleGraph({len(self.entities)} entities, {len(self.relations)} relations, {len(self)} edges)"

    @cached_property
    def index(self) -> dict[str, int]:
        """Entity name -> its number."""
        return {name: i for i, name in enumerate(self.entities)}

    @cached_property
    def _arcs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Edges grouped by head, then again by tail: offsets [2N+1] and edge numbers [2E].

        Entity i's outgoing edges are group i, its incoming ones group N+i.
        """
        n = len(self.entities)
        group = np.concatenate([self.heads, self.tails + n])
        order = np.argsort(group, kind="stable")
        offsets = np.zeros(2 * n + 1, dtype=np.int64)
        np.cumsum(np.bincount(group, minlength=2 * n), out=offsets[1:])
        return offsets, order % max(len(self), 1)

    def _edges_of(self, nodes: Iterable[int], incoming: bool) -> NDArray[np.int64]:
        offsets, edges = self._arcs
        shift = len(self.entities) if incoming else 0
        parts = [edges[offsets[n + shift] : offsets[n + shift + 1]] for n in nodes]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def subgraph(
        self, seeds: Iterable[int], hops: int = 1, max_nodes: int = 64
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The entities within some hops of the seeds, along and against the edges, and the edges between them.

        Args:
            seeds: entity numbers; a repeated one counts once.
            hops: how many edges to walk at most.
            max_nodes: stop there. Near entities come before far ones, then lower numbers before higher ones.

        Returns:
            Entity numbers int64 [M], seeds first; edges int64 [2, K], rows head and tail, counted in the
            former; and relation numbers int64 [K]. Edges keep the order they have in the graph.

        Raises:
            HetgraphError: an unknown seed, more seeds than ``max_nodes``, or a negative number.
        """
        nodes = list(dict.fromkeys(int(s) for s in seeds))
        wrong = [s for s in nodes if not 0 <= s < len(self.entities)]
        if wrong:
            raise HetgraphError(f"seeds {wrong[:5]} are not entities; there are {len(self.entities)}")
        if hops < 0 or max_nodes < len(nodes):
            raise HetgraphError(f"{len(nodes)} seeds need hops >= 0, got {hops}, and max_nodes, got {max_nodes}")
        known, ring = set(nodes), nodes
        for _ in range(hops):
            tails = self.tails[self._edges_of(ring, incoming=False)]
            heads = self.heads[self._edges_of(ring, incoming=True)]
            reached = np.unique(np.concatenate([tails, heads])).tolist()
            ring = [n for n in reached if n not in known][: max_nodes - len(nodes)]
            known.update(ring)
            nodes = nodes + ring
            if not ring:
                break
        chosen = np.array(nodes, dtype=np.int64)
        edges = np.sort(self._edges_of(nodes, incoming=False))
        edges = edges[np.isin(self.tails[edges], chosen)]
        order = np.argsort(chosen)
        ends = np.stack([self.heads[edges], self.tails[edges]])
        local = order[np.searchsorted(chosen[order], ends)]
        return chosen, local.astype(np.int64), self.relation_ids[edges]


def read_triples(
    source: str | os.PathLike[str] | bytes | IO[bytes], format: str | None = None, base: str | None = None
) -> TripleGraph:
    """Read N-Triples, Turtle or N-Quads, gzipped or not.

    A triple between resources is an edge; rdfs:label and skos:prefLabel give labels; other literals are
    checked and left out. The graph names of N-Quads are dropped. Blank nodes are renamed, because a parser
    makes up their names.

    Args:
        source: a path, the bytes themselves, or a file opened in binary mode (left open).
        format: "nt", "ttl" or "nq"; ``None`` goes by the file's name (``.nt``, ``.ttl.gz``).
        base: the IRI that relative ones are resolved against.

    Raises:
        HetgraphError: a malformed line (with its number), a literal over 1 MiB, a relative IRI without base,
            an unknown or unsafe format, a file that cannot be read. Nothing is kept then.
    """
    if not isinstance(source, (str, os.PathLike, bytes)) and not hasattr(source, "read"):
        raise HetgraphError(f"triples come from a path, bytes or a binary file, not {type(source).__name__}")
    named = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    name = os.fspath(named) if isinstance(named, (str, os.PathLike)) else "triples"
    with _errors_of(name), opened(source) as stream:
        rdf = _format(format, name)
        packed = source[:2] == b"\x1f\x8b" if isinstance(source, bytes) else name.endswith(".gz")
        plain = gzip.GzipFile(fileobj=stream) if packed else stream
        limit = MAX_UNPACKED if packed else float("inf")
        return _collect(ox.parse(input=Bounded(plain, limit), format=rdf, base_iri=base))  # type: ignore[arg-type]


def _format(given: str | None, name: str) -> ox.RdfFormat:
    suffix = Path(name.removesuffix(".gz")).suffix.removeprefix(".")
    asked = (suffix if given is None else given).lower()
    if asked in _UNSAFE:
        raise HetgraphError(f"{_UNSAFE[asked]} is not read because it is unsafe; convert it to N-Triples")
    if asked not in _FORMATS:
        raise HetgraphError(f"unknown format {asked!r}; format= takes 'nt', 'ttl' or 'nq'")
    return _FORMATS[asked]


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    try:
        yield
    except SyntaxError as error:
        raise HetgraphError(f"{name}: {error.msg}") from error
    except MemoryError as error:
        raise HetgraphError(f"{name}: a literal or IRI is far over {MAX_LITERAL} bytes ({error})") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise HetgraphError(f"{name}: {error}") from error


def _collect(quads: Iterable[Any]) -> TripleGraph:
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    blanks: dict[str, str] = {}
    edges: dict[tuple[int, int, int], None] = {}
    labels: dict[int, dict[str, None]] = {}

    def number(node: Any) -> int:
        if isinstance(node, ox.NamedNode):
            name = node.value
        elif isinstance(node, ox.BlankNode):
            name = blanks.setdefault(node.value, f"_:b{len(blanks)}")
        else:
            raise HetgraphError(f"a statement about a statement is not supported: {str(node)[:80]}")
        return entities.setdefault(name, len(entities))

    for quad in quads:
        head, relation, value = number(quad.subject), quad.predicate.value, quad.object
        if isinstance(value, ox.Literal):
            text = value.value
            if len(text) > MAX_LITERAL // 4 and len(text.encode()) > MAX_LITERAL:
                raise HetgraphError(f"a literal of {quad.subject} has over {MAX_LITERAL} bytes")
            if relation in LABELS:
                labels.setdefault(head, {})[text] = None
        else:
            tail = number(value)
            edges[head, relations.setdefault(relation, len(relations)), tail] = None
    table = np.array(list(edges), dtype=np.int64).reshape(-1, 3)
    heads, relation_ids, tails = np.ascontiguousarray(table.T)
    return TripleGraph(
        tuple(entities), tuple(relations), heads, relation_ids, tails, {i: list(t) for i, t in labels.items()}
    )
