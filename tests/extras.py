"""Marks for tests of what is optional."""

from __future__ import annotations

import importlib.util

import pytest

needs_dgl = pytest.mark.skipif(
    importlib.util.find_spec("dgl") is None, reason="DGL is not installed: pip install 'hetgraph[dgl]'"
)
needs_av = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="PyAV is not installed: pip install 'hetgraph[video]'"
)
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed: pip install 'hetgraph[parquet]'"
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'hetgraph[ray]'"
)
