"""The packed record of B samples: one heterogeneous graph, the samples disconnected from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .edges import Counts, Edges, Made
from .errors import HetgraphError
from .rules import Given
from .sample import Sample
from .schema import EdgeKey, Schema

if TYPE_CHECKING:
    import networkx as nx


class _Lazy(Mapping[Any, Any]):
    """A read-only view that computes an entry when it is asked for."""

    def __init__(self, keys: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self._keys = dict.fromkeys(keys)
        self._make = make

    def __getitem__(self, key: Any) -> Any:
        if key not in self._keys:
            raise KeyError(f"{key!r}; known: {list(self._keys)}")
        return self._make(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Graph:
    """B samples packed one after the other, type by type.

    The nodes of sample ``i`` of type ``t`` are the rows ``counts[t][:i].sum()`` onward of ``x[t]``. With
    counts ``{"token": [3, 0, 2]}`` the second token of the third sample is row 4. Every node type and edge
    type of the schema is present, empty where no sample has it, so ``len(graph)`` is always B.

    Attributes:
        schema: the types.
        x: type -> features ``[N_type, dim]``.
        counts: type -> nodes per sample, int64 ``[B]``.
        batch: type -> sample of every node, int64 ``[N_type]`` (made on demand).
        fields: type -> name -> ``[N_type, width]`` (``[N_type]`` for width 0).
        edges: edge key -> :class:`~hetgraph.edges.Edges`.
        edge_index: edge key -> int64 ``[2, E]`` of packed node ids (made on demand).
        target: one entry per sample, as the samples gave it (tensor, number, string or None).
        ids: one name per sample.
    """

    def __init__(
        self,
        schema: Schema,
        x: Mapping[str, Tensor],
        layout: Mapping[str, Counts],
        fields: Mapping[str, Mapping[str, Tensor]],
        edges: Mapping[EdgeKey, Edges],
        target: Sequence[Any],
        ids: Sequence[str],
    ) -> None:
        self.schema = schema
        self.x = dict(x)
        self.layout = dict(layout)
        self.fields = {name: dict(values) for name, values in fields.items()}
        self.edges = dict(edges)
        self.target = tuple(target)
        self.ids = tuple(ids)
        # what layers derive from the graph (attention masks, sorted edge lists), shared by all of them
        self.cache = Made()

    def __getstate__(self) -> dict[str, Any]:
        """Without what layers derived: it may be larger than the graph, or of a library that cannot send it."""
        return {**self.__dict__, "cache": Made()}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> Mapping[str, Tensor]:
        return _Lazy(list(self.layout), lambda name: self.layout[name].per_sample)

    @property
    def batch(self) -> Mapping[str, Tensor]:
        return _Lazy(list(self.layout), lambda name: self.layout[name].batch)

    @property
    def edge_index(self) -> Mapping[EdgeKey, Tensor]:
        return _Lazy(list(self.edges), lambda key: self.edges[key].index)

    @property
    def num_nodes(self) -> int:
        return sum(counts.total for counts in self.layout.values())

    @property
    def device(self) -> torch.device:
        return next(iter(self.x.values())).device

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i`` again: features, fields and the edges it brought (rules make the others anew).

        Raises:
            IndexError: no such sample.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of a graph of {len(self)}")
        i %= len(self)
        nodes: dict[str, dict[str, Tensor]] = {}
        for name, counts in self.layout.items():
            start, size = int(counts.offset[i]), int(counts.per_sample[i])
            if size == 0:
                continue
            nodes[name] = {"x": self.x[name][start : start + size]}
            for field, value in self.fields[name].items():
                rows = value[start : start + size]
                optional = field in self.schema.nodes[name].optional
                if not (optional and rows.is_floating_point() and bool(rows.isnan().all())):
                    nodes[name][field] = rows
        edges: dict[EdgeKey, dict[str, Any]] = {}
        for key, known in self.edges.items():
            if known.listed and isinstance(self.schema.edges[key].rule, Given):
                inside, index = known.of_sample(i)
                if len(inside):
                    edges[key] = {"index": index, **{n: f[inside] for n, f in known.features.items()}}
                    if known.relation is not None:
                        edges[key]["relation"] = known.relation[inside]
        return Sample(id=self.ids[i], target=self.target[i], nodes=nodes, edges=edges)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def groups(self, field: str) -> tuple[dict[str, Tensor], Tensor]:
        """Number the groups of nodes that share a sample and a value of ``field``.

        Returns:
            type -> group of every node, int64 ``[N_type]``, for the types that have the field; and the
            sample of every group, int64 ``[G]``. The groups of a sample are 0 .. n-1, in that order.

        Raises:
            HetgraphError: no node type has the field, or a sample's groups are not 0 .. n-1.
        """
        names = [name for name in self.layout if field in self.fields[name]]
        if not names:
            raise HetgraphError(f"no node type has the field {field!r} to group by")
        # a type without a node has no dtype of its own to insist on
        values = [self.fields[name][field] for name in names]
        value = torch.cat([v if len(v) else v.long() for v in values])
        where = torch.cat([self.layout[name].batch for name in names])
        if value.dim() != 1 or value.is_floating_point():
            raise HetgraphError(
                f"field {field!r} must hold one integer per node (width 0), got {value.dtype} {list(value.shape)}"
            )
        # numbers 0 .. n-1 are below the number of nodes; refused here, because a room of that many is made below
        wild = value >= torch.bincount(where, minlength=len(self))[where]
        if bool(wild.any()):
            first_wild = int(wild.nonzero()[0, 0])
            raise HetgraphError(
                f"sample {self.ids[int(where[first_wild])]!r}: groups of field {field!r} must be 0 .. n-1, "
                f"but there is a group {int(value[first_wild])} and not as many nodes"
            )
        size = torch.zeros(len(self), dtype=torch.long, device=self.device)
        size = size.scatter_reduce(0, where, value + 1, "amax")
        first = size.cumsum(0) - size
        total = int(size.sum())
        numbers = first[where] + value
        filled = torch.zeros(total, dtype=torch.bool, device=self.device)
        if bool((value < 0).any()):
            bad = int(where[(value < 0).nonzero()[0, 0]])
            raise HetgraphError(f"sample {self.ids[bad]!r}: field {field!r} has a negative group number")
        filled[numbers] = True
        sample = torch.arange(len(self), device=self.device).repeat_interleave(size, output_size=total)
        if not bool(filled.all()):
            gap = int((~filled).nonzero()[0, 0])
            bad = int(sample[gap])
            raise HetgraphError(
                f"sample {self.ids[bad]!r}: groups of field {field!r} must be 0 .. n-1, "
                f"but no node is in group {gap - int(first[bad])}"
            )
        return dict(zip(names, numbers.split([self.layout[n].total for n in names]), strict=True)), sample

    def _map(self, move: Callable[[Tensor], Tensor], layout: Mapping[str, Counts]) -> Graph:
        return Graph(
            self.schema,
            {name: move(value) for name, value in self.x.items()},
            layout,
            {name: {f: move(v) for f, v in values.items()} for name, values in self.fields.items()},
            {k: e.map(move, layout[k[0]], layout[k[2]]) for k, e in self.edges.items()},
            [move(t) if isinstance(t, Tensor) else t for t in self.target],
            self.ids,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Graph:
        """The same graph on another device."""
        if torch.device(device) == self.device:
            return self
        layout = {name: counts.to(device) for name, counts in self.layout.items()}
        return self._map(lambda t: t.to(device, non_blocking=non_blocking), layout)

    def pin_memory(self) -> Graph:
        """The same graph in page-locked memory, for copies to a GPU that do not block."""
        return self._map(lambda t: t.pin_memory(), self.layout)

    def to_pyg(self) -> Any:
        """A PyG ``Batch`` of B ``HeteroData``; see :func:`hetgraph.interop.pyg.to_pyg`."""
        from .interop.pyg import to_pyg

        return to_pyg(self)

    @staticmethod
    def from_pyg(data: Any, schema: Schema | None = None) -> Graph:
        """From a PyG ``HeteroData``, a ``Batch`` or a list; see :func:`hetgraph.interop.pyg.from_pyg`."""
        from .interop.pyg import from_pyg

        return from_pyg(data, schema)

    def to_dgl(self) -> Any:
        """A batched DGL graph (needs the extra ``dgl``); see :func:`hetgraph.interop.dgl.to_dgl`."""
        from .interop.dgl import to_dgl

        return to_dgl(self)

    @staticmethod
    def from_dgl(data: Any, schema: Schema | None = None) -> Graph:
        """From a ``DGLGraph`` or a list of them; see :func:`hetgraph.interop.dgl.from_dgl`."""
        from .interop.dgl import from_dgl

        return from_dgl(data, schema)

    def to_networkx(self) -> nx.MultiDiGraph:
        """A networkx multigraph; see :func:`hetgraph.interop.networkx.to_networkx`."""
        from .interop.networkx import to_networkx

        return to_networkx(self)

    def __repr__(self) -> str:
        nodes = ", ".join(f"{name}: {counts.total}" for name, counts in self.layout.items())
        return f"Graph({len(self)} samples; {nodes}; {len(self.edges)} edge types)"
