"""Data flows one way: a module imports only from modules to its left."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ORDER = [
    "errors",
    "files",
    "manifest_formats",
    "manifest",
    "_numba",
    "compiled",
    "rules_base",
    "rules_geometry",
    "rules",
    "schema",
    "sample",
    "edges",
    "graph",
    "relations",
    "sampling",
    "builder",
    "parcel",
    "loader",
    "interop",
    "builders",
    "encoders",
    "nn",
    "pretrained",
    "fusion",
    "objectives",
    "predictor",
    "checkpoint",
    "progress",
    "thinning",
    "reading",
    "training",
    "kg",
    "drawing",
    "quarantine",
    "pipeline",
    "shards_tar",
    "shards",
    "one_thread",
    "encoding_ray",
    "encoding",
    "workflow",
    "showing",
    "significance",
    "comparison_runs",
    "comparison_outcomes",
    "compare",
    "comparison_report",
    "embeddings",
    "doctor",
    "tasks",
    "cli_common",
    "cli_kg",
    "cli_task_detection",
    "cli_task_common",
    "cli_task_classification",
    "cli_task_fewshot",
    "cli_task_retrieval",
    "cli_task_generation",
    "cli_task",
    "cli_compare",
    "cli",
    "__main__",
]
"""Left to right. Imports inside functions and for type checkers alone do not count."""

ONLY = {"encoders": {"errors", "files", "schema"}}
"""Modules that may import less than everything to their left."""

ROOT = Path(__file__).parent.parent
FOLDERS = {"hetgraph": ROOT / "hetgraph", "hetgraph.kg": ROOT / "kg", "hetgraph.tasks": ROOT / "tasks"}


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    out = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            out[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return out


def room(module: str) -> str:
    """The part of the package that a module belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def statements(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: not the bodies of functions, not ``if TYPE_CHECKING``."""
    for node in nodes:
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse)
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body)


def imported(module: str, source: str, package: bool) -> set[str]:
    """Dotted names that a module imports from the package when it is loaded."""
    out = set()
    here = module.split(".") if package else module.split(".")[:-1]
    for node in statements(ast.parse(source).body):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            # `from . import rules` imports the module rules, `from .rules import window` only rules
            out |= {".".join([*base, alias.name]) if len(base) == 1 else ".".join(base) for alias in node.names}
    return {name for name in out if name.split(".")[0] == "hetgraph"}


def faults(module: str, source: str, package: bool = False) -> list[str]:
    own = room(module)
    left = ONLY.get(own, set(ORDER[: ORDER.index(own)])) | {own}
    return [f"{module} imports {name}" for name in sorted(imported(module, source, package)) if room(name) not in left]


@pytest.mark.parametrize("module", [m for m in modules() if m != "hetgraph"])
def test_a_module_imports_only_from_modules_to_its_left(module: str) -> None:
    path = modules()[module]
    assert room(module) in ORDER, f"{module} has no place in the order; add it to ORDER"
    assert faults(module, path.read_text(), path.name == "__init__.py") == []


def test_nobody_imports_the_folders_that_lie_at_the_top() -> None:
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not {n.split(".")[0] for n in names} & {"kg", "tasks"}, module


def test_the_order_has_every_room_once() -> None:
    assert len(ORDER) == len(set(ORDER))
    for first, second in pairwise(
        ["errors", "rules", "schema", "sample", "edges", "graph", "builder", "encoders", "nn"]
    ):
        assert ORDER.index(first) < ORDER.index(second)


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("hetgraph.schema", "from .graph import Graph", True),
        ("hetgraph.schema", "from . import graph", True),
        ("hetgraph.schema", "from hetgraph.graph import Graph", True),
        ("hetgraph.schema", "from hetgraph import Graph", True),
        ("hetgraph.schema", "import hetgraph.graph", True),
        ("hetgraph.schema", "import hetgraph", True),
        ("hetgraph.schema", "try:\n    from .graph import Graph\nexcept ImportError:\n    pass", True),
        ("hetgraph.schema", "class A:\n    from .graph import Graph", True),
        ("hetgraph.schema", "from .nothing import Graph", True),
        ("hetgraph.encoders.base", "from ..graph import Graph", True),
        ("hetgraph.kg.linking", "from ..tasks.demo import x", True),
        ("hetgraph.schema", "from . import rules\nfrom .errors import HetgraphError", False),
        ("hetgraph.schema", "import torch\nfrom numpy import array", False),
        ("hetgraph.schema", "def f():\n    from .graph import Graph", False),
        ("hetgraph.schema", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .graph import Graph", False),
        ("hetgraph.encoders.base", "from ..schema import NodeType\nfrom .media import Item", False),
        ("hetgraph.kg.linking", "from ..errors import HetgraphError\nfrom .triples import TripleGraph", False),
    ],
)
def test_the_test_itself_finds_what_it_should(module: str, source: str, wrong: bool) -> None:
    assert bool(faults(module, source)) == wrong
