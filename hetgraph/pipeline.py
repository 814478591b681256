"""From media to samples: one encoder per medium, and a knowledge graph if there is one.

A pipeline is what a trained model needs to read new files; it is saved beside the model as JSON and is
rebuilt from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .builders import media, with_knowledge
from .encoders import (
    Cached,
    Encoder,
    HashWords,
    default_audio_encoder,
    default_boxes_encoder,
    default_image_encoder,
    default_sound_encoder,
    default_table_encoder,
    default_text_encoder,
    default_video_encoder,
    default_words_encoder,
    encoder_from_config,
)
from .encoders.timed_words import text_of_words
from .errors import CheckpointError, HetgraphError
from .files import write_atomically
from .kg import KHopRetriever, KnowledgeGraph, Linker, PPRRetriever, TripleGraph
from .kg.csr import short
from .manifest import NODE_NAMES
from .quarantine import Unreadable, encode_readable
from .sample import Sample
from .schema import NodeType, Schema

DEFAULTS: dict[str, Callable[[], Encoder]] = {
    "image": default_image_encoder,
    "text": default_text_encoder,
    "words": default_words_encoder,
    "audio": default_audio_encoder,
    "video": default_video_encoder,
    "sound": default_sound_encoder,
    "table": default_table_encoder,
    "boxes": default_boxes_encoder,
}
MOST_ENTITIES = 32
Facts = TripleGraph | KnowledgeGraph


@dataclass(frozen=True)
class Medium:
    """A column of the input: its kind (image, text, audio, video, table), the node type it becomes, and its encoder.

    A column may become several node types: the sound of a video is a medium of kind audio of the same column.
    """

    column: str
    kind: str
    node: str
    encoder: Encoder


@dataclass
class Record:
    """One sample before encoding.

    Attributes:
        media: column -> whatever its encoder takes (path, bytes, array, text); absent ones left out.
        entities: names of knowledge-graph entities; with none given, the text is linked to the graph.
    """

    id: str
    media: Mapping[str, Any]
    entities: Sequence[str] = ()
    target: Any = None


def node_name(column: str) -> str:
    """The node type of a media column: image is region, text token, audio frame, video video_frame, table cell, boxes
    object, words word; ``audio:speech`` is speech, and what belongs to another column is named after both:
    ``boxes:left`` is left_object, ``words:left`` left_word."""
    kind, _, suffix = column.partition(":")
    return f"{suffix}_{NODE_NAMES[kind]}" if kind in ("boxes", "words") and suffix else suffix or NODE_NAMES[kind]


def sound_name(column: str) -> str:
    """The node type of the sound of a video column: video_sound; of ``video:front`` front_sound."""
    kind, _, suffix = column.partition(":")
    return f"{suffix or kind}_sound"


def _on_one_clock(a: str, b: str) -> bool:
    (kind_a, _, suffix_a), (kind_b, _, suffix_b) = a.partition(":"), b.partition(":")
    spoken = "words" in (kind_a, kind_b) and {kind_a, kind_b} & {"audio", "video"}
    return a == b or (bool(spoken) and suffix_a == suffix_b)


@dataclass
class Pipeline:
    """Encoders for media columns, and optionally a knowledge graph whose entities become nodes.

    Entities get the mean of their label's token features, made by the encoder of the first text column
    (:class:`~hetgraph.encoders.HashWords` if there is no text). Tokens that spell an entity's label are
    connected with it; the facts between a sample's entities become edges in both directions. Where a record names no
    entities, those of its words come with what is around them: the best by personalised PageRank, in a ``TripleGraph``
    the neighbours.

    Args:
        media: the columns.
        graph: the knowledge graph; it is not saved with the pipeline.
    """

    media: list[Medium]
    graph: Facts | None = None
    relations: tuple[str, ...] = ()
    _labels: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        names = [medium.node for medium in self.media]
        if len(set(names)) != len(names) or "entity" in names:
            raise HetgraphError(f"media columns must become different node types (and not 'entity'), got {names}")
        if self.graph is not None and not self.relations:
            self.relations = tuple(self.graph.relations)
        if self.graph is not None and set(self.graph.relations) - set(self.relations):
            extra = sorted(set(self.graph.relations) - set(self.relations))
            raise HetgraphError(f"the knowledge graph has relations the model was not trained with: {extra[:5]}")
        if self.graph is not None and not self.relations:
            raise HetgraphError("the knowledge graph has no facts, only labels or nothing")
        self._linker = None if self.graph is None else Linker(self.graph)
        text = [medium.encoder for medium in self.media if medium.kind == "text"]
        self._names: Encoder = text[0] if text else HashWords()

    @classmethod
    def for_columns(
        cls,
        columns: Mapping[str, str],
        *,
        encoders: Mapping[str, Encoder] | None = None,
        graph: Facts | None = None,
        cache: str | Path | None = None,
    ) -> Pipeline:
        """A pipeline for media columns (name -> kind) with the default encoder of each kind.

        Args:
            encoders: other encoders, by column or by kind; the sound of videos has the kind sound.
            cache: a folder that keeps what was computed.
        """
        made: dict[str, Encoder] = {}

        def encoder(column: str, kind: str) -> Encoder:
            chosen = (encoders or {}).get(column) or (encoders or {}).get(kind) or made.get(kind)
            if chosen is None:
                chosen = made[kind] = DEFAULTS[kind]()
            return _cached(chosen, cache)

        found = []
        for column, kind in columns.items():
            seen_as = {"boxes": "image", "words": "text"}.get(kind, kind)
            found.append(Medium(column, seen_as, node_name(column), encoder(column, kind)))
            if kind == "video":
                found.append(Medium(column, "audio", sound_name(column), encoder(sound_name(column), "sound")))
        return cls(found, graph)

    def fitted(self, records: Sequence[Record]) -> Pipeline:
        """The pipeline with encoders that know the statistics of these training records, where a kind needs any.

        Raises:
            MediaError: a medium could not be read.
        """
        fitted = []
        for medium in self.media:
            having = [record for record in records if record.media.get(medium.column) is not None]
            names = [f"sample {record.id!r}: {medium.column}" for record in having]
            fitted.append(
                replace(medium, encoder=medium.encoder.fitted([r.media[medium.column] for r in having], names))
            )
        return self if fitted == self.media else replace(self, media=fitted)

    @property
    def schema(self) -> Schema:
        """The schema of the samples this makes."""
        schema = media(*self._together(), **{m.node: (m.kind, m.encoder.dim) for m in self.media})
        nodes = [_with_fields(schema.nodes[m.node], m.encoder) for m in self.media]
        schema = Schema(nodes, list(schema.edges.values()))
        if not self.relations:
            return schema
        return with_knowledge(
            schema, self._names.dim, self.relations, *(m.node for m in self.media if m.kind == "text")
        )

    def _together(self) -> list[tuple[str, str]]:
        """Node types on one clock: what is seen and heard in one video, and what is said in the sound or video of the
        same name."""
        timed = [m for m in self.media if "time" in m.encoder.fields]
        return [(a.node, b.node) for a, b in combinations(timed, 2) if _on_one_clock(a.column, b.column)]

    def __call__(
        self,
        records: Sequence[Record],
        *,
        progress: Callable[[int], object] | None = None,
        chunk: int = 64,
        aside: Callable[[Unreadable], object] | None = None,
    ) -> list[Sample]:
        """Encode records.

        Args:
            progress: called with the number of encoded media whenever some are done.
            chunk: how many items an encoder gets at a time.
            aside: is given the media that cannot be read; their samples come without them.

        Raises:
            MediaError: a medium could not be read and ``aside`` is None; the message names the sample and the file.
        """
        nodes: list[dict[str, dict[str, Tensor]]] = [{} for _ in records]
        for medium in self.media:
            having = [i for i, record in enumerate(records) if record.media.get(medium.column) is not None]
            for start in range(0, len(having), chunk):
                some = having[start : start + chunk]
                items = [records[i].media[medium.column] for i in some]
                names = [records[i].id for i in some]
                encoded = encode_readable(medium.encoder, items, names, medium.column, aside)
                for i, made in zip(some, encoded, strict=True):
                    if made is not None and len(made["x"]):  # a video without sound has none
                        nodes[i][medium.node] = made
                if progress is not None:
                    progress(len(some))
        samples = []
        for record, own in zip(records, nodes, strict=True):
            edges = self._knowledge(record, own) if self.graph is not None else {}
            samples.append(Sample(id=record.id, target=record.target, nodes=own, edges=edges))
        return samples

    def labels_of(self, record: Record, sample: Sample) -> list[str]:
        """A label for each entity node that :meth:`__call__` gave this record."""
        found = None if self.graph is None else self._subgraph(record, sample.nodes)[1]
        return [] if found is None or self.graph is None else [label_of(self.graph, int(e)) for e in found[0]]

    def _subgraph(self, record: Record, nodes: Mapping[str, Mapping[str, Tensor]]) -> tuple[dict[str, Any], Any]:
        """What the words of each text name, and the entities of a record with their facts (None without any)."""
        assert self.graph is not None
        assert self._linker is not None
        mentions = {
            medium.node: self._linker.link(_text_of(record.media[medium.column]))
            for medium in self.media
            if medium.kind == "text" and "span" in nodes.get(medium.node, {})
        }
        if record.entities:
            seeds = [_number(self.graph, name, record.id) for name in dict.fromkeys(record.entities)]
        else:
            seeds = list(dict.fromkeys(e for links in mentions.values() for *_, e in links))[:MOST_ENTITIES]
        return mentions, _around(self.graph, seeds, bool(record.entities)) if seeds else None

    def _knowledge(self, record: Record, nodes: dict[str, dict[str, Tensor]]) -> dict[Any, Any]:
        """Add the record's entities to its nodes; the edges between them and to the words that name them."""
        assert self.graph is not None
        mentions, found = self._subgraph(record, nodes)
        if found is None:
            return {}
        entities, pairs, relation = found
        nodes["entity"] = {"x": self._features([int(e) for e in entities])}
        place = {int(e): i for i, e in enumerate(entities)}
        index = torch.from_numpy(pairs)
        # ids of the graph's relations in the order the model knows
        ids = torch.tensor([self.relations.index(name) for name in self.graph.relations], dtype=torch.long)
        relation_ids = ids[torch.from_numpy(relation)] if len(relation) else ids[:0]
        edges: dict[Any, Any] = {
            ("entity", "fact", "entity"): {"index": index, "relation": relation_ids},
            ("entity", "fact_of", "entity"): {"index": index.flip(0), "relation": relation_ids},
        }
        for name, links in mentions.items():
            span = nodes[name]["span"]
            found = [
                (token, place[entity])
                for start, end, entity in links
                if entity in place
                for token in ((span[:, 0] < end) & (span[:, 1] > start)).nonzero().flatten().tolist()
            ]
            both = torch.tensor(found, dtype=torch.long).reshape(-1, 2).T
            edges[(name, "mentions", "entity")] = both
            edges[("entity", "mentioned", name)] = both.flip(0)
        return edges

    def _features(self, entities: list[int]) -> Tensor:
        """Mean token features of each entity's first label (or the end of its name), ``[N, dim]``."""
        assert self.graph is not None
        new = [e for e in entities if e not in self._labels]
        texts = [label_of(self.graph, e) for e in new]
        for entity, made in zip(new, self._names(texts) if texts else [], strict=True):
            self._labels[entity] = made["x"].mean(0)
        return torch.stack([self._labels[e] for e in entities])

    def save(self, folder: str | Path) -> None:
        """Write ``pipeline.json``."""
        data = {
            "media": [
                {"column": m.column, "kind": m.kind, "node": m.node, "encoder": m.encoder.config()} for m in self.media
            ],
            "relations": list(self.relations),
        }
        write_atomically(Path(folder) / "pipeline.json", json.dumps(data, indent=2))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        graph: Facts | None = None,
        cache: str | Path | None = None,
        known: Mapping[str, type[Encoder]] | None = None,
    ) -> Pipeline:
        """Rebuild the pipeline of a folder.

        Args:
            graph: the knowledge graph it was trained with.
            cache: a folder that keeps what was computed.
            known: user-made encoder classes by name; a file never imports code by itself.

        Raises:
            CheckpointError: no or damaged ``pipeline.json``, or the pipeline needs a knowledge graph.
        """
        path = Path(folder) / "pipeline.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            found = [
                Medium(m["column"], m["kind"], m["node"], _cached(encoder_from_config(m["encoder"], known), cache))
                for m in data["media"]
            ]
            relations = tuple(data["relations"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, HetgraphError):
                raise
            raise CheckpointError(f"{path}: no pipeline that can be read: {error}") from error
        if relations and graph is None:
            raise CheckpointError(f"{path}: the model was trained with a knowledge graph; pass it again")
        return cls(found, graph if relations else None, relations)


def _number(graph: Facts, name: str, sample: str) -> int:
    """An entity by its name.

    Raises:
        HetgraphError: it is not in the graph; the message names the sample.
    """
    number = graph.entities.find(name) if isinstance(graph, KnowledgeGraph) else graph.index.get(name, -1)
    if number < 0:
        raise HetgraphError(f"sample {sample!r}: entity {name!r} is not in the knowledge graph")
    return number


def _around(graph: Facts, seeds: list[int], alone: bool) -> tuple[Any, Any, Any]:
    """Some entities, ``alone`` or with others around them: numbers [M], arcs [2, K] between them, relations [K]."""
    most = max(MOST_ENTITIES, len(seeds))
    if isinstance(graph, TripleGraph):
        return graph.subgraph(seeds, hops=0 if alone else 1, max_nodes=most)
    retriever = KHopRetriever(hops=0, max_nodes=most) if alone else PPRRetriever(max_nodes=most)
    part = retriever(graph, seeds)
    return part.nodes, part.edge_index, part.edge_type


def label_of(graph: Facts, entity: int) -> str:
    """What people call an entity: its first label, else the end of its name."""
    if isinstance(graph, KnowledgeGraph):
        labels = [label for label in (graph.label(entity), *graph.labels_of(entity)) if label.strip()]
        return labels[0] if labels else short(graph.entities[entity])
    labels = [label for label in graph.labels.get(entity, []) if label.strip()]
    return labels[0] if labels else graph.entities[entity].rstrip("/#").replace("#", "/").rsplit("/", 1)[-1] or "?"


def _with_fields(node: NodeType, encoder: Encoder) -> NodeType:
    """A node type that takes all fields of its encoder."""
    more = {name: width for name, width in encoder.fields.items() if name not in node.all_fields}
    return replace(node, optional={**node.optional, **more})


def _text_of(value: Any) -> str:
    """The text behind what an encoder of texts takes: a string, words with times, a Path or UTF-8 bytes."""
    if isinstance(value, list):
        return text_of_words(value)
    if isinstance(value, PathLike):
        value = Path(value).read_bytes()
    return value if isinstance(value, str) else bytes(value).decode("utf-8-sig")


def _cached(encoder: Encoder, cache: str | Path | None) -> Encoder:
    return encoder if cache is None or isinstance(encoder, Cached) else Cached(encoder, cache)
