"""Knowledge graphs from and to other libraries: rdflib, networkx, PyG. Each is imported when it is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from .csr import LABELS, KnowledgeGraph
from .errors import KnowledgeError
from .triples import TripleGraph

if TYPE_CHECKING:
    import networkx as nx
    import rdflib
    from torch_geometric.data import Data

_IRI = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>"{}|\\^`]*')
_STRING = "http://www.w3.org/2001/XMLSchema#string"
RDFS_LABEL = LABELS[1]


def from_triples(graph: TripleGraph) -> KnowledgeGraph:
    """From the arrays of :func:`hetgraph.kg.read_triples`; labels lose their language there."""
    from .load import Collected

    collected = Collected()
    collected.add_rows(
        (graph.entities[h], graph.relations[r], graph.entities[t])
        for h, r, t in zip(graph.heads.tolist(), graph.relation_ids.tolist(), graph.tails.tolist(), strict=True)
    )
    for entity, labels in graph.labels.items():
        for text in labels:
            collected.add_literal(collected.entities(graph.entities[entity]), RDFS_LABEL, "", text)
            collected.statements += 1
    return collected.finish()


def from_rdflib(graph: rdflib.Graph) -> KnowledgeGraph:
    """From a graph of rdflib; those of a dataset are merged. Literals keep the form that rdflib has them in.

    Raises:
        KnowledgeError: a literal as subject, or a quoted graph.
    """
    import rdflib

    from .load import Collected

    collected = Collected()
    blanks: dict[str, str] = {}

    def name(node: Any) -> str:
        if isinstance(node, rdflib.BNode):
            return blanks.setdefault(str(node), f"_:b{len(blanks)}")
        if isinstance(node, rdflib.URIRef):
            return str(node)
        raise KnowledgeError(f"{type(node).__name__} {str(node)[:80]!r} cannot be an end of an arc")

    every = graph.quads() if isinstance(graph, rdflib.Dataset) else graph.triples((None, None, None))
    for subject, predicate, value, *_ in every:
        if isinstance(value, rdflib.Literal):
            kind = "" if value.datatype is None or str(value.datatype) == _STRING else str(value.datatype)
            tag = f"@{value.language}" if value.language else kind
            collected.statements += 1
            collected.add_literal(collected.entities(name(subject)), str(predicate), tag, str(value))
        else:
            collected.add_rows([(name(subject), str(predicate), name(value))])
    return collected.finish()


def to_rdflib(graph: KnowledgeGraph, base: str | None = None) -> rdflib.Graph:
    """As an rdflib graph; literals keep their lexical form.

    Args:
        graph: any.
        base: is put before names that are no IRIs, as tables have them.

    Raises:
        KnowledgeError: such a name without ``base``.
    """
    import rdflib

    def iri(name: str) -> rdflib.URIRef:
        if _IRI.fullmatch(name):
            return rdflib.URIRef(name)
        if base is None:
            raise KnowledgeError(f"{name[:80]!r} is no IRI and there is no base= to make it one")
        return rdflib.URIRef(base + quote(name, safe=""))

    def node(name: str) -> Any:
        return rdflib.BNode(name[2:]) if name.startswith("_:") else iri(name)

    out = rdflib.Graph()
    for head, relation, tail in graph.arcs():
        out.add((node(head), iri(relation), node(tail)))
    for entity in np.flatnonzero(np.diff(graph.literals.offsets)).tolist():
        subject = node(graph.entities[entity])
        for value in graph.values(entity):
            literal = rdflib.Literal(
                value.text,
                lang=value.language or None,
                datatype=rdflib.URIRef(value.datatype) if value.datatype else None,
                normalize=False,
            )
            out.add((subject, iri(value.attribute), literal))
    return out


def from_networkx(graph: nx.Graph) -> KnowledgeGraph:
    """From a graph of networkx: an arc for each edge, an undirected one from its first end to its second.

    An arc's relation is the edge's attribute ``relation``, else the edge's key if it is a string, else ``"edge"``.
    A node's labels are its attribute ``label``, a string or a list; ``literals`` (as :func:`to_networkx`
    gives them) goes before it.

    Raises:
        KnowledgeError: two nodes whose names are the same string.
    """
    from .load import Collected

    collected = Collected()
    for node, data in graph.nodes(data=True):
        if str(node) in collected.entities.ids:
            raise KnowledgeError(f"two nodes are called {str(node)!r}")
        entity = collected.entities(str(node))
        label = data.get("label", ())
        labels = [label] if isinstance(label, str) else label
        for attribute, text, language, datatype in data.get("literals", [(RDFS_LABEL, t, "", "") for t in labels]):
            collected.add_literal(entity, attribute, f"@{language}" if language else datatype, text)
            collected.statements += 1
    edges = graph.edges(keys=True, data=True) if graph.is_multigraph() else graph.edges(data=True)
    for source, target, *key, data in edges:
        named = key[0] if key and isinstance(key[0], str) else "edge"
        collected.add_rows([(str(source), str(data.get("relation", named)), str(target))])
    return collected.finish()


def to_networkx(graph: KnowledgeGraph) -> nx.MultiDiGraph:
    """A ``MultiDiGraph`` of names, with the relation as the key and as the attribute ``relation`` of an edge.

    A node has the attributes ``label`` (one to show) and ``literals``: tuples of attribute, text, language, datatype.
    """
    import networkx as nx

    out = nx.MultiDiGraph()
    for entity, name in enumerate(graph.entities):
        out.add_node(name, label=graph.label(entity), literals=[tuple(value) for value in graph.values(entity)])
    out.add_edges_from((head, tail, relation, {"relation": relation}) for head, relation, tail in graph.arcs())
    return out


def to_pyg(graph: KnowledgeGraph) -> Data:
    """A PyG ``Data`` as its relational layers take it: ``edge_index [2, E]``, ``edge_type [E]``, ``num_nodes``.

    Numbers are those of the graph's ``entities`` and ``relations``.
    """
    import torch
    from torch_geometric.data import Data

    ends = np.stack([graph.heads, graph.out.nodes]).astype(np.int64)
    kinds = graph.out.types.astype(np.int64)
    return Data(edge_index=torch.from_numpy(ends), edge_type=torch.from_numpy(kinds), num_nodes=graph.num_entities)
