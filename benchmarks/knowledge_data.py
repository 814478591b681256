"""Data sets with a knowledge graph and what their samples name in it, for ``benchmarks.knowledge_gain``.

========================  ==============================================================================================
``scenes``                invented words of questions; what they denote and are confused with is in the graph alone
``tuxpaint``              captions of stamps alone: WordNet's hypernyms of their nouns
``tuxpaint_french``       French captions of stamps alone: their English labels in the graph of the stamps, without any
                          triple on categories
``tuxpaint_french_all``   the same with pictures and sounds
``mosi_standard``         WordNet with the polarity of words by VADER and TextBlob
``daquar``                WordNet's hypernyms and parts of the nouns of a question and of the detected objects
========================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hetgraph import Sample, Schema
from hetgraph.encoders import Cached, HashWords, MiniLM
from hetgraph.kg import (
    AliasLinker,
    KHopRetriever,
    Knowledge,
    KnowledgeGraph,
    Link,
    PPRRetriever,
    RegionLinker,
    load_kg,
)
from hetgraph.kg.polarity import read_textblob, read_vader
from hetgraph.kg.sources import POLARITY, SYNSET, wordnet
from hetgraph.kg.wordnet import read_senses
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets import Dataset, data_folder
from hetgraph.tasks.datasets.daquar import class_names, detections
from hetgraph.tasks.datasets.reading import read_table
from hetgraph.tasks.datasets.scenes_fusion import BARE, generated, questions
from hetgraph.tasks.datasets.tuxpaint import stamps
from hetgraph.thinning import without

Source = Callable[[int], "Linked"]
SENSES = 2
"""The most frequent senses of a noun that are looked up, the second for half as likely as the first."""
SEEDS, MOST_ENTITIES = 16, 48
KINDS = ("text", "knowledge")
"""Of the scenes' questions: those that need knowledge, and those that need nothing."""
WORDNET_NOTE = "words are linked to their most frequent noun senses; entity features: MiniLM of a synset's first word"
FRENCH_NOTE = "French captions through an English encoder; the graph has French and English labels and no categories"
POLARITY_NOTE = "words that VADER or TextBlob rate are linked; entity features: MiniLM of a synset's first word"


@dataclass
class Linked:
    """A data set, a knowledge graph, and what its samples name in it.

    Attributes:
        name: of the benchmark.
        base: the data set without knowledge.
        graph: the knowledge graph.
        links: sample id -> links; samples that are not in it name nothing.
        options: of :class:`hetgraph.kg.Knowledge`.
        kinds: kind -> ids of the test samples that are also scored by themselves.
        notes: what to know about the links.
    """

    name: str
    base: Dataset
    graph: KnowledgeGraph
    links: Mapping[str, Sequence[Link]]
    options: Mapping[str, Any]
    kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    notes: str = ""

    def data(self, graph: KnowledgeGraph | None) -> Dataset:
        """The data set with the entities of a graph, which may be another one than the true; None: without any.

        The schema is the same in any case, so models have the same parameters.
        """
        knowledge = Knowledge(self.base.schema, graph or self.graph, **self.options)
        if graph is None:
            return replace(self.base, schema=knowledge.schema)

        def linked(samples: Iterable[Sample]) -> list[Sample]:
            return [knowledge(sample, self.links.get(str(sample.id), ())) for sample in samples]

        base = self.base
        valid = None if base.valid is None else linked(base.valid)
        return replace(base, schema=knowledge.schema, train=linked(base.train), valid=valid, test=linked(base.test))


@dataclass(frozen=True)
class Scenes:
    """Questions about generated scenes; another seed gives other scenes and words."""

    folder: Path | None = None
    cache: Path | None = None
    suggested: str = "scenes"

    def __call__(self, seed: int) -> Linked:
        made = generated(seed)
        base = questions(made, KINDS)
        graph = load_kg(made.ntriples().encode(), format="nt")
        linker, scenes = AliasLinker(graph), {scene.id: scene for scene in made}
        links, kinds = {}, dict[str, set[str]]()
        for sample in (*base.train, *(base.valid or ()), *base.test):
            name = str(sample.id)
            scene = scenes[name.removesuffix(BARE)]
            # the bare form of a training question has only what it needs
            if "entity" in sample.nodes:
                links[name] = linker.link(scene.question)
            kinds.setdefault(scene.kind, set()).add(name)
        return Linked(
            "scenes",
            only(base, *(name for name in base.schema.nodes if name != "entity")),
            graph,
            links,
            # what a word denotes, and what it is confused with
            {"features": HashWords(64), "retriever": KHopRetriever(hops=1, direction="out"), "mentions": ("token",)},
            {kind: frozenset(names) for kind, names in kinds.items()},
            "invented words differ between training, validation and test; entity features are hashed labels",
        )


def only(base: Dataset, *kept: str) -> Dataset:
    """A data set with some node types, of the samples that have any of them."""
    gone = [name for name in base.schema.nodes if name not in kept]
    nodes = [node for name, node in base.schema.nodes.items() if name in kept]
    edges = [edge for (a, _, b), edge in base.schema.edges.items() if a in kept and b in kept]

    def thinned(samples: Iterable[Sample]) -> list[Sample]:
        return [sample for sample in (without(one, *gone) for one in samples) if sample.nodes]

    valid = None if base.valid is None else thinned(base.valid)
    return replace(base, schema=Schema(nodes, edges), train=thinned(base.train), valid=valid, test=thinned(base.test))


@dataclass(frozen=True)
class TuxPaint:
    """The captions of stamps with what WordNet says of their nouns."""

    folder: Path | None
    cache: Path | None
    suggested: str = "tuxpaint"

    def __call__(self, seed: int) -> Linked:
        base = only(datasets.load("tuxpaint", self.folder, cache=self.cache), "token")
        graph, linker = nouns("hypernym", "instance_hypernym")
        captions = {row["id"]: row["caption_en"] for row in stamp_rows(self.folder)}
        links = {name: linker.link(caption) for name, caption in captions.items()}
        return Linked("tuxpaint", base, graph, links, upwards(self.cache), notes=WORDNET_NOTE)


@dataclass(frozen=True)
class TuxPaintFrench:
    """French captions of stamps, which the English text encoder hardly understands; the graph knows their English.

    Args:
        everything: with pictures and sounds, too.
    """

    folder: Path | None
    cache: Path | None
    suggested: str = "tuxpaint"
    everything: bool = False
    # chosen on validation: what 653 captions cannot teach is else learnt by heart from their French words
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {"modality_dropout": {"token": 0.5}, "epochs": 40, "patience": 10}
    )

    def __call__(self, seed: int) -> Linked:
        source = data_folder("tuxpaint_stamps", self.folder)
        base = stamps(source, cache=self.cache, language="fr")
        base = base if self.everything else only(base, "token")
        graph, texts = dictionary(load_kg(source / "stamps.nt.gz"), "fr", "en")
        encoded = minilm(self.cache)([text or "-" for text in texts])
        vectors = torch.stack([nodes["x"].mean(0) for nodes in encoded])
        vectors[[not text for text in texts]] = 0
        french = {text: i for i, text in enumerate(texts) if graph.entities[i].startswith("label:fr:")}
        captions = {row["id"]: row["caption_fr"] for row in stamp_rows(source)}
        links = {
            name: [Link(french[text], 1.0, "alias", "token", (0, 1), (0, len(text)))]
            for name, text in captions.items()
            if text in french
        }
        options = {"features": vectors, "retriever": KHopRetriever(hops=2, direction="out"), "mentions": ("token",)}
        name = "tuxpaint_french_all" if self.everything else "tuxpaint_french"
        return Linked(name, base, graph, links, options, notes=FRENCH_NOTE)


def dictionary(graph: KnowledgeGraph, source: str, target: str) -> tuple[KnowledgeGraph, list[str]]:
    """The labels of a graph in two languages as entities: label "names" entity, entity "label" other label.

    So what a word means is an arc, which a control can take away, as in OntoLex. No other arc is taken over.

    Returns:
        The graph, and the text of each of its entities, empty for those that are no label.
    """
    numbers: dict[str, int] = {}
    arcs: list[tuple[int, int, int]] = []
    texts = {}
    for i, own in enumerate(graph.entities):
        for relation, language in enumerate((target, source)):
            for text in graph.labels_of(i, [language]):
                name = f"label:{language}:{text}"
                texts[name] = text
                ends = [numbers.setdefault(end, len(numbers)) for end in (own, name)]
                arcs.append((ends[relation], relation, ends[1 - relation]))
    heads, kinds, tails = zip(*arcs, strict=True)
    made = KnowledgeGraph.from_arcs(heads, kinds, tails, list(numbers), ["label", "names"])
    return made, [texts.get(name, "") for name in made.entities]


@dataclass(frozen=True)
class Mosi:
    """Utterances with WordNet's word senses and their polarity by VADER and TextBlob."""

    folder: Path | None
    cache: Path | None
    suggested: str = "mosi_standard"

    def __call__(self, seed: int) -> Linked:
        base = datasets.load("mosi_standard", self.folder, cache=self.cache)
        graph = wordnet(polarity=[*read_vader(), *read_textblob()])
        graph = graph.of_relations([POLARITY, "hypernym", "similar_to", "antonym", "derivation", "pertains_to"])
        # only what is rated: the senses of all words would be hundreds
        rated = np.flatnonzero(np.isin(graph.out.types, list(graph.relations).index(POLARITY)))
        rated = frozenset(graph.heads[rated].tolist())
        linker = AliasLinker([row for row in senses(graph, "nvar") if row[1] in rated], most=SENSES)
        table = read_table("CMU-MOSI", data_folder("cmu_mosi", self.folder) / "utterances.csv", ("transcript",))
        links = {row["utterance_id"]: linker.link(row["transcript"].lower()) for row in table}
        return Linked("mosi_standard", base, graph, links, upwards(self.cache, hops=1), notes=POLARITY_NOTE)


@dataclass(frozen=True)
class Daquar:
    """Questions about rooms with what WordNet says of their nouns and of the objects that a detector found."""

    folder: Path | None
    cache: Path | None
    suggested: str = "daquar"
    # regions of pictures are left out: they make a model half as fast again, and validation no better
    settings: Mapping[str, Any] = field(default_factory=lambda: {"epochs": 6})

    def __call__(self, seed: int) -> Linked:
        base = datasets.load("daquar", self.folder, cache=self.cache)
        base = only(base, *(name for name in base.schema.nodes if name != "region"))
        graph, linker = nouns("hypernym", "instance_hypernym", "part_meronym", "part_holonym")
        source = data_folder("daquar", self.folder)
        objects, seen = RegionLinker(linker, class_names(source)), detections(source)
        links = {}
        for sample in (*base.train, *(base.valid or ()), *base.test):
            name = str(sample.id)
            links[name] = linker.link(base.about[name]["question"])
            if "object" in sample.nodes:
                x = seen[base.about[name]["image"]].x
                links[name] += objects.link(x[:, :-1].argmax(1).tolist(), x[:, -1].tolist(), type="object")
        options = {**upwards(self.cache), "depicts": ("object",)}
        return Linked("daquar", base, graph, links, options, notes=WORDNET_NOTE)


NAMES: dict[str, Callable[..., Any]] = {
    "scenes": Scenes,
    "tuxpaint": TuxPaint,
    "tuxpaint_french": TuxPaintFrench,
    "tuxpaint_french_all": partial(TuxPaintFrench, everything=True),
    "mosi_standard": Mosi,
    "daquar": Daquar,
}
"""Name -> what makes a source from a folder and a cache."""


def stamp_rows(folder: Path | None) -> list[dict[str, str]]:
    """The table of the stamps."""
    return read_table(
        "Tux Paint", data_folder("tuxpaint_stamps", folder) / "stamps.csv", ("id", "caption_en", "caption_fr")
    )


def minilm(cache: Path | None) -> Any:
    return MiniLM() if cache is None else Cached(MiniLM(), cache)


def upwards(cache: Path | None, hops: int | None = None) -> dict[str, Any]:
    """How samples get what lies above their senses: features are MiniLM's of the first word of a synset."""
    up = {"direction": "out", "max_nodes": MOST_ENTITIES}
    retriever = PPRRetriever(**up) if hops is None else KHopRetriever(hops=hops, **up)
    return {"features": minilm(cache), "retriever": retriever, "mentions": ("token",), "seeds": SEEDS}


def nouns(*relations: str) -> tuple[KnowledgeGraph, AliasLinker]:
    """WordNet with some relations, and a linker of its nouns, in the singular and in the plural."""
    graph = wordnet().of_relations(relations)
    return graph, AliasLinker(senses(graph, "n"), most=SENSES)


def senses(graph: KnowledgeGraph, parts: str) -> list[tuple[str, int, float]]:
    """Word, synset and how likely it means it: each further sense half as much. Plurals by adding s or es."""
    found = []
    for (word, part), names in read_senses().items():
        if part not in parts:
            continue
        for rank, entity in enumerate(graph.numbers([SYNSET + name for name in names[:SENSES]])):
            found.append((word, entity, 0.5**rank))
            if part == "n" and len(word) > 2:
                found.append(
                    (word + ("es" if word[-1] in "sxz" or word[-2:] in ("ch", "sh") else "s"), entity, 0.5**rank)
                )
    return found
