"""hetgraph graphs from and to the Deep Graph Library (DGL), an optional extra."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import HetgraphError
from ..graph import Graph
from ..sample import as_tensor
from ..schema import EdgeKey, Schema
from .parts import Part, divide, divide_edges, graph_of, relation_ids

if TYPE_CHECKING:
    from dgl import DGLGraph

_INSTALL = "pip install 'hetgraph[dgl]'"
_GRAPHBOLT = "dgl.graphbolt"
_lock = threading.Lock()
# columns in which DGL notes where the rows of a subgraph come from
_NOTES = ("_ID", "_TYPE")


def load_dgl() -> Any:
    """The module ``dgl``, imported beside a torch that is newer than DGL's wheels.

    DGL ships one compiled library of ``dgl.graphbolt`` (its data loaders) for each torch it knows and cannot be
    imported beside any other, although all of its graphs and kernels work there. Where the library for this
    torch is missing, an empty module stands in for ``dgl.graphbolt`` during the import, and only then.

    Raises:
        HetgraphError: DGL or something it needs is not installed (with the command that installs it), or it
            does not load.
    """
    with _lock:
        if sys.modules.get("dgl") is None:
            _import_dgl()
    return importlib.import_module("dgl")


def _import_dgl() -> None:
    spec = importlib.util.find_spec("dgl")
    if spec is None:
        raise HetgraphError(f"DGL is not installed; install it with: {_INSTALL}")
    release = torch.__version__.split("+")[0]
    folders = [Path(folder) / "graphbolt" for folder in spec.submodule_search_locations or ()]
    whole = any(any(folder.glob(f"*graphbolt_pytorch_{release}.*")) for folder in folders)
    # an import that failed earlier leaves submodules behind, which a second one would not bind to their package
    for name in [name for name in sys.modules if name.startswith("dgl.")]:
        del sys.modules[name]
    stub = ModuleType(_GRAPHBOLT)
    if not whole:
        sys.modules[_GRAPHBOLT] = stub
    try:
        # invalid escapes in its docstrings, found when its files are compiled
        with _environment("DGLBACKEND", "pytorch"), warnings.catch_warnings():
            for kind in (DeprecationWarning, SyntaxWarning):
                warnings.filterwarnings("ignore", "invalid escape sequence", kind, r".*[/\\]dgl[/\\]")
            importlib.import_module("dgl")
    except ModuleNotFoundError as error:
        raise HetgraphError(f"DGL needs {error.name}, which is not installed; install it with: {_INSTALL}") from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise HetgraphError(f"DGL does not load beside torch {torch.__version__}: {error}") from error
    finally:
        if sys.modules.get(_GRAPHBOLT) is stub:
            del sys.modules[_GRAPHBOLT]


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for a while. Without it DGL writes its choice of backend to the home directory."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def to_dgl(graph: Graph) -> DGLGraph:
    """One batched ``DGLGraph`` of B graphs, one per sample, which ``dgl.unbatch`` takes apart.

    It has every node and edge type, empty where no sample has it, because all graphs of a DGL batch must share
    their relations. Node features are ``nodes[type].data["x"]``; fields, edge features and relation ids are
    columns under their own names (``relation`` for the ids); ``batch_num_nodes`` and ``batch_num_edges`` are set.

    What DGL has no place for:

    * ids and targets. They are the attributes ``sample_id`` and ``y`` of the object, lists of B. Copies and
      ``.to()`` keep them; ``dgl.batch``, ``dgl.unbatch``, ``save_graphs`` and transforms do not, and
      :func:`from_dgl` then numbers the samples and leaves targets None.
    * the order of types: DGL sorts them by name.
    * a graph without edge types: it gets an empty one with the empty name, ``(type, "", type)``, which
      :func:`from_dgl` drops.
    * node types whose names begin with ``SRC/`` or ``DST/``, which DGL reads as a side of a bipartite graph:
      they are written with ``%`` in front, which :func:`from_dgl` takes off.

    Raises:
        HetgraphError: DGL cannot be loaded, see :func:`load_dgl`.
    """
    dgl = load_dgl()
    name_of = {name: _escape(name) for name in graph.schema.nodes}
    key_of = {key: (name_of[key[0]], key[1], name_of[key[2]]) for key in graph.edges}
    links = {key_of[key]: (edges.index[0], edges.index[1]) for key, edges in graph.edges.items()}
    per_sample = {
        key_of[key]: torch.bincount(edges.dst.batch[edges.index[1]], minlength=len(graph))
        for key, edges in graph.edges.items()
    }
    if not links:
        first = next(iter(name_of.values()))
        none = torch.zeros(0, dtype=torch.long, device=graph.device)
        links[first, "", first] = none, none
        per_sample[first, "", first] = torch.zeros(len(graph), dtype=torch.long, device=graph.device)
    out = dgl.heterograph(links, {name_of[name]: counts.total for name, counts in graph.layout.items()})
    out.set_batch_num_nodes({name_of[name]: counts.per_sample for name, counts in graph.layout.items()})
    out.set_batch_num_edges(per_sample)
    for name, x in graph.x.items():
        out.nodes[name_of[name]].data.update({"x": x, **graph.fields[name]})
    for key, edges in graph.edges.items():
        ids = {} if edges.relation is None else {"relation": edges.relation}
        out.edges[key_of[key]].data.update({**edges.features, **ids})
    out.sample_id, out.y = list(graph.ids), list(graph.target)
    return out


def from_dgl(data: DGLGraph | Sequence[DGLGraph], schema: Schema | None = None) -> Graph:
    """A graph from one ``DGLGraph``, batched or not, or a list of them (types may be missing in any of a list).

    Args:
        data: every node type with nodes needs the column ``x``; int32 and int64 graphs are taken.
        schema: the types. Left out, it is read off the data: every edge type ``given``, columns of one or two
            axes become fields and edge features, those in which DGL keeps its notes (``_ID``, ``_TYPE``) and edge
            columns called ``index`` are left. A field that a sample lacks, or that is NaN in all its nodes, is
            optional.

    Returns:
        A graph with exactly the edges of the data, whatever the rules of the schema say. Samples have the ids
        and targets that :func:`to_dgl` attached, where they are still there.

    Raises:
        HetgraphError: DGL cannot be loaded; no ``x``; batch sizes that do not fit; edges between samples; types
            or widths that the schema does not have; numbers that are not finite.
    """
    dgl = load_dgl()
    whole: list[Any] = list(data) if isinstance(data, (list, tuple)) else [data]
    if not all(isinstance(g, dgl.DGLGraph) for g in whole):
        raise HetgraphError(f"from_dgl takes a DGLGraph or a list of them, got {type(data).__name__}")
    if not whole:
        raise HetgraphError("from_dgl: an empty list")
    if any(g.is_block for g in whole):
        raise HetgraphError("from_dgl: blocks (message flow graphs) are no graphs of samples")
    parts: list[Part] = []
    for g in whole:
        parts += _read(g, schema, len(parts))
    if schema is None:
        for name in dict.fromkeys(_unescape(n) for g in whole for n in g.ntypes):
            if not any(name in part.nodes for part in parts):
                raise HetgraphError(f"node type {name!r} has no nodes and no x to tell its width; pass a schema")
    return graph_of(parts, schema)


def _read(g: DGLGraph, schema: Schema | None, first: int) -> list[Part]:
    """The samples of one DGL graph; those without an id are numbered from ``first`` on."""
    counts = {name: _counts(g, name) for name in g.ntypes}
    size = g.batch_size
    ids = _attached(g, "sample_id", size) or [str(first + i) for i in range(size)]
    targets = _attached(g, "y", size) or [None] * size
    parts = [Part(str(name), target) for name, target in zip(ids, targets, strict=True)]
    label = f"sample {parts[0].id!r}: " if size == 1 else ""
    owners: dict[str, Tensor] = {}
    for written in g.ntypes:
        name, total = _unescape(written), g.num_nodes(written)
        where = f"{label}node type {name!r}"
        if len(counts[written]) != size or int(counts[written].sum()) != total or bool((counts[written] < 0).any()):
            raise HetgraphError(
                f"{where}: batch_num_nodes must be {size} numbers that add up to {total} nodes, "
                f"got {counts[written].tolist()}"
            )
        owners[name] = torch.arange(size, device=g.device).repeat_interleave(counts[written])
        frame = g.nodes[written].data
        if "x" not in frame:
            if total:
                raise HetgraphError(f"{where} has no x; it has {list(frame)}")
            continue  # added for the sake of the batch
        if frame["x"].dim() != 2:
            raise HetgraphError(f"{where}: x must be [N, dim], got {list(frame['x'].shape)}")
        wanted = schema.nodes[name].all_fields if schema is not None and name in schema.nodes else None
        columns = {"x": frame["x"], **_columns(frame, wanted, {"x", *_NOTES}, where)}
        for part, values in zip(parts, divide(columns, owners[name], size), strict=True):
            part.nodes[name] = values
    for src, relation, dst in g.canonical_etypes:
        key: EdgeKey = (_unescape(src), relation, _unescape(dst))
        count = g.num_edges((src, relation, dst))
        if not (relation or count):
            continue  # stands for the lack of edge types
        where = f"{label}edge type {key}"
        index = torch.stack(g.edges(order="eid", etype=(src, relation, dst))).long()
        frame = g.edges[src, relation, dst].data
        edge = schema.edges.get(key) if schema is not None else None
        columns = _columns(frame, None if edge is None else edge.features, {"index", "relation", *_NOTES}, where)
        if "relation" in frame and (edge is None or edge.relations):
            columns["relation"] = relation_ids(frame["relation"], count, where)
        for part, values in zip(
            parts, divide_edges(index, columns, owners[key[0]], owners[key[2]], size, where), strict=True
        ):
            part.edges[key] = values
    return parts


def _counts(g: DGLGraph, name: str) -> Tensor:
    """Nodes of a type in every graph of a batch, int64 ``[B]``."""
    try:
        return g.batch_num_nodes(name).long()
    except KeyError as error:
        raise HetgraphError(f"node type {_unescape(name)!r}: batch_num_nodes is not set") from error


def _attached(g: DGLGraph, name: str, size: int) -> list[Any] | None:
    """An attribute that :func:`to_dgl` gave the object; None where it is gone."""
    values = getattr(g, name, None)
    if values is not None and len(values) != size:
        raise HetgraphError(f"from_dgl: {name} has {len(values)} entries for a batch of {size} graphs")
    return None if values is None else list(values)


def _columns(frame: Any, wanted: Mapping[str, int] | None, skip: set[str], where: str) -> dict[str, Tensor]:
    """The columns that a schema wants; without one, those of one or two axes that have a name."""
    if wanted is not None:
        return {name: as_tensor(frame[name], f"{where}: {name!r}") for name in wanted if name in frame}
    named = {name: frame[name] for name in frame if isinstance(name, str) and name and name not in skip}
    return {name: value for name, value in named.items() if value.dim() in (1, 2)}


def _escape(name: str) -> str:
    return re.sub(r"^(?=%*(?:SRC|DST)/)", "%", name)


def _unescape(name: str) -> str:
    return re.sub(r"^%(?=%*(?:SRC|DST)/)", "", name)
