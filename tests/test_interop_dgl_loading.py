"""DGL is imported only when it is used, beside any torch, and says what is missing.

Packages called ``dgl`` that a test writes stand in for DGL releases with and without a library for this torch.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from extras import needs_dgl

from hetgraph import EdgeType, Graph, GraphBuilder, HetgraphError, NodeType, Sample, Schema
from hetgraph.interop.dgl import load_dgl
from hetgraph.nn import HGTLayer

Release = Callable[..., Path]


def purge() -> dict[str, object]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "dgl"}


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    """Write a package ``dgl`` of these files (name -> source) that is found before the installed one."""
    before = purge()

    def write(**sources: str) -> Path:
        folder = tmp_path / "dgl"
        for name, source in {"__init__": "", "graphbolt/__init__": "", **sources}.items():
            path = folder / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        return folder

    yield write
    purge()
    sys.modules.update(before)


NEEDS_GRAPHBOLT = "from .part import thing\nfrom . import graphbolt as gb\nloaded = hasattr(gb, 'real')"
REFUSES = "raise FileNotFoundError('Cannot find DGL C++ graphbolt library')"


def test_graphbolt_is_the_real_one_where_there_is_a_library_for_this_torch(release: Release) -> None:
    folder = release(**{"__init__": NEEDS_GRAPHBOLT, "part": "thing = 1", "graphbolt/__init__": "real = True"})
    number = torch.__version__.split("+")[0]
    (folder / "graphbolt" / f"libgraphbolt_pytorch_{number}.so").touch()
    assert load_dgl().loaded is True
    assert sys.modules["dgl.graphbolt"].real is True


def test_graphbolt_is_stood_in_for_during_the_import_alone_where_there_is_none(release: Release) -> None:
    folder = release(**{"__init__": NEEDS_GRAPHBOLT, "part": "thing = 1", "graphbolt/__init__": REFUSES})
    (folder / "graphbolt" / "libgraphbolt_pytorch_1.0.0.so").touch()
    assert load_dgl().loaded is False
    assert "dgl.graphbolt" not in sys.modules
    with pytest.raises(FileNotFoundError):
        importlib.import_module("dgl.graphbolt")


def test_an_import_that_failed_before_does_no_harm(release: Release) -> None:
    release(**{"__init__": NEEDS_GRAPHBOLT, "part": "thing = 1", "graphbolt/__init__": REFUSES})
    with pytest.raises(FileNotFoundError):
        importlib.import_module("dgl")
    assert "dgl.part" in sys.modules
    dgl = load_dgl()
    assert dgl.part is sys.modules["dgl.part"]


def test_every_thread_gets_the_same_module_imported_once(release: Release) -> None:
    source = "import time, builtins\nbuiltins.dgl_imports = getattr(builtins, 'dgl_imports', 0) + 1\ntime.sleep(0.05)"
    release(**{"__init__": f"{source}\nready = True"})
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(load_dgl().ready and load_dgl())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    import builtins

    count = builtins.__dict__.pop("dgl_imports")
    assert count == 1
    assert found == [sys.modules["dgl"]] * 4


def test_the_choice_of_backend_is_made_for_the_import_alone(release: Release, monkeypatch) -> None:
    release(**{"__init__": "import os\nbackend = os.environ['DGLBACKEND']"})
    monkeypatch.setenv("DGLBACKEND", "tensorflow")
    assert load_dgl().backend == "pytorch"
    assert os.environ["DGLBACKEND"] == "tensorflow"
    purge()
    monkeypatch.delenv("DGLBACKEND")
    assert load_dgl().backend == "pytorch"
    assert "DGLBACKEND" not in os.environ


def test_only_the_invalid_escapes_of_dgl_are_silent(release: Release, tmp_path: Path) -> None:
    release(**{"__init__": "text = '\\P'"})
    assert load_dgl().text == "\\P"
    purge()
    release(**{"__init__": "import warnings\nwarnings.warn('old', DeprecationWarning)"})
    with pytest.raises(DeprecationWarning, match="old"):
        load_dgl()
    purge()
    (tmp_path / "beside_dgl.py").write_text("text = '\\Q'")
    release(**{"__init__": "import beside_dgl"})
    with pytest.raises(SyntaxError, match="invalid escape"):
        load_dgl()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module", ["DGL needs no_such_module", "pip install 'hetgraph[dgl]'"]),
        ("raise OSError('libdgl.so: GLIBC not found')", ["beside torch", torch.__version__, "GLIBC not found"]),
        ("from os import nothing_like_it", ["beside torch", "nothing_like_it"]),
    ],
)
def test_a_dgl_that_does_not_load_says_why(release: Release, source: str, words: list[str]) -> None:
    release(**{"__init__": source})
    filters = list(warnings.filters)
    with pytest.raises(HetgraphError) as caught:
        load_dgl()
    for word in words:
        assert word in str(caught.value)
    assert not [name for name in ("dgl", "dgl.graphbolt") if name in sys.modules]
    assert warnings.filters == filters


def test_without_dgl_every_use_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dgl", None)
    schema = Schema([NodeType("a", 4)], [EdgeType("a", "r", "a")])
    graph = GraphBuilder(schema)([Sample(a=torch.ones(2, 4))])
    layer = HGTLayer(schema, 4, 2)
    for use in (load_dgl, graph.to_dgl, lambda: Graph.from_dgl(graph), lambda: layer(graph, graph.x, "dgl")):
        with pytest.raises(HetgraphError, match=r"DGL is not installed.*pip install 'hetgraph\[dgl\]'"):
            use()


def run(code: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={**os.environ, **environment})


def test_the_core_does_not_import_dgl() -> None:
    # torch.jit.script, which torch_geometric calls, is deprecated
    run(
        "import warnings; warnings.filterwarnings('ignore', '.torch.jit.script')\n"
        "import sys, hetgraph, hetgraph.nn, hetgraph.fusion, hetgraph.interop.dgl\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'dgl']"
    )


@needs_dgl
def test_the_installed_dgl_loads_without_a_warning_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run(
        "import os, sys, warnings\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"
        "    import pandas, scipy.sparse, networkx\n"
        "    from hetgraph.interop.dgl import load_dgl\n"
        # as on the first import after an installation: nothing is compiled yet
        f"sys.pycache_prefix = {str(tmp_path / 'compiled')!r}\n"
        "before = dict(os.environ)\n"
        "filters = list(warnings.filters)\n"
        "dgl = load_dgl()\n"
        "assert dgl is load_dgl() is sys.modules['dgl']\n"
        "assert warnings.filters == filters\n"
        "assert 'DGLBACKEND' not in os.environ\n"
        "stub = sys.modules.get('dgl.graphbolt')\n"
        "assert stub is None or stub.__file__\n"
        "assert dgl.graph(([0], [1])).num_edges() == 1\n",
        HOME=str(tmp_path),
        DGLDEFAULTDIR=str(tmp_path / "settings"),
    )
    assert not (tmp_path / "settings").exists()
