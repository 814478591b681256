"""hetgraph graphs as networkx multigraphs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ..graph import Graph

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(graph: Graph) -> nx.MultiDiGraph:
    """A ``MultiDiGraph`` with nodes ``(type, packed id)``.

    Node attributes: ``type``, ``sample`` (its id), ``x`` and every field as NumPy arrays. Edges have the
    relation as key, and as attributes ``relation``, every feature, and ``relation_id`` where the edge type
    has relations. The second edge between the same nodes gets the key ``(relation, 1)``, the third
    ``(relation, 2)``, and so on. A field or feature that has the name of another attribute is found under
    ``"field:type"``, ``"field:sample"`` or ``"feature:relation_id"``.
    """
    import networkx as nx

    out = nx.MultiDiGraph()
    for name, x in graph.x.items():
        values = {"x": x, **{_apart("field", f, ("type", "sample")): v for f, v in graph.fields[name].items()}}
        arrays = {field: value.detach().cpu().numpy() for field, value in values.items()}
        for i, sample in enumerate(graph.batch[name].tolist()):
            attributes = {field: array[i] for field, array in arrays.items()}
            out.add_node((name, i))
            out.nodes[name, i].update(attributes, type=name, sample=graph.ids[sample])
    for (src, relation, dst), edges in graph.edges.items():
        features = {
            _apart("feature", name, ("relation_id",)): value.detach().cpu().numpy()
            for name, value in edges.features.items()
        }
        ids = None if edges.relation is None else edges.relation.tolist()
        seen: Counter[tuple[int, int]] = Counter()
        for e, (i, j) in enumerate(edges.index.T.tolist()):
            known: dict[str, Any] = {name: array[e] for name, array in features.items()}
            known["relation"] = relation
            if ids is not None:
                known["relation_id"] = ids[e]
            a, b = (src, i), (dst, j)
            key = (relation, seen[i, j]) if seen[i, j] else relation
            seen[i, j] += 1
            out.add_edge(a, b, key)
            out.edges[a, b, key].update(known)
    return out


def _apart(kind: str, name: str, taken: tuple[str, ...]) -> str:
    return f"{kind}:{name}" if name in taken else name
