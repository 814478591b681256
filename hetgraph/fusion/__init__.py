"""Fusion: from a graph to the joint representation Z, behind one interface."""

from .model import METHODS, Fusion
from .output import FusionOutput

__all__ = ["METHODS", "Fusion", "FusionOutput"]
