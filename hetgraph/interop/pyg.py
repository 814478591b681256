"""hetgraph graphs from and to PyTorch Geometric."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from ..errors import HetgraphError
from ..graph import Graph
from ..sample import as_tensor
from ..schema import Schema
from .parts import Part, divide, divide_edges, graph_of, relation_ids

if TYPE_CHECKING:
    from torch_geometric.data import Batch, HeteroData

_TARGET = "y"
_ID = "sample_id"


def to_pyg(graph: Graph) -> Batch:
    """A ``Batch`` of B ``HeteroData``, one per sample.

    Every ``HeteroData`` carries every node and edge type, empty where the sample has none, because PyG's
    collate credits nodes to the wrong sample otherwise. Fields, edge features and relation ids become
    attributes of their stores under their own names (``relation`` for the ids); the target is ``y`` and the
    id ``sample_id``, with underscores behind if a node type has that name. PyG's collate counts attributes
    up whose name holds ``batch`` or ``index``; those are written with that word's first letter in percent
    notation (``%62atch``), which :func:`from_pyg` reads back. Targets that PyG could not collate (some are
    None, or of several kinds) are 0-dimensional object arrays.
    """
    from torch_geometric.data import Batch, HeteroData

    parts: list[HeteroData] = [HeteroData() for _ in range(len(graph))]
    with warnings.catch_warnings():
        # any string is a legal name here, and nothing below splits names at '__'
        warnings.filterwarnings("ignore", message="There exist type names")
        for name, counts in graph.layout.items():
            sizes = counts.per_sample.tolist()
            stores = [part.get_node_store(name) for part in parts]
            for attribute, value in {"x": graph.x[name], **graph.fields[name]}.items():
                for store, rows in zip(stores, value.split(sizes), strict=True):
                    store[_escape(attribute, edge=False)] = rows
            for store, size in zip(stores, sizes, strict=True):
                store.num_nodes = size
        for key, edges in graph.edges.items():
            owner = edges.dst.batch[edges.index[1]]
            index = edges.index - torch.stack([edges.src.offset[owner], edges.dst.offset[owner]])
            columns = {"edge_index": index.T, **{_escape(n, edge=True): f for n, f in edges.features.items()}}
            if edges.relation is not None:
                columns["relation"] = edges.relation
            for part, columns_of_part in zip(parts, divide(columns, owner, len(parts)), strict=True):
                store = part.get_edge_store(*key)
                for attribute, value in columns_of_part.items():
                    store[attribute] = value.T if attribute == "edge_index" else value
        targets = graph.target if _collatable(graph.target) else [_box(t) for t in graph.target]
        for part, target, name in zip(parts, targets, graph.ids, strict=True):
            everything = part.stores[0]
            if target is not None:
                everything[_free(_TARGET, graph.schema.nodes)] = target
            everything[_free(_ID, graph.schema.nodes)] = name
        return Batch.from_data_list(parts)


def from_pyg(data: HeteroData | Batch | Sequence[HeteroData], schema: Schema | None = None) -> Graph:
    """A graph from one ``HeteroData``, a ``Batch`` of them, or a list (types may be missing in any of a list).

    Args:
        data: node stores need ``x``; edge stores need ``edge_index``. Targets are read from ``y``, where a
            tensor ``[1]`` means one number.
        schema: the types. Left out, it is read off the data: every edge type ``given``, node attributes with
            one row per node become fields, edge attributes with one row per edge become features. A field
            that a sample lacks, or that is NaN in all its nodes, is optional.

    Returns:
        A graph with exactly the edges of the data, whatever the rules of the schema say.

    Raises:
        HetgraphError: no ``x``; a batch whose nodes are not sorted by sample, or that was collated from samples
            of which some lack a node type (pass the list instead); types or widths that the schema does not
            have; numbers that are not finite.
    """
    from torch_geometric.data import Batch, HeteroData

    whole = [data] if isinstance(data, HeteroData) else list(data) if isinstance(data, Iterable) else [data]
    if not all(isinstance(d, HeteroData) for d in whole):
        raise HetgraphError(f"from_pyg takes HeteroData, a Batch of them or a list, got {type(data).__name__}")
    if not whole:
        raise HetgraphError("from_pyg: an empty list")
    if isinstance(data, Batch):
        parts = _split(data, schema)
    else:
        parts = [part for i, d in enumerate(whole) for part in _read(d, schema, [str(i)], batched=False)]
    return graph_of(parts, schema)


def _read(data: HeteroData, schema: Schema | None, ids: list[str], *, batched: bool) -> list[Part]:
    """The samples of a ``HeteroData`` (one) or of a ``Batch`` (one for each of ``ids``)."""
    everything = data.stores[0]
    size = len(ids)
    names = everything.get(_free(_ID, data.node_types))
    if names is not None:
        ids = [str(n) for n in names] if batched and not isinstance(names, str) else [str(names)] * size
    parts = [Part(name) for name in ids]
    owners: dict[str, Tensor] = {}
    for name, store in data.node_items():
        where = f"node type {name!r}" if batched else f"sample {ids[0]!r}: node type {name!r}"
        if "x" not in store:
            raise HetgraphError(f"{where} has no x")
        x = as_tensor(store["x"], f"{where}: field 'x'")
        if x.dim() != 2:
            raise HetgraphError(f"{where}: x must be [N, dim], got {list(x.shape)}")
        owners[name] = _owner(store, len(x), size, where) if batched else torch.zeros(len(x), dtype=torch.long)
        wanted = schema.nodes[name].all_fields if schema is not None and name in schema.nodes else None
        columns = {"x": x, **_columns(store, len(x), wanted, where, edge=False)}
        for part, values in zip(parts, divide(columns, owners[name], size), strict=True):
            # a type that a sample of a batch does not have cannot be told from an empty one
            part.nodes[name] = values
    for key, store in data.edge_items():
        where = f"edge type {key}" if batched else f"sample {ids[0]!r}: edge type {key}"
        if "edge_index" not in store:
            raise HetgraphError(f"{where} has no edge_index")
        index = as_tensor(store["edge_index"], f"{where}: edge_index")
        if index.dim() != 2 or index.shape[0] != 2 or index.is_floating_point():
            raise HetgraphError(f"{where}: edge_index must be integers [2, E], got {index.dtype} {list(index.shape)}")
        index = index.long()
        for end in (key[0], key[2]):
            if end not in owners:
                raise HetgraphError(f"{where}: the data has no node type {end!r}; it has {list(owners)}")
        ends = [owners[key[0]], owners[key[2]]]
        for row, end in zip(index, ends, strict=True):
            if len(row) and not 0 <= int(row.min()) <= int(row.max()) < len(end):
                raise HetgraphError(
                    f"{where}: edge_index must lie in 0 .. {len(end) - 1}, got {int(row.min())} .. {int(row.max())}"
                )
        edge = schema.edges.get(key) if schema is not None else None
        columns = _columns(store, index.shape[1], None if edge is None else edge.features, where, edge=True)
        if "relation" in store and (edge is None or edge.relations):
            columns["relation"] = relation_ids(store["relation"], index.shape[1], where)
        for part, values in zip(parts, divide_edges(index, columns, ends[0], ends[1], size, where), strict=True):
            part.edges[key] = values
    for part, target in zip(parts, _targets(data, size, batched=batched), strict=True):
        part.target = target
    return parts


def _split(batch: Batch, schema: Schema | None) -> list[Part]:
    return _read(batch, schema, [str(i) for i in range(batch.num_graphs)], batched=True)


def _owner(store: Any, count: int, size: int, where: str) -> Tensor:
    """Sample of every node of a batch, int64 ``[N]``, refused where it cannot be right."""
    if "batch" not in store:
        if size > 1:
            raise HetgraphError(f"{where} has no batch vector, so its nodes cannot be given to {size} samples")
        return torch.zeros(count, dtype=torch.long)
    owner = store["batch"]
    if len(owner) != count or (count and not 0 <= int(owner.min()) <= int(owner.max()) < size):
        raise HetgraphError(f"{where}: the batch vector does not fit {count} nodes of {size} samples")
    if bool((owner[1:] < owner[:-1]).any()):
        raise HetgraphError(f"{where}: the nodes of the batch are not sorted by sample")
    if "ptr" in store and len(store["ptr"]) != size + 1:
        raise HetgraphError(
            f"{where}: only {len(store['ptr']) - 1} of {size} samples have it, and PyG's collate does not keep which; "
            "pass the list of HeteroData instead of the Batch"
        )
    return owner


def _columns(store: Any, rows: int, wanted: Mapping[str, int] | None, where: str, *, edge: bool) -> dict[str, Tensor]:
    """The attributes that a schema wants; without one, the numeric attributes with one row per node (edge)."""
    skip = {"edge_index", "relation"} if edge else {"x", "batch", "ptr", "num_nodes"}
    if wanted is not None:
        out = {}
        for name in wanted:
            # as to_pyg writes it, or as others may
            for key in (_escape(name, edge=edge), name):
                if key in store and key not in skip and name not in out:
                    out[name] = as_tensor(store[key], f"{where}: {name!r}")
        for name, value in out.items():
            if value.dim() == 0 or len(value) != rows:
                raise HetgraphError(f"{where}: {name!r} must have {rows} rows, got shape {list(value.shape)}")
        return out
    return {
        _unescape(name, edge=edge): value
        for name, value in store.items()
        if name not in skip and isinstance(value, Tensor) and value.dim() in (1, 2) and len(value) == rows
    }


def _free(name: str, taken: Collection[str]) -> str:
    """A name for an attribute of the whole sample; PyG looks those up before node types."""
    while name in taken:
        name += "_"
    return name


def _escape(name: str, *, edge: bool) -> str:
    out = name.replace("%", "%25").replace("batch", "%62atch")
    if edge:
        out = out.replace("index", "%69ndex")
    return {"ptr": "%70tr", "num_nodes": "%6eum_nodes"}.get(out, out)


def _unescape(name: str, *, edge: bool) -> str:
    plain = unquote(name)
    return plain if _escape(plain, edge=edge) == name else name


def _collatable(targets: Sequence[Any]) -> bool:
    """PyG's collate keeps them one by one, or there is none at all."""
    kinds = (str, (int, float), type(None))
    if any(all(isinstance(t, kind) for t in targets) for kind in kinds):
        return True
    tensors = [t for t in targets if isinstance(t, Tensor)]
    # [1] is read as one number, so it cannot stand beside longer ones
    kinds_of_tensor = {(t.dtype, t.dim(), t.shape[1:], t.shape == (1,)) for t in tensors}
    return len(tensors) == len(targets) and len(kinds_of_tensor) == 1


def _box(target: Any) -> np.ndarray:
    box = np.empty((), dtype=object)
    box[()] = target
    return box


def _targets(data: HeteroData, size: int, *, batched: bool) -> list[Any]:
    """The target of every sample; None where there is none."""
    name = _free(_TARGET, data.node_types)
    value = data.stores[0].get(name)
    if value is None:
        return [None] * size
    if not batched:
        return [_unbox(value)]
    slices = getattr(data, "_slice_dict", {}).get(name)
    if isinstance(value, Tensor) and isinstance(slices, Tensor):
        rows = [value[a:b] for a, b in zip(slices[:-1].tolist(), slices[1:].tolist(), strict=True)]
        return [_unbox(row) for row in rows]
    if isinstance(value, (Tensor, list)) and not (isinstance(slices, (list, dict))) and len(value) == size:
        return [_unbox(row) for row in value]
    if slices is not None:
        # dictionaries and lists of tensors, which only PyG takes apart again
        return [_unbox(data.get_example(i).stores[0].get(name)) for i in range(size)]
    return [None] * size


def _unbox(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == object and value.shape == ():
        return value.item()
    if isinstance(value, Tensor) and value.shape == (1,):
        return value.reshape(())
    return value
