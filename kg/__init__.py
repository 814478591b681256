"""Knowledge graphs: loading, storing and asking, cutting subgraphs, linking text to entities."""

from .controls import permute_relations, permute_tails, random_arcs
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
from .retrieval import KHopRetriever, PathRetriever, PPRRetriever, Rerank, Subgraph
from .steiner import SteinerRetriever
from .store import Table, TripleStore
from .streams import Limits
from .triples import TripleGraph, read_triples

__all__ = [
    "EmptyGraphWarning",
    "EndpointError",
    "EndpointQueryError",
    "EndpointTimeout",
    "EndpointUnavailable",
    "KHopRetriever",
    "KnowledgeError",
    "KnowledgeGraph",
    "Limits",
    "Linker",
    "Literal",
    "LiteralTooLarge",
    "PPRRetriever",
    "ParseError",
    "PathRetriever",
    "QueryError",
    "QueryTimeout",
    "Rerank",
    "ResponseTooLarge",
    "SparqlEndpoint",
    "SteinerRetriever",
    "Subgraph",
    "Table",
    "TripleGraph",
    "TripleStore",
    "UnsafeInputError",
    "from_networkx",
    "from_rdflib",
    "from_triples",
    "load_kg",
    "permute_relations",
    "permute_tails",
    "random_arcs",
    "read_triples",
    "to_networkx",
    "to_pyg",
    "to_rdflib",
]
