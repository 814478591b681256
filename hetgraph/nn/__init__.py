"""Layers: the heterogeneous graph transformer, its attention backends, input projection and readout."""

from .block import GraphBlock
from .hgt import HGTLayer
from .project import InputProjection
from .readout import Readout

__all__ = ["GraphBlock", "HGTLayer", "InputProjection", "Readout"]
