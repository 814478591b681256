"""Data sets: generated ones, and readers for files that the user has."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import HetgraphError

VARIABLE = "HETGRAPH_DATA"


def data_folder(name: str, folder: str | Path | None = None) -> Path:
    """Where a data set lies: ``folder`` if given, else the folder ``name`` in ``$HETGRAPH_DATA``.

    Raises:
        HetgraphError: neither is there.
    """
    if folder is not None:
        path = Path(folder)
    elif os.environ.get(VARIABLE):
        path = Path(os.environ[VARIABLE]) / name
    else:
        raise HetgraphError(f"data set {name!r}: give its folder, or set {VARIABLE} to the folder that holds {name}/")
    if not path.is_dir():
        raise HetgraphError(f"data set {name!r}: no folder {path}")
    return path
