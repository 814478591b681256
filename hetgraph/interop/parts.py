"""What graphs of other libraries are read into: one part per sample, and a graph of the parts.

Shapes: B samples, N nodes of a type, E edges of an edge type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..builder import GraphBuilder
from ..errors import HetgraphError
from ..graph import Graph
from ..rules import given
from ..sample import Sample, as_tensor
from ..schema import EdgeKey, EdgeType, NodeType, Schema


@dataclass
class Part:
    """One sample as the other library has it: type -> field -> tensor, with ``index`` and ``relation`` of edges."""

    id: str
    target: Any = None
    nodes: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    edges: dict[EdgeKey, dict[str, Tensor]] = field(default_factory=dict)

    def sample(self, schema: Schema) -> Sample:
        nodes: dict[str, dict[str, Tensor]] = {}
        for name, values in self.nodes.items():
            optional = schema.nodes[name].optional if name in schema.nodes else ()
            nodes[name] = {f: v for f, v in values.items() if not (f in optional and _absent(v))}
        edges = {
            key: values for key, values in self.edges.items() if values["index"].shape[1] or key not in schema.edges
        }
        return Sample(id=self.id, target=self.target, nodes=nodes, edges=edges)


def graph_of(parts: Sequence[Part], schema: Schema | None) -> Graph:
    """A graph with exactly the edges of the parts, whatever the rules of the schema say.

    Without a schema it is read off the parts, see :func:`schema_of`. Double precision if any ``x`` has it.

    Raises:
        HetgraphError: types or widths that the schema does not have; numbers that are not finite.
    """
    if schema is None:
        schema = schema_of(parts)
    plain = Schema(
        schema.nodes.values(),
        [EdgeType(*key, rule=given, features=e.features, relations=e.relations) for key, e in schema.edges.items()],
    )
    samples = [part.sample(plain) for part in parts]
    x = [part.nodes[n]["x"] for part in parts for n in part.nodes]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in x) else torch.float32
    graph = GraphBuilder(plain, dtype)(samples)
    graph.schema = schema
    return graph


def schema_of(parts: Sequence[Part]) -> Schema:
    """Node types with their widths, fields and features as found; a field some sample lacks is optional."""
    nodes: dict[str, list[dict[str, Tensor]]] = {}
    edges: dict[EdgeKey, list[dict[str, Tensor]]] = {}
    for part in parts:
        for name, values in part.nodes.items():
            nodes.setdefault(name, []).append(values)
            dim, other = nodes[name][0]["x"].shape[1], values["x"].shape[1]
            if dim != other:
                raise HetgraphError(
                    f"sample {part.id!r}: node type {name!r} has dim {other}, an earlier sample has {dim}"
                )
        for key, values in part.edges.items():
            edges.setdefault(key, []).append(values)
    types = []
    for name, seen in nodes.items():
        # empty node sets need not carry the fields, unless nothing else tells them
        seen = [values for values in seen if len(values["x"])] or seen
        every = {f: _width(v) for values in seen for f, v in values.items() if f != "x"}
        sure = {f: w for f, w in every.items() if all(f in values and not _absent(values[f]) for values in seen)}
        optional = {f: w for f, w in every.items() if f not in sure}
        types.append(NodeType(name, seen[0]["x"].shape[1], fields=sure, optional=optional))
    kinds = []
    for key, seen in edges.items():
        seen = [values for values in seen if values["index"].shape[1]] or seen
        features = {f: _width(v) for values in seen for f, v in values.items() if f not in ("index", "relation")}
        count = max(
            (int(values["relation"].max()) + 1 for values in seen if len(values.get("relation", ()))), default=0
        )
        names = tuple(str(i) for i in range(count))
        kinds.append(EdgeType(*key, rule=given, features=features, relations=names))
    return Schema(types, kinds)


def _width(value: Tensor) -> int:
    return value.shape[1] if value.dim() == 2 else 0


def _absent(value: Tensor) -> bool:
    """NaN throughout, which is how a graph holds an optional field that a sample lacks."""
    return len(value) > 0 and value.is_floating_point() and bool(value.isnan().all())


def divide(columns: Mapping[str, Tensor], owner: Tensor, size: int) -> list[dict[str, Tensor]]:
    """For each sample its rows of every column, in order."""
    if bool((owner[1:] < owner[:-1]).any()):
        order = torch.argsort(owner, stable=True)
        columns = {name: value[order] for name, value in columns.items()}
    sizes = torch.bincount(owner, minlength=size).tolist()
    parts: list[dict[str, Tensor]] = [{} for _ in range(size)]
    for name, value in columns.items():
        for part, rows in zip(parts, value.split(sizes), strict=True):
            part[name] = rows
    return parts


def divide_edges(
    index: Tensor, columns: Mapping[str, Tensor], src: Tensor, dst: Tensor, size: int, where: str
) -> list[dict[str, Tensor]]:
    """For each of ``size`` samples its edges in order: every column, and ``index [2, e]`` inside the sample.

    Args:
        index: node ids in the whole batch, int64 ``[2, E]``.
        columns: features and relation ids, ``[E]`` or ``[E, width]``.
        src, dst: sample of every source and destination node, ascending, int64 ``[N]``.
        size: samples.
        where: what to call the edges in an error.

    Raises:
        HetgraphError: an edge between two samples.
    """
    owner = dst[index[1]]
    if bool((src[index[0]] != owner).any()):
        raise HetgraphError(f"{where} connects different samples")
    counts = [torch.bincount(end, minlength=size) for end in (src, dst)]
    first = torch.stack([count.cumsum(0) - count for count in counts])
    parts = divide({**columns, "index": (index - first[:, owner]).T}, owner, size)
    return [{**values, "index": values["index"].T} for values in parts]


def relation_ids(value: Any, count: int, where: str) -> Tensor:
    """The relation of every edge, integers ``[E]``.

    Raises:
        HetgraphError: no integers, or not one for each of ``count`` edges.
    """
    ids = as_tensor(value, f"{where}: relation")
    if ids.is_floating_point() or ids.shape != (count,):
        raise HetgraphError(f"{where}: relation must be integers [E], got {ids.dtype} {list(ids.shape)}")
    return ids
