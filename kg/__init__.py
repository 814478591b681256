"""Knowledge graphs: reading triples, cutting subgraphs, linking text to entities."""

from .linking import Linker
from .triples import TripleGraph, read_triples

__all__ = ["Linker", "TripleGraph", "read_triples"]
