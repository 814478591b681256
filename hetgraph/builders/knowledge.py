"""Entities of a knowledge graph as nodes of a schema."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, overload

from .. import rules
from ..errors import HetgraphError
from ..schema import EdgeType, NodeType, Schema


class Relational(Protocol):
    """What is needed of a :class:`hetgraph.kg.KnowledgeGraph`."""

    @property
    def relations(self) -> Sequence[str]: ...

    @property
    def num_entities(self) -> int: ...


@overload
def with_knowledge(
    schema: Schema,
    kg: Relational,
    /,
    *,
    dim: int | None = ...,
    learned: bool = ...,
    mentions: Iterable[str] | None = ...,
    depicts: Iterable[str] | None = ...,
    relations: Iterable[str] | None = ...,
    inverse: bool = ...,
    context: str | None = ...,
) -> Schema: ...


@overload
def with_knowledge(schema: Schema, kg: int, relations: Iterable[str], /, *links: str) -> Schema: ...


def with_knowledge(
    schema: Schema,
    kg: Relational | int,
    *parts: Iterable[str] | str,
    dim: int | None = None,
    learned: bool = False,
    mentions: Iterable[str] | None = None,
    depicts: Iterable[str] | None = None,
    relations: Iterable[str] | None = None,
    inverse: bool = True,
    context: str | None = None,
) -> Schema:
    """Add the entities of a knowledge graph to a schema; :class:`hetgraph.kg.Knowledge` makes the samples for it.

    A sample without entities is the same graph as without knowledge: every new edge ends or begins at an entity.

    ==================================================  =====================================================
    ``entity``                                          node; field ``id``: its number, optional ``score``: of
                                                        the retriever
    ``(token, "mentions", entity)`` and                 given by the sample, with the feature ``score`` of the
    ``(entity, "mentioned", token)``                    link; the same ``depicts`` and ``depicted``
    ``(entity, "fact", entity)``                        given, one type for all relations: each edge says which;
                                                        ``^name`` is the inverse of the relation ``name``
    ``(context, "with", entity)`` and back              all pairs, if there is a context node
    ==================================================  =====================================================

    Args:
        schema: what to extend.
        kg: gives the relations.
        dim: width of an entity's features; None: it has none and its vector is learned.
        learned: learn a vector for every entity of the graph, beside the features.
        mentions: node types with words. Default: those with a field ``span``.
        depicts: node types of pictures and sounds. Default: those with a field ``box`` or ``time`` and no ``span``.
        relations: names of those to take; default: all of the graph.
        inverse: every arc also has an edge against its direction.
        context: node type whose mean is a node ``context`` that is joined to all entities of its sample, as in
            QA-GNN (Yasunaga et al., NAACL 2021).

    The older form ``with_knowledge(schema, width, relations, *links)`` is what the manifest pipeline uses:
    ``fact`` and ``fact_of`` are two edge types, ``links`` are the node types that mention entities, and all other
    node types are connected with every entity.

    Raises:
        HetgraphError: a node type or relation that is not there, or one with both kinds of links.
    """
    if isinstance(kg, int):
        if not parts or isinstance(parts[0], str):
            raise HetgraphError("with_knowledge(schema, width, relations, *links): relations is a list of names")
        return _by_width(schema, kg, parts[0], [str(link) for link in parts[1:]])
    if parts:
        raise HetgraphError("with a knowledge graph all options are given by name: relations=, mentions=, depicts=")
    spoken = [n for n, node in schema.nodes.items() if "span" in node.all_fields]
    seen = [n for n, node in schema.nodes.items() if {"box", "time"} & set(node.all_fields) and n not in spoken]
    spoken, seen = (found if given is None else list(given) for given, found in ((mentions, spoken), (depicts, seen)))
    for name in (*spoken, *seen, *([] if context is None else [context])):
        if name not in schema.nodes:
            raise HetgraphError(f"unknown node type {name!r}; the schema has {list(schema.nodes)}")
    if set(spoken) & set(seen):
        raise HetgraphError(f"node types {sorted(set(spoken) & set(seen))} both mention and depict")
    known = list(kg.relations)
    kinds = known if relations is None else list(relations)
    if set(kinds) - set(known):
        raise HetgraphError(f"relations {sorted(set(kinds) - set(known))[:5]} are not in the knowledge graph")
    ids = {"id": max(1, kg.num_entities)} if learned or dim is None else {}
    added: list[NodeType | EdgeType] = [
        NodeType("entity", 1 if dim is None else dim, {"id": 0}, optional={"score": 0}, categories=ids)
    ]
    for name, there, back in [(n, "mentions", "mentioned") for n in spoken] + [
        (n, "depicts", "depicted") for n in seen
    ]:
        added.append(EdgeType(name, there, "entity", rule=rules.given, features={"score": 0}))
        added.append(EdgeType("entity", back, name, rule=rules.given, features={"score": 0}))
    if kinds:
        both = (*kinds, *(f"^{name}" for name in kinds)) if inverse else tuple(kinds)
        added.append(EdgeType("entity", "fact", "entity", rule=rules.given, relations=both))
    if context is not None:
        added += [
            NodeType("context", schema.nodes[context].dim),
            EdgeType("context", "with", "entity"),
            EdgeType("entity", "with", "context"),
        ]
    return schema.extend(*added)


def _by_width(schema: Schema, entity: int, relations: Iterable[str], links: Sequence[str]) -> Schema:
    parts: list[NodeType | EdgeType] = [
        NodeType("entity", entity),
        EdgeType("entity", "fact", "entity", rule=rules.given, relations=tuple(relations)),
        EdgeType("entity", "fact_of", "entity", rule=rules.given, relations=tuple(relations)),
    ]
    for name in links:
        parts.append(EdgeType(name, "mentions", "entity", rule=rules.given))
        parts.append(EdgeType("entity", "mentioned", name, rule=rules.given))
    for name in schema.nodes:
        if name not in links:
            parts += [EdgeType(name, "with", "entity"), EdgeType("entity", "with", name)]
    return schema.extend(*parts)
