"""Tables and arrays of a data set, checked while they are read; errors begin with the name of the data set."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...errors import HetgraphError

CLIP = 5.0


def read_table(title: str, path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8; a row that breaks off has empty cells.

    Raises:
        HetgraphError: no file, no table, or a column is missing.
    """
    if not path.is_file():
        raise HetgraphError(f"{title}: no file {path}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        try:
            missing = sorted(set(columns) - set(reader.fieldnames or ()))
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise HetgraphError(f"{title}: {path} cannot be read: {error}") from error
    if missing:
        raise HetgraphError(f"{title}: {path} lacks the columns {missing}")
    return rows


def read_arrays(title: str, path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz file, without pickle.

    Raises:
        HetgraphError: no file, no archive, or an array is missing.
    """
    if not path.is_file():
        raise HetgraphError(f"{title}: no file {path}")
    try:
        # opened here, because NumPy leaves a file open that is no archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise HetgraphError(f"{title}: {path} cannot be read: {error}") from error


def standardised(value: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features ``[N, d]`` with mean 0 and deviation 1 on the training rows (bool ``[N]``), clipped to +-5, float32."""
    mean, std = value[train].mean(0), value[train].std(0)
    return ((value - mean) / np.where(std > 0, std, 1)).clip(-CLIP, CLIP).astype(np.float32)
