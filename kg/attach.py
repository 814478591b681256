"""From links to nodes: the part of a knowledge graph around what a sample names, added to the sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..builders import with_knowledge
from ..sample import Sample
from ..schema import EdgeKey, Schema
from .csr import KnowledgeGraph
from .errors import KnowledgeError
from .linking import Link
from .linking_dense import Encode
from .retrieval import PPRRetriever, Subgraph

Retrieve = Callable[[KnowledgeGraph, Iterable[int | str]], Subgraph]

DEFAULT = PPRRetriever(max_nodes=64)
"""What cuts out the part around the seeds if nothing else is asked for."""


class LabelFeatures:
    """The mean features of an entity's label, as a text encoder makes them; each label is encoded once.

    Args:
        graph: gives the labels (:meth:`~hetgraph.kg.KnowledgeGraph.label`).
        encoder: of texts.
        languages: of the labels, the preferred first.
    """

    def __init__(self, graph: KnowledgeGraph, encoder: Encode, languages: Sequence[str] = ("", "en")) -> None:
        self.graph, self.encoder, self.languages = graph, encoder, tuple(languages)
        self._known: dict[int, Tensor] = {}

    def __call__(self, entities: Sequence[int]) -> Tensor:
        """Features ``[M, dim]`` of M entities."""
        new = [entity for entity in dict.fromkeys(entities) if entity not in self._known]
        if new:
            labels = [self.graph.label(entity, self.languages) for entity in new]
            # what nobody can read (a label of spaces) is encoded as the name it stands for
            texts = [label if label.strip() else self.graph.entities[e] for e, label in zip(new, labels, strict=True)]
            for entity, nodes in zip(new, self.encoder(texts), strict=True):
                self._known[entity] = torch.as_tensor(nodes["x"]).mean(0)
        return torch.stack([self._known[entity] for entity in entities])


class Knowledge:
    """Adds the entities around a sample's links, and the facts between them: ``knowledge(sample, links) -> sample``.

    The entities of the links are the seeds of a retriever; what it cuts out becomes nodes ``entity``, seeds first,
    with the edges that :func:`hetgraph.builders.with_knowledge` describes. A sample without links is given back as it
    is.

    Args:
        schema: of the samples, without knowledge; the attribute ``schema`` is that with it.
        graph: the knowledge graph.
        features: of the entities: a text encoder with the attribute ``dim`` (for the labels), any array
            ``[num_entities, dim]`` (as graph embeddings), or None: a vector for each is learned in the model.
        retriever: cuts out the part around the seeds.
        seeds: entities that are seeds at most; the links with the best scores count.
        languages: of the labels to encode.
        learned, mentions, depicts, relations, inverse, context: see :func:`hetgraph.builders.with_knowledge`.

    Raises:
        KnowledgeError: features of another size.
        HetgraphError: what the schema does not have.

    Example:
        >>> knowledge = Knowledge(image_text(region=64, token=32), kg, HashWords(32))
        >>> links = AliasLinker(kg).link("a cat and a mouse")
        >>> graph = GraphBuilder(knowledge.schema)([knowledge(sample, links)])
    """

    def __init__(
        self,
        schema: Schema,
        graph: KnowledgeGraph,
        features: Any = None,
        *,
        retriever: Retrieve = DEFAULT,
        seeds: int = 32,
        languages: Sequence[str] = ("", "en"),
        learned: bool = False,
        mentions: Iterable[str] | None = None,
        depicts: Iterable[str] | None = None,
        relations: Iterable[str] | None = None,
        inverse: bool = True,
        context: str | None = None,
    ) -> None:
        if seeds < 1:
            raise KnowledgeError(f"seeds must be a positive number, got {seeds}")
        self.graph, self.retriever, self.seeds, self.context, self.inverse = graph, retriever, seeds, context, inverse
        kinds = list(graph.relations) if relations is None else list(relations)
        dim, self._features = _features(graph, features, languages)
        self.schema = with_knowledge(
            schema,
            graph,
            dim=dim,
            learned=learned,
            mentions=mentions,
            depicts=depicts,
            relations=kinds,
            inverse=inverse,
            context=context,
        )
        # relation of the graph -> of the schema, -1 if it is left out
        self._kinds = np.full(graph.num_relations, -1, np.int64)
        self._kinds[np.array([graph.relations.index(name) for name in kinds], np.int64)] = np.arange(len(kinds))
        self._count = len(kinds)

    def __call__(self, sample: Sample, links: Iterable[Link]) -> Sample:
        """The sample with the entities around these links; a new one, unless there are none.

        Raises:
            KnowledgeError: the sample has entities already, or links that it or the schema has no nodes for.
        """
        found = sorted(links, key=lambda link: -link.score)
        if not found:
            return sample
        if "entity" in sample.nodes:
            raise KnowledgeError(f"{sample.label}: there are entities already")
        seeds = list(dict.fromkeys(link.entity for link in found))[: self.seeds]
        part = self.retriever(self.graph, seeds)
        places = {entity: place for place, entity in enumerate(part.nodes.tolist())}
        ids = torch.from_numpy(part.nodes)
        score = torch.from_numpy(part.score).float()
        nodes: dict[str, Any] = {"entity": {"x": self._features(part.nodes.tolist()), "id": ids, "score": score}}
        if self.context is not None and self.context in sample.nodes:
            nodes["context"] = {"x": sample.nodes[self.context]["x"].mean(0, keepdim=True)}
        edges = {**self._facts(part), **self._mentions(sample, found, places)}
        return Sample(
            id=sample.id, target=sample.target, nodes={**sample.nodes, **nodes}, edges={**sample.edges, **edges}
        )

    def _facts(self, part: Subgraph) -> dict[EdgeKey, Any]:
        kinds = self._kinds[part.edge_type]
        kept = kinds >= 0
        if not kept.any():
            return {}
        index, kinds = part.edge_index[:, kept], kinds[kept]
        if self.inverse:
            index, kinds = np.concatenate([index, index[::-1]], 1), np.concatenate([kinds, kinds + self._count])
        return {("entity", "fact", "entity"): {"index": torch.from_numpy(index), "relation": torch.from_numpy(kinds)}}

    def _mentions(self, sample: Sample, links: Sequence[Link], places: dict[int, int]) -> dict[EdgeKey, Any]:
        """The edges of the links, best scores first; of several between a node and an entity the first counts."""
        pairs: dict[str, dict[tuple[int, int], float]] = {}
        for link in links:
            for node in self._nodes_of(sample, link):
                if link.entity in places:
                    pairs.setdefault(link.type, {}).setdefault((node, places[link.entity]), link.score)
        edges: dict[EdgeKey, Any] = {}
        for name, scores in pairs.items():
            there, back = self._keys(sample, name)
            index = torch.tensor(list(scores), dtype=torch.long).T
            score = torch.tensor(list(scores.values()))
            edges[there] = {"index": index, "score": score}
            edges[back] = {"index": index.flip(0), "score": score}
        return edges

    def _keys(self, sample: Sample, name: str) -> tuple[EdgeKey, EdgeKey]:
        for there, back in (("mentions", "mentioned"), ("depicts", "depicted")):
            if (name, there, "entity") in self.schema.edges:
                return (name, there, "entity"), ("entity", back, name)
        raise KnowledgeError(f"{sample.label}: nodes of type {name!r} neither mention nor depict entities")

    def _nodes_of(self, sample: Sample, link: Link) -> list[int]:
        """The nodes of a mention: those that overlap its characters, else those it counts."""
        if link.type not in sample.nodes:
            raise KnowledgeError(f"{sample.label}: a link of node type {link.type!r}, of which there are none")
        own = sample.nodes[link.type]
        if link.span is not None and "span" in own:
            start, end = link.span
            return [int(i) for i in ((own["span"][:, 0] < end) & (own["span"][:, 1] > start)).nonzero()]
        first, last = link.nodes
        if not 0 <= first < last <= len(own["x"]):
            raise KnowledgeError(
                f"{sample.label}: a link of {link.type!r} {first} .. {last - 1}; there are {len(own['x'])}"
            )
        return list(range(first, last))


def _features(
    graph: KnowledgeGraph, given: Any, languages: Sequence[str]
) -> tuple[int | None, Callable[[Sequence[int]], Tensor]]:
    """The width of the entities' features, and what gives those of some entities."""
    if given is None:
        return None, _nothing
    if callable(given):
        return int(given.dim), LabelFeatures(graph, given, languages)
    rows = _Rows(given)
    if rows.table.dim() != 2 or len(rows.table) != graph.num_entities:
        raise KnowledgeError(f"features must be [{graph.num_entities}, dim], got {list(rows.table.shape)}")
    return rows.table.shape[1], rows


class _Rows:
    """Rows of a matrix."""

    def __init__(self, table: ArrayLike | Tensor) -> None:
        self.table = torch.as_tensor(table if isinstance(table, Tensor) else np.asarray(table)).detach().float()

    def __call__(self, entities: Sequence[int]) -> Tensor:
        return self.table[torch.tensor(entities, dtype=torch.long)]


def _nothing(entities: Sequence[int]) -> Tensor:
    """What a node has to have, with nothing in it."""
    return torch.zeros(len(entities), 1)
