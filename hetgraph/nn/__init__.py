"""Layers: the heterogeneous graph transformer, its attention backends, input projection and readout."""

from .block import GraphBlock
from .direct import DirectScores
from .hgt import HGTLayer
from .project import InputProjection
from .readout import Pooling, Readout

__all__ = ["DirectScores", "GraphBlock", "HGTLayer", "InputProjection", "Pooling", "Readout"]
