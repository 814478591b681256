"""Knowledge graphs: loading, storing and asking, cutting subgraphs, linking, and from there into samples."""

from .attach import Knowledge, LabelFeatures
from .controls import permute_relations, permute_tails, random_arcs
from .convert import from_networkx, from_rdflib, from_triples, to_networkx, to_pyg, to_rdflib
from .csr import KnowledgeGraph, Literal
from .embedding_training import Trained, embed_kg, fit_embeddings
from .embeddings import EmbeddingConfig, LinkPredictor
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
from .polarity import Polarity, read_textblob, read_vader
from .ranking import Ranks, frequency_scorer, rank_triples
from .retrieval import KHopRetriever, PathRetriever, PPRRetriever, Rerank, Subgraph
from .sources import conceptnet, wordnet
from .splits import Splits, load_splits
from .steiner import SteinerRetriever
from .store import Table, TripleStore
from .streams import Limits
from .triples import TripleGraph, read_triples

__all__ = [
    "AliasLinker",
    "ChainLinker",
    "DenseLinker",
    "EmbeddingConfig",
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
    "LinkPredictor",
    "Linker",
    "Literal",
    "LiteralTooLarge",
    "PPRRetriever",
    "ParseError",
    "PathRetriever",
    "Polarity",
    "QueryError",
    "QueryTimeout",
    "Ranks",
    "RegionLinker",
    "Rerank",
    "ResponseTooLarge",
    "SparqlEndpoint",
    "Splits",
    "SteinerRetriever",
    "Subgraph",
    "Table",
    "Trained",
    "TripleGraph",
    "TripleStore",
    "TypoLinker",
    "UnsafeInputError",
    "conceptnet",
    "embed_kg",
    "fit_embeddings",
    "frequency_scorer",
    "from_networkx",
    "from_rdflib",
    "from_triples",
    "load_kg",
    "load_splits",
    "permute_relations",
    "permute_tails",
    "random_arcs",
    "rank_triples",
    "read_textblob",
    "read_triples",
    "read_vader",
    "to_networkx",
    "to_pyg",
    "to_rdflib",
    "wordnet",
]
