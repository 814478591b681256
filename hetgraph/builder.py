"""Samples to a graph: validate, pack, and let every rule connect the whole batch at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .edges import Counts, Edges
from .errors import HetgraphError
from .graph import Graph
from .rules import Given, NodeSet, Structure
from .sample import Sample
from .schema import EdgeType, NodeType, Schema


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
        for name, sample in zip(ids, batch, strict=True):
            self._check(name, sample)

        x: dict[str, Tensor] = {}
        layout: dict[str, Counts] = {}
        fields: dict[str, dict[str, Tensor]] = {}
        for name, node in self.schema.nodes.items():
            parts = [sample.nodes.get(name) for sample in batch]
            layout[name] = Counts.of(torch.tensor([0 if p is None else len(p["x"]) for p in parts]))
            x[name] = self._pack_x(node, parts, ids)
            fields[name] = {f: self._pack_field(node, f, parts, ids) for f in node.all_fields}

        sets = {
            name: self._node_set(node, x[name], layout[name], fields[name]) for name, node in self.schema.nodes.items()
        }
        edges = {key: self._connect(edge, sets, layout, batch, ids) for key, edge in self.schema.edges.items()}
        return Graph(self.schema, x, layout, fields, edges, [sample.target for sample in batch], ids)

    def _check(self, name: str, sample: Sample) -> None:
        where = f"sample {name!r}"
        nodes = self.schema.nodes
        total = 0
        for kind, values in sample.nodes.items():
            if kind not in nodes:
                raise HetgraphError(f"{where}: unknown node type {kind!r}; the schema has {list(nodes)}")
            node = nodes[kind]
            if values["x"].shape[1] != node.dim:
                raise HetgraphError(
                    f"{where}: node type {kind!r} has dim {values['x'].shape[1]}, the schema says {node.dim}"
                )
            total += len(values["x"])
            known = node.all_fields
            for field, value in values.items():
                if field == "x":
                    continue
                if field not in known:
                    raise HetgraphError(
                        f"{where}: node type {kind!r} has an undeclared field {field!r}; the schema has {sorted(known)}"
                    )
                width = known[field]
                shape = list(value.shape[1:])
                if shape != ([width] if width else []):
                    expected = f"[N, {width}]" if width else "[N]"
                    raise HetgraphError(
                        f"{where}: node type {kind!r}: field {field!r} must be {expected}, got {list(value.shape)}"
                    )
            # without a node there is nothing that could lack a field
            missing = [f for f in node.fields if f not in values] if len(values["x"]) else []
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

    def _pack_x(self, node: NodeType, parts: list[dict[str, Tensor] | None], ids: list[str]) -> Tensor:
        found = [p["x"].to(self.dtype) for p in parts if p is not None]
        packed = torch.cat(found) if found else torch.zeros(0, node.dim, dtype=self.dtype)
        _refuse_non_finite(packed, [0 if p is None else len(p["x"]) for p in parts], ids, node.name, "x")
        return packed

    def _pack_field(self, node: NodeType, field: str, parts: list[dict[str, Tensor] | None], ids: list[str]) -> Tensor:
        width = node.all_fields[field]
        shape = (width,) if width else ()
        found: list[Tensor] = []
        for part in parts:
            if part is None or not len(part["x"]):
                continue
            value = part.get(field)
            if value is None:
                found.append(torch.full((len(part["x"]), *shape), torch.nan, dtype=self.dtype))
            else:
                found.append(value.to(self.dtype) if value.is_floating_point() else value.long())
        if not found:
            return torch.zeros(0, *shape, dtype=self.dtype)
        whole = [value for value in found if not value.is_floating_point()]
        if len(whole) < len(found) and any(bool((v.to(self.dtype).long() != v).any()) for v in whole):
            # beside the NaN of samples that lack the field, large numbers must stay apart
            found = [value.double() for value in found]
        packed = torch.cat(found)
        if packed.is_floating_point():
            present = torch.cat(
                [torch.full((len(p["x"]),), field in p) for p in parts if p is not None and len(p["x"])]
            )
            checked = packed if bool(present.all()) else packed.masked_fill(~present.view(-1, *[1] * len(shape)), 0.0)
            _refuse_non_finite(checked, [0 if p is None else len(p["x"]) for p in parts], ids, node.name, field)
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
        batch: list[Sample],
        ids: list[str],
    ) -> Edges:
        src, dst = layout[edge.src], layout[edge.dst]
        if isinstance(edge.rule, Structure):
            if edge.features:
                raise HetgraphError(
                    f"edge type {edge.key}: a structured rule gives no features, the schema wants {list(edge.features)}"
                )
            return Edges(src, dst, structure=edge.rule)
        if isinstance(edge.rule, Given):
            return self._collect(edge, src, dst, batch, ids)
        shape = (len(batch), src.longest, dst.longest)
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
        mask = mask & src.valid[:, :, None] & dst.valid[:, None, :]
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
            if not bool(value.isfinite().all()):
                bad = int((~value.isfinite()).nonzero()[0, 0])
                raise HetgraphError(f"sample {ids[bad]!r}: {where}: feature {name!r} is not finite")
            kept[name] = value
        return Edges(src, dst, mask=mask, features=kept)

    def _collect(self, edge: EdgeType, src: Counts, dst: Counts, batch: list[Sample], ids: list[str]) -> Edges:
        index: list[Tensor] = []
        relation: list[Tensor] = []
        features: dict[str, list[Tensor]] = {name: [] for name in edge.features}
        first_src, first_dst = src.offset.tolist(), dst.offset.tolist()
        size_src, size_dst = src.per_sample.tolist(), dst.per_sample.tolist()
        for i, sample in enumerate(batch):
            given = sample.edges.get(edge.key)
            if given is None:
                continue
            where = f"sample {ids[i]!r}: edges {edge.key}"
            pairs = given["index"]
            for row, size, end in ((0, size_src[i], edge.src), (1, size_dst[i], edge.dst)):
                if pairs.shape[1] and not (int(pairs[row].min()) >= 0 and int(pairs[row].max()) < size):
                    raise HetgraphError(
                        f"{where}: index row {row} must lie in 0 .. {size - 1} ({end!r} has {size} nodes), "
                        f"got {int(pairs[row].min())} .. {int(pairs[row].max())}"
                    )
            index.append(pairs + pairs.new_tensor([[first_src[i]], [first_dst[i]]]))
            extra = set(given) - {"index", "relation"} - set(edge.features)
            if extra or (not edge.relations and "relation" in given):
                raise HetgraphError(f"{where}: undeclared {sorted(extra) or ['relation']}")
            if edge.relations:
                relation.append(self._relation_ids(edge, given, where))
            for name, width in edge.features.items():
                features[name].append(self._edge_feature(given, name, width, where))
        none = torch.zeros(2, 0, dtype=torch.long)
        return Edges(
            src,
            dst,
            index=torch.cat([none, *index], 1),
            features={
                name: torch.cat([torch.zeros(0, max(edge.features[name], 1), dtype=self.dtype), *values])
                for name, values in features.items()
            },
            relation=torch.cat([none[0], *relation]) if edge.relations else None,
        )

    def _relation_ids(self, edge: EdgeType, given: Mapping[str, Any], where: str) -> Tensor:
        if "relation" not in given:
            raise HetgraphError(f"{where}: no 'relation', but the edge type has {len(edge.relations)} of them")
        value = given["relation"]
        if isinstance(value, list):
            unknown = sorted(set(value) - set(edge.relations))
            if unknown:
                raise HetgraphError(f"{where}: unknown relation {unknown[0]!r}; known: {list(edge.relations)[:10]}")
            place = {name: i for i, name in enumerate(edge.relations)}
            return torch.tensor([place[name] for name in value], dtype=torch.long)
        if value.dim() != 1 or value.is_floating_point():
            raise HetgraphError(f"{where}: relation must be integers [E], got {value.dtype} {list(value.shape)}")
        if len(value) and not (int(value.min()) >= 0 and int(value.max()) < len(edge.relations)):
            raise HetgraphError(
                f"{where}: relation ids must lie in 0 .. {len(edge.relations) - 1}, "
                f"got {int(value.min())} .. {int(value.max())}"
            )
        return value.long()

    def _edge_feature(self, given: Mapping[str, Any], name: str, width: int, where: str) -> Tensor:
        if name not in given:
            raise HetgraphError(f"{where}: lacks the feature {name!r}")
        count = given["index"].shape[1]
        value = given[name].to(self.dtype)
        if value.numel() == count == 0:
            return value.reshape(0, max(width, 1))
        if list(value.shape[1:]) != ([width] if width else []) and not (width <= 1 and value.numel() == count):
            raise HetgraphError(f"{where}: feature {name!r} must be [E, {width}], got {list(value.shape)}")
        if not bool(value.isfinite().all()):
            raise HetgraphError(f"{where}: feature {name!r} is not finite")
        return value.reshape(count, max(width, 1))


def _refuse_non_finite(packed: Tensor, sizes: list[int], ids: list[str], kind: str, field: str) -> None:
    if bool(packed.isfinite().all()):
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
