"""Node types, edge types and the schema: frozen values that say what a graph may contain.

A schema is a value, not a registry entry: two can coexist, ``extend`` returns a new one, and nothing
is global. Any string is a legal name, because names never become parameter names: layers stack their
weights by the integer ids a schema hands out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from . import rules as _rules
from .errors import HetgraphError

EdgeKey = tuple[str, str, str]


def _frozen_dims(owner: str, what: str, dims: Mapping[str, int]) -> Mapping[str, int]:
    if not isinstance(dims, Mapping):
        raise HetgraphError(f"{owner}: {what}s are given as a mapping name -> width, got {type(dims).__name__}")
    for name, dim in dims.items():
        if not isinstance(name, str) or not name:
            raise HetgraphError(f"{owner}: {what} names are non-empty strings, got {name!r}")
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 0:
            raise HetgraphError(f"{owner}: {what} {name!r} needs a dim >= 0 (0: one number), got {dim!r}")
    # sorted, because types that differ in this order alone are equal and must lay out their weights alike
    return MappingProxyType(dict(sorted(dims.items())))


@dataclass(frozen=True)
class NodeType:
    """A kind of node.

    Args:
        name: any non-empty string, such as ``"region"`` or ``"img.region"``.
        dim: width of the feature vector ``x`` of one node.
        fields: what every node of this type carries besides ``x``: name -> width. A field of width ``d``
            is an array ``[N, d]``; width 0 means one number per node, ``[N]``. Rules read fields.
        optional: fields that a sample may leave out. A missing one reads as NaN, which no built-in rule
            connects.
        categories: of fields of width 0 that hold whole numbers 0 .. n-1: name -> n. A model learns a vector for
            each number (:class:`~hetgraph.nn.InputProjection`); -1 stands for none of them.

    Raises:
        HetgraphError: empty name, impossible width, a field called ``x``, or categories of something else than a
            field of width 0.
    """

    name: str
    dim: int
    fields: Mapping[str, int] = field(default_factory=dict)
    optional: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise HetgraphError(f"a node type's name is a non-empty string, got {self.name!r}")
        owner = f"node type {self.name!r}"
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 1:
            raise HetgraphError(f"{owner}: dim must be a positive integer, got {self.dim!r}")
        object.__setattr__(self, "fields", _frozen_dims(owner, "field", self.fields))
        object.__setattr__(self, "optional", _frozen_dims(owner, "optional field", self.optional))
        both = sorted(set(self.fields) & set(self.optional))
        if both:
            raise HetgraphError(f"{owner}: fields {both} are both required and optional")
        if "x" in self.all_fields:
            raise HetgraphError(f"{owner}: 'x' is the feature vector and cannot be a field")
        object.__setattr__(self, "categories", _frozen_dims(owner, "number of categories of", self.categories))
        for name, count in self.categories.items():
            if self.all_fields.get(name) != 0 or count < 1:
                raise HetgraphError(
                    f"{owner}: categories need a field of width 0 and at least one value, got {count} of {name!r}"
                )

    @property
    def all_fields(self) -> dict[str, int]:
        """Required and optional fields together."""
        return {**self.fields, **self.optional}

    def __hash__(self) -> int:
        parts = (self.fields, self.optional, self.categories)
        return hash((self.name, self.dim, *(tuple(part.items()) for part in parts)))

    def __reduce__(self) -> tuple[Any, ...]:
        # copied and pickled by construction: a mapping proxy can do neither
        return type(self), (self.name, self.dim, dict(self.fields), dict(self.optional), dict(self.categories))

    def to_json(self) -> dict[str, Any]:
        out = {"name": self.name, "dim": self.dim, "fields": dict(self.fields), "optional": dict(self.optional)}
        # left out where there are none: the fingerprints of most schemas are older than categories
        return {**out, "categories": dict(self.categories)} if self.categories else out


@dataclass(frozen=True)
class EdgeType:
    """A kind of edge, from nodes of type ``src`` to nodes of type ``dst``.

    Args:
        src, relation, dst: the two node types and the name of the relation between them.
        rule: decides who is connected. ``rules.all_pairs`` (default), another rule of
            :mod:`hetgraph.rules`, or any function of the two node sets (see there).
            ``rules.given`` takes the edges that each sample brings.
        features: edge features the rule (or the sample) supplies: name -> width. They enter the
            attention as an additive bias per head.
        relations: names of many relations that share this edge type (a knowledge graph has hundreds).
            Each edge then carries a relation id, and the weights are mixtures of a few shared bases.

    Raises:
        HetgraphError: empty names, impossible widths, repeated relation names, a rule that is not callable,
            or ``relations`` on an edge type whose rule is not ``rules.given``.
    """

    src: str
    relation: str
    dst: str
    rule: Callable[..., Any] = field(default_factory=lambda: _rules.all_pairs)
    features: Mapping[str, int] = field(default_factory=dict)
    relations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in self.key:
            if not isinstance(part, str) or not part:
                raise HetgraphError(f"edge type {self.key}: every name is a non-empty string, got {part!r}")
        owner = f"edge type {self.key}"
        if not callable(self.rule):
            raise HetgraphError(f"{owner}: rule must be callable, got {type(self.rule).__name__}")
        object.__setattr__(self, "features", _frozen_dims(owner, "feature", self.features))
        if {"index", "relation"} & set(self.features):
            raise HetgraphError(f"{owner}: a feature cannot be called 'index' or 'relation'")
        if isinstance(self.relations, str):
            raise HetgraphError(f"{owner}: relations is a list of names, got the string {self.relations!r}")
        names = tuple(self.relations)
        if not all(isinstance(n, str) and n for n in names):
            raise HetgraphError(f"{owner}: relation names are non-empty strings, got {names}")
        if len(set(names)) != len(names):
            raise HetgraphError(f"{owner}: relation names repeat: {sorted(n for n in names if names.count(n) > 1)}")
        if names and self.rule != _rules.given:
            raise HetgraphError(f"{owner}: relations= needs rule=rules.given, because a rule cannot name relations")
        object.__setattr__(self, "relations", names)

    @property
    def key(self) -> EdgeKey:
        return (self.src, self.relation, self.dst)

    @property
    def feature_dim(self) -> int:
        """Width of all features side by side; a feature of width 0 is one number."""
        return sum(max(d, 1) for d in self.features.values())

    def __hash__(self) -> int:
        return hash((self.key, tuple(self.features.items()), self.relations))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.key, self.rule, dict(self.features), self.relations)

    def to_json(self) -> dict[str, Any]:
        return {
            "src": self.src,
            "relation": self.relation,
            "dst": self.dst,
            "rule": _rules.spec_of(self.rule),
            "features": dict(self.features),
            "relations": list(self.relations),
        }


class Schema:
    """Which node and edge types a graph has. Immutable; compare with ``==``.

    Args:
        nodes: the node types; their order gives the integer ids.
        edges: the edge types; their order gives the integer ids.

    Raises:
        HetgraphError: no node type, a repeated name or edge key, or an edge with an unknown end.
    """

    def __init__(self, nodes: Iterable[NodeType], edges: Iterable[EdgeType] = ()) -> None:
        self._nodes: dict[str, NodeType] = {}
        self._edges: dict[EdgeKey, EdgeType] = {}
        for node in nodes:
            if not isinstance(node, NodeType):
                raise HetgraphError(f"a schema's nodes are NodeType, got {type(node).__name__}")
            if node.name in self._nodes:
                raise HetgraphError(f"node type {node.name!r} is declared twice")
            self._nodes[node.name] = node
        if not self._nodes:
            raise HetgraphError("a schema needs at least one node type")
        for edge in edges:
            if not isinstance(edge, EdgeType):
                raise HetgraphError(f"a schema's edges are EdgeType, got {type(edge).__name__}")
            if edge.key in self._edges:
                raise HetgraphError(f"edge type {edge.key} is declared twice")
            for end in (edge.src, edge.dst):
                if end not in self._nodes:
                    raise HetgraphError(f"edge type {edge.key}: unknown node type {end!r}; known: {list(self._nodes)}")
            self._edges[edge.key] = edge

    @property
    def nodes(self) -> Mapping[str, NodeType]:
        """Node types by name, in id order."""
        return MappingProxyType(self._nodes)

    @property
    def edges(self) -> Mapping[EdgeKey, EdgeType]:
        """Edge types by ``(src, relation, dst)``, in id order."""
        return MappingProxyType(self._edges)

    @cached_property
    def node_ids(self) -> Mapping[str, int]:
        return MappingProxyType({name: i for i, name in enumerate(self._nodes)})

    @cached_property
    def edge_ids(self) -> Mapping[EdgeKey, int]:
        return MappingProxyType({key: i for i, key in enumerate(self._edges)})

    @cached_property
    def incoming(self) -> Mapping[str, tuple[EdgeKey, ...]]:
        """For each node type the edge types that end in it, in id order."""
        return MappingProxyType({name: tuple(key for key in self._edges if key[2] == name) for name in self._nodes})

    def extend(self, *items: NodeType | EdgeType) -> Schema:
        """A new schema with these types appended (checked at once)."""
        wrong = [type(i).__name__ for i in items if not isinstance(i, (NodeType, EdgeType))]
        if wrong:
            raise HetgraphError(f"extend takes NodeType and EdgeType, got {wrong}")
        nodes = [*self._nodes.values(), *(i for i in items if isinstance(i, NodeType))]
        edges = [*self._edges.values(), *(i for i in items if isinstance(i, EdgeType))]
        return Schema(nodes, edges)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able description. Built-in rules are described whole, other functions by name only."""
        return {
            "nodes": [n.to_json() for n in self._nodes.values()],
            "edges": [e.to_json() for e in self._edges.values()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], rules: Mapping[EdgeKey, Callable[..., Any]] | None = None) -> Schema:
        """The inverse of :meth:`to_json`.

        Args:
            data: what ``to_json`` gave.
            rules: the user-made rules by edge key. Each must carry the name that was saved.

        Raises:
            HetgraphError: a user-made rule is missing, has another name, or is given for an edge type
                that does not take one; or the data is not a schema.
        """
        rules = dict(rules or {})
        try:
            nodes = [NodeType(**n) for n in data["nodes"]]
            edges = []
            for e in data["edges"]:
                key = (e["src"], e["relation"], e["dst"])
                rule = _rules.from_spec(e["rule"], rules.pop(key, None), key)
                edges.append(EdgeType(*key, rule=rule, features=e["features"], relations=tuple(e["relations"])))
        except HetgraphError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise HetgraphError(f"not a schema: {error!r}") from error
        if rules:
            raise HetgraphError(f"rules were passed for edge types the schema does not have: {sorted(rules)}")
        return cls(nodes, edges)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the schema's content; equal schemas have equal fingerprints."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def difference(self, other: Schema) -> str:
        """The first few differences to another schema, in words; empty if there is none."""
        found: list[str] = []
        pairs: list[tuple[str, dict[Any, Any], dict[Any, Any]]] = [
            ("node type", dict(self._nodes), dict(other._nodes)),
            ("edge type", dict(self._edges), dict(other._edges)),
        ]
        for what, mine, theirs in pairs:
            found += [f"{what} {k!r} is missing" for k in theirs if k not in mine]
            found += [f"{what} {k!r} is extra" for k in mine if k not in theirs]
            for k in mine:
                if k in theirs and mine[k].to_json() != theirs[k].to_json():
                    found.append(f"{what} {k!r} is {mine[k].to_json()}, expected {theirs[k].to_json()}")
        if not found and self != other:
            found.append("the types are the same but their order differs")
        return "; ".join(found[:5])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self._nodes.values()), list(self._edges.values()))

    def __repr__(self) -> str:
        nodes = ", ".join(f"{n.name}[{n.dim}]" for n in self._nodes.values())
        return f"Schema({len(self._nodes)} node types: {nodes}; {len(self._edges)} edge types)"
