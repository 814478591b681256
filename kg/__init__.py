"""Knowledge graphs: loading, storing and asking, cutting subgraphs, linking text to entities."""

from .convert import from_networkx, from_rdflib, from_triples, to_networkx, to_pyg, to_rdflib
from .csr import KnowledgeGraph, Literal
from .endpoint import SparqlEndpoint
from .errors import (
    EmptyGraphWarning,
    EndpointError,
    EndpointQueryError,
    EndpointTimeout,
    EndpointUnavailable,
    KnowledgeError,
    LiteralTooLarge,
    ParseError,
    QueryError,
    QueryTimeout,
    ResponseTooLarge,
    UnsafeInputError,
)
from .linking import Linker
from .load import load_kg
from .store import Table, TripleStore
from .streams import Limits
from .triples import TripleGraph, read_triples

__all__ = [
    "EmptyGraphWarning",
    "EndpointError",
    "EndpointQueryError",
    "EndpointTimeout",
    "EndpointUnavailable",
    "KnowledgeError",
    "KnowledgeGraph",
    "Limits",
    "Linker",
    "Literal",
    "LiteralTooLarge",
    "ParseError",
    "QueryError",
    "QueryTimeout",
    "ResponseTooLarge",
    "SparqlEndpoint",
    "Table",
    "TripleGraph",
    "TripleStore",
    "UnsafeInputError",
    "from_networkx",
    "from_rdflib",
    "from_triples",
    "load_kg",
    "read_triples",
    "to_networkx",
    "to_pyg",
    "to_rdflib",
]
