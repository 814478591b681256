"""hetgraph: multimodal fusion through heterogeneous graphs.

Each sample becomes one graph whose nodes are image regions, text tokens, audio frames, knowledge-graph
entities or any type you add; message passing over it gives the joint representation Z.
"""

from .builder import GraphBuilder
from .errors import CheckpointError, HetgraphError, ManifestError, MediaError
from .fusion import Fusion, FusionOutput
from .graph import Graph
from .sample import Sample
from .schema import EdgeType, NodeType, Schema

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "EdgeType",
    "Fusion",
    "FusionOutput",
    "Graph",
    "GraphBuilder",
    "HetgraphError",
    "ManifestError",
    "MediaError",
    "NodeType",
    "Sample",
    "Schema",
    "__version__",
]
