"""What the tests of the readers of official files share: the folder with genuine samples, and damaged copies."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hetgraph.tasks.datasets import VARIABLE


def genuine(name: str) -> Path:
    """A folder with genuine files; the test is skipped if it is not there."""
    folder = Path(os.environ.get(VARIABLE) or Path(__file__).parents[2] / "shared" / "data") / name
    if not folder.is_dir():
        pytest.skip(f"genuine files are not here; {VARIABLE} names the folder that holds {name}/")
    return folder


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as CSV, with the first row's columns."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


def put(folder: Path, files: dict[str, Any]) -> Path:
    """Write text as it is and anything else as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder
