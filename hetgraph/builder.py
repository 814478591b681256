"""Samples to a graph: validate, pack, and let every rule connect the whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import compiled
from .edges import Counts, Edges
from .errors import HetgraphError
from .graph import Graph
from .rules import Given, NodeSet, Structure
from .sample import Sample
from .schema import EdgeKey, EdgeType, NodeType, Schema

Columns = dict[EdgeKey, list[dict[str, Any] | None]]
"""By edge type whose edges are given: what each sample brought."""


class GraphBuilder:
    """Build graphs of one schema.

    Args:
        schema: the node and edge types.
        dtype: floating type of features, float fields and edge features.

    Example:
        >>> graph = GraphBuilder(schema)([sample, sample])
        >>> len(graph)
        2
    """

    def __init__(self, schema: Schema, dtype: torch.dtype = torch.float32) -> None:
        self.schema = schema
        self.dtype = dtype
        # what is looked up for every batch or sample
        self._nodes, self._edges = dict(schema.nodes), dict(schema.edges)
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {
            name: {field: (width,) if width else () for field, width in node.all_fields.items()}
            for name, node in schema.nodes.items()
        }
        self._relations = {
            key: {name: i for i, name in enumerate(edge.relations)} for key, edge in schema.edges.items()
        }

    def __call__(self, samples: Iterable[Sample]) -> Graph:
        """Pack samples into one graph of exactly as many.

        Raises:
            HetgraphError: no sample; a sample without a node, with an unknown type, a wrong dim, a missing
                or unknown field, a number that is not finite, edges out of range or of a type whose rule
                is not ``given``; a rule that returns something else than it should. The message names the
                sample, the type and the field.
        """
        batch = list(samples)
        if not batch:
            raise HetgraphError("a graph needs at least one sample")
        for i, sample in enumerate(batch):
            if not isinstance(sample, Sample):
                raise HetgraphError(f"sample '{i}': expected a Sample, got {type(sample).__name__}")
        ids = [sample.id if sample.id is not None else str(i) for i, sample in enumerate(batch)]
        nodes = {name: [sample.nodes.get(name, _NOTHING) for sample in batch] for name in self._nodes}
        given: Columns = {
            key: [sample.edges.get(key) for sample in batch]
            for key, edge in self._edges.items()
            if isinstance(edge.rule, Given)
        }
        sizes = {name: [part["x"].size(0) if part else 0 for part in parts] for name, parts in nodes.items()}
        if not self._sound(batch, nodes, sizes, given):
            # one of them is not as it should be; one by one they can be told apart
            for name, sample in zip(ids, batch, strict=True):
                self._check(name, sample)

        x: dict[str, Tensor] = {}
        layout: dict[str, Counts] = {}
        fields: dict[str, dict[str, Tensor]] = {}
        for name, node in self._nodes.items():
            layout[name] = Counts.of(torch.tensor(sizes[name]))
            x[name] = self._pack_x(node, nodes[name], sizes[name], ids)
            fields[name] = {f: self._pack_field(node, f, nodes[name], sizes[name], ids) for f in self._shapes[name]}

        sets = {name: self._node_set(node, x[name], layout[name], fields[name]) for name, node in self._nodes.items()}
        real: dict[tuple[str, str], Tensor] = {}
        edges = {key: self._connect(edge, sets, layout, real, given, ids) for key, edge in self._edges.items()}
        return Graph(self.schema, x, layout, fields, edges, [sample.target for sample in batch], ids)

    def _sound(
        self,
        batch: list[Sample],
        nodes: Mapping[str, list[Mapping[str, Tensor]]],
        sizes: Mapping[str, list[int]],
        given: Columns,
    ) -> bool:
        """One look at the whole batch, type by type: whether :meth:`_check` would let every sample pass.

        ``False`` may also come of something unusual that is right, as an empty node set without its fields.
        """
        known = sum(len(column) - column.count(None) for column in given.values())
        if sum(len(sample.edges) for sample in batch) != known:
            return False
        for name, parts in nodes.items():
            there = [part for part in parts if part]
            entries = len(there)
            if not {part["x"].size(1) for part in there} <= {self._nodes[name].dim}:
                return False
            for field, shape in self._shapes[name].items():
                values = [part[field] for part in there if field in part]
                if field in self._nodes[name].fields and len(values) < len(there):
                    return False
                if not {value.dim() for value in values} <= {1 + len(shape)}:
                    return False
                if shape and not {value.size(1) for value in values} <= {shape[0]}:
                    return False
                entries += len(values)
            if sum(map(len, there)) != entries:
                return False
        if sum(len(sample.nodes) for sample in batch) != sum(map(bool, chain.from_iterable(nodes.values()))):
            return False
        return all(map(any, zip(*sizes.values(), strict=True)))

    def _check(self, name: str, sample: Sample) -> None:
        where = f"sample {name!r}"
        nodes = self.schema.nodes
        total = 0
        for kind, values in sample.nodes.items():
            if kind not in nodes:
                raise HetgraphError(f"{where}: unknown node type {kind!r}; the schema has {list(nodes)}")
            known = self._shapes[kind]
            size, dim = values["x"].shape
            if dim != nodes[kind].dim:
                raise HetgraphError(f"{where}: node type {kind!r} has dim {dim}, the schema says {nodes[kind].dim}")
            total += size
            for field, value in values.items():
                if field == "x":
                    continue
                if field not in known:
                    raise HetgraphError(
                        f"{where}: node type {kind!r} has an undeclared field {field!r}; the schema has {sorted(known)}"
                    )
                if value.shape[1:] != known[field]:
                    expected = f"[N, {known[field][0]}]" if known[field] else "[N]"
                    raise HetgraphError(
                        f"{where}: node type {kind!r}: field {field!r} must be {expected}, got {list(value.shape)}"
                    )
            # without a node there is nothing that could lack a field
            missing = [f for f in nodes[kind].fields if f not in values] if size else []
            if missing:
                raise HetgraphError(
                    f"{where}: node type {kind!r} lacks the field {missing[0]!r} that the schema requires"
                )
        if total == 0:
            raise HetgraphError(f"{where}: not a single node; a sample needs at least one")
        for key in sample.edges:
            if key not in self.schema.edges:
                raise HetgraphError(f"{where}: unknown edge type {key}; the schema has {list(self.schema.edges)}")
            if not isinstance(self.schema.edges[key].rule, Given):
                raise HetgraphError(
                    f"{where}: edges of type {key} are made by its rule; only rule=rules.given takes edges"
                )

    def _pack_x(self, node: NodeType, parts: list[Mapping[str, Tensor]], sizes: list[int], ids: list[str]) -> Tensor:
        packed = _joined([part["x"] for part in parts if part], (node.dim,), self.dtype)
        _refuse_non_finite(packed, sizes, ids, node.name, "x")
        return packed

    def _pack_field(
        self, node: NodeType, field: str, parts: list[Mapping[str, Tensor]], sizes: list[int], ids: list[str]
    ) -> Tensor:
        shape = self._shapes[node.name][field]
        values = [part[field] for part in parts if field in part]
        if len(values) == len(parts) and values[0].is_floating_point() and len({v.dtype for v in values}) == 1:
            packed = _joined(values, shape, self.dtype)
            _refuse_non_finite(packed, sizes, ids, node.name, field)
            return packed
        some = [(part.get(field), size) for part, size in zip(parts, sizes, strict=True) if size]
        found = [
            torch.full((size, *shape), torch.nan, dtype=self.dtype) if value is None else value for value, size in some
        ]
        whole = [value.long() for value in found if not value.is_floating_point()]
        if found and len(whole) == len(found):
            return torch.cat(whole)
        packed = _joined(found, shape, self.dtype)
        if any(bool((value.to(self.dtype).long() != value).any()) for value in whole):
            # beside the NaN of samples that lack the field, large numbers must stay apart
            exact = [value.to(self.dtype) if value.is_floating_point() else value.long() for value in found]
            packed = torch.cat([value.double() for value in exact])
        present = [value is not None for value, _ in some]
        checked = packed
        if not all(present):
            rows = torch.tensor(present).repeat_interleave(torch.tensor([size for _, size in some]))
            checked = packed.masked_fill(~rows.view(-1, *[1] * len(shape)), 0.0)
        _refuse_non_finite(checked, sizes, ids, node.name, field)
        return packed

    def _node_set(self, node: NodeType, x: Tensor, counts: Counts, fields: Mapping[str, Tensor]) -> NodeSet:
        tensors = {"x": x, **fields}
        lazy = {name: (lambda value=value: counts.pad(value)) for name, value in tensors.items()}
        return NodeSet(lazy, counts.valid, node.name)

    def _connect(
        self,
        edge: EdgeType,
        sets: Mapping[str, NodeSet],
        layout: Mapping[str, Counts],
        real: dict[tuple[str, str], Tensor],
        given: Columns,
        ids: list[str],
    ) -> Edges:
        """The edges of one type; ``real`` keeps, by node types, which pairs of places hold two nodes."""
        src, dst = layout[edge.src], layout[edge.dst]
        if isinstance(edge.rule, Structure):
            if edge.features:
                raise HetgraphError(
                    f"edge type {edge.key}: a structured rule gives no features, the schema wants {list(edge.features)}"
                )
            return Edges(src, dst, structure=edge.rule)
        if isinstance(edge.rule, Given):
            return self._collect(edge, src, dst, given[edge.key], ids)
        shape = (len(ids), src.longest, dst.longest)
        if src.total == 0 or dst.total == 0:
            # nothing to connect: user-made rules need not survive an empty node set
            empty = {n: torch.zeros(*shape, max(d, 1), dtype=self.dtype) for n, d in edge.features.items()}
            return Edges(src, dst, mask=torch.zeros(shape, dtype=torch.bool), features=empty)
        answer = edge.rule(sets[edge.src], sets[edge.dst])
        where = f"edge type {edge.key}: rule"
        if isinstance(answer, tuple) and not (len(answer) == 2 and isinstance(answer[1], Mapping)):
            got = ", ".join(type(part).__name__ for part in answer)
            raise HetgraphError(f"{where} must give a mask, or a mask and a dict of features, got ({got})")
        mask, features = answer if isinstance(answer, tuple) else (answer, {})
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != shape:
            got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise HetgraphError(f"{where} must give a bool mask of shape {list(shape)}, got {got}")
        if set(features) != set(edge.features):
            raise HetgraphError(f"{where} gives features {sorted(features)}, the schema says {sorted(edge.features)}")
        if src.uniform and dst.uniform:
            # every pair of places is one of nodes; a rule may keep its mask and change it
            mask = mask.clone(memory_format=torch.contiguous_format)
        else:
            ends = (edge.src, edge.dst)
            if ends not in real:
                real[ends] = src.valid[:, :, None] & dst.valid[:, None, :]
            mask = mask & real[ends]
        kept: dict[str, Tensor] = {}
        for name, width in edge.features.items():
            value = features[name]
            if not isinstance(value, Tensor) or value.is_complex():
                kind = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
                raise HetgraphError(f"{where}: feature {name!r} must be a tensor of real numbers, got {kind}")
            if width == 0 and tuple(value.shape) == shape:
                value = value[..., None]
            if tuple(value.shape) != (*shape, max(width, 1)):
                raise HetgraphError(
                    f"{where}: feature {name!r} must be {[*shape, max(width, 1)]}, got {list(value.shape)}"
                )
            value = value.to(self.dtype).masked_fill(~mask[..., None], 0.0)
            if not _finite(value):
                bad = int((~value.isfinite()).nonzero()[0, 0])
                raise HetgraphError(f"sample {ids[bad]!r}: {where}: feature {name!r} is not finite")
            kept[name] = value
        return Edges(src, dst, mask=mask, features=kept)

    def _collect(
        self, edge: EdgeType, src: Counts, dst: Counts, column: list[dict[str, Any] | None], ids: list[str]
    ) -> Edges:
        brought = [given for given in column if given is not None]
        pairs = [given["index"] for given in brought]
        # as arrays, of which many small ones are made several times faster than tensors
        owners = np.array([i for i, given in enumerate(column) if given is not None], np.int64)
        sizes = np.array([pair.size(1) for pair in pairs], np.int64)
        index = self._packed_ids(edge, pairs, owners, sizes, src, dst, ids)
        if not edge.features and not edge.relations and sum(map(len, brought)) == len(brought):
            return Edges(src, dst, index=index)
        owner = _each_owner(owners, sizes)
        relation: list[Tensor] = []
        features: dict[str, list[Tensor]] = {name: [] for name in edge.features}
        declared = {"index", "relation", *edge.features} if edge.relations else {"index", *edge.features}
        for i, given in zip(owners.tolist(), brought, strict=True):
            where = f"sample {ids[i]!r}: edges {edge.key}"
            if not declared.issuperset(given):
                extra = set(given) - declared
                raise HetgraphError(f"{where}: undeclared {sorted(extra - {'relation'}) or ['relation']}")
            if edge.relations:
                relation.append(self._relation_ids(edge, given, where))
            for name, width in edge.features.items():
                features[name].append(_edge_feature(given, name, width, where))
        return Edges(
            src,
            dst,
            index=index,
            features={name: self._pack_feature(edge, name, values, owner, ids) for name, values in features.items()},
            relation=self._pack_relation(edge, relation, owner, ids) if edge.relations else None,
        )

    def _packed_ids(
        self,
        edge: EdgeType,
        pairs: list[Tensor],
        owners: np.ndarray,
        sizes: np.ndarray,
        src: Counts,
        dst: Counts,
        ids: list[str],
    ) -> Tensor:
        """The edges that samples ``owners`` brought, ``sizes`` each, in one list of packed ids ``[2, E]``."""
        if not pairs:
            return torch.zeros(2, 0, dtype=torch.long)
        packed = torch.cat(pairs, 1)
        if packed.size(1) >= _LEAST_EDGES:
            ends = (src.per_sample.numpy(), src.offset.numpy(), dst.per_sample.numpy(), dst.offset.numpy())
            if compiled().shift(packed.numpy(), owners, sizes, *ends):
                return packed
            # some were out of reach, others moved already
            packed = torch.cat(pairs, 1)
        owner = _each_owner(owners, sizes)
        self._refuse_outside(edge, packed, owner, src, dst, ids)
        return packed.add_(torch.stack([src.offset, dst.offset])[:, owner])

    def _refuse_outside(
        self, edge: EdgeType, packed: Tensor, owner: Tensor, src: Counts, dst: Counts, ids: list[str]
    ) -> None:
        """One look at all edges of the batch ``[2, E]``; the sample is only looked for if there is something wrong."""
        outside = (packed < 0) | (packed >= torch.stack([src.per_sample, dst.per_sample])[:, owner])
        if not bool(outside.any()):
            return
        i = int(owner[outside.any(0)][0])
        row = 0 if bool(outside[0, owner == i].any()) else 1
        own = packed[row, owner == i]
        end, counts = ((edge.src, src), (edge.dst, dst))[row]
        size = int(counts.per_sample[i])
        raise HetgraphError(
            f"sample {ids[i]!r}: edges {edge.key}: index row {row} must lie in 0 .. {size - 1} ({end!r} has {size} "
            f"nodes), got {int(own.min())} .. {int(own.max())}"
        )

    def _relation_ids(self, edge: EdgeType, given: Mapping[str, Any], where: str) -> Tensor:
        if "relation" not in given:
            raise HetgraphError(f"{where}: no 'relation', but the edge type has {len(edge.relations)} of them")
        value = given["relation"]
        if isinstance(value, list):
            place = self._relations[edge.key]
            unknown = sorted(set(value) - place.keys())
            if unknown:
                raise HetgraphError(f"{where}: unknown relation {unknown[0]!r}; known: {list(edge.relations)[:10]}")
            return torch.tensor([place[name] for name in value], dtype=torch.long)
        if value.dim() != 1 or value.is_floating_point():
            raise HetgraphError(f"{where}: relation must be integers [E], got {value.dtype} {list(value.shape)}")
        return value.long()

    def _pack_relation(self, edge: EdgeType, values: list[Tensor], owner: Tensor, ids: list[str]) -> Tensor:
        packed = torch.cat([owner[:0], *values])
        outside = (packed < 0) | (packed >= len(edge.relations))
        if bool(outside.any()):
            i = owner[outside][0]
            own = packed[owner == i]
            raise HetgraphError(
                f"sample {ids[int(i)]!r}: edges {edge.key}: relation ids must lie in 0 .. {len(edge.relations) - 1}, "
                f"got {int(own.min())} .. {int(own.max())}"
            )
        return packed

    def _pack_feature(self, edge: EdgeType, name: str, values: list[Tensor], owner: Tensor, ids: list[str]) -> Tensor:
        packed = _joined(values, (max(edge.features[name], 1),), self.dtype)
        if not _finite(packed):
            i = int(owner[(~packed.isfinite()).any(1)][0])
            raise HetgraphError(f"sample {ids[i]!r}: edges {edge.key}: feature {name!r} is not finite")
        return packed


_NOTHING: Mapping[str, Tensor] = {}

_LEAST_EDGES = 1 << 12
"""Below so many edges the compiled loop is not worth waking."""


def _each_owner(owners: np.ndarray, sizes: np.ndarray) -> Tensor:
    """The sample of every edge, int64 ``[E]``."""
    return torch.from_numpy(owners).repeat_interleave(torch.from_numpy(sizes))


def _edge_feature(given: Mapping[str, Any], name: str, width: int, where: str) -> Tensor:
    """A feature of one sample's edges, ``[E, width]`` (``[E, 1]`` for width 0), of whatever dtype it has."""
    if name not in given:
        raise HetgraphError(f"{where}: lacks the feature {name!r}")
    count = given["index"].size(1)
    value = given[name]
    if value.shape[1:] != ((width,) if width else ()) and not (value.numel() == count and (width <= 1 or not count)):
        raise HetgraphError(f"{where}: feature {name!r} must be [E, {width}], got {list(value.shape)}")
    return value.reshape(count, max(width, 1))


def _joined(parts: list[Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The parts one after the other, ``[N, *shape]`` of a dtype, in memory of their own."""
    if len({part.dtype for part in parts}) > 1:
        # to the dtype of all: joined as they are, whole numbers would be rounded to a smaller one first
        parts = [part.to(dtype) for part in parts]
    # a tensor may have been told to keep a gradient after its sample was made
    return torch.cat(parts).to(dtype).detach() if parts else torch.zeros(0, *shape, dtype=dtype)


def _finite(packed: Tensor) -> bool:
    # a sum with NaN or infinity in it is not finite; of the others some are not either, which the second look tells
    return math.isfinite(packed.sum().item()) or bool(packed.isfinite().all())


def _refuse_non_finite(packed: Tensor, sizes: list[int], ids: list[str], kind: str, field: str) -> None:
    if _finite(packed):
        return
    row = int((~packed.isfinite()).reshape(len(packed), -1).any(-1).nonzero()[0, 0])
    node = row
    for name, size in zip(ids, sizes, strict=True):
        if node < size:
            value = packed[row][~packed[row].isfinite()].flatten()[0].item() if packed.dim() > 1 else packed[row].item()
            raise HetgraphError(
                f"sample {name!r}: node type {kind!r}: field {field!r} of node {node} is {value}, "
                "expected finite numbers"
            )
        node -= size
