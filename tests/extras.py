"""Marks for tests of what is optional."""

from __future__ import annotations

import importlib.util

import pytest

needs_dgl = pytest.mark.skipif(
    importlib.util.find_spec("dgl") is None, reason="DGL is not installed: pip install 'hetgraph[dgl]'"
)
