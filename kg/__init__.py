"""Knowledge graphs: loading, storing and asking, cutting subgraphs, linking, and from there into samples."""

from .attach import Knowledge, LabelFeatures
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
from .linking import AliasLinker, Link, Linker
from .linking_chain import ChainLinker, RegionLinker
from .linking_dense import DenseLinker
from .linking_typos import TypoLinker
from .load import load_kg
from .retrieval import KHopRetriever, PathRetriever, PPRRetriever, Rerank, Subgraph
from .steiner import SteinerRetriever
from .store import Table, TripleStore
from .streams import Limits
from .triples import TripleGraph, read_triples

__all__ = [
    "AliasLinker",
    "ChainLinker",
    "DenseLinker",
    "EmptyGraphWarning",
    "EndpointError",
    "EndpointQueryError",
    "EndpointTimeout",
    "EndpointUnavailable",
    "KHopRetriever",
    "Knowledge",
    "KnowledgeError",
    "KnowledgeGraph",
    "LabelFeatures",
    "Limits",
    "Link",
    "Linker",
    "Literal",
    "LiteralTooLarge",
    "PPRRetriever",
    "ParseError",
    "PathRetriever",
    "QueryError",
    "QueryTimeout",
    "RegionLinker",
    "Rerank",
    "ResponseTooLarge",
    "SparqlEndpoint",
    "SteinerRetriever",
    "Subgraph",
    "Table",
    "TripleGraph",
    "TripleStore",
    "TypoLinker",
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
