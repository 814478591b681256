"""Wikipedia (Rasiwasia et al., ACM Multimedia 2010) as graphs: sections and their pictures, to be found by each other.

A picture is a bag of 128 SIFT words, a text 10 topics and the tf-idf of 1,000 words. Each of the three is a node; the
heaviest visual words and words of a sample are nodes as well, each with a vector that the model learns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import rules
from ...objectives import Classification
from ...sample import Sample
from ...schema import EdgeType, NodeType, Schema
from . import data_folder
from .official.wikipedia import CATEGORIES, Pair, Wikipedia, read
from .retrieval import Pooled, RetrievalData

WORDS = 12
"""Words, and visual words, of a sample that are nodes."""
HELD_OUT = 10
"""Every so many-th article of a category validates."""
LANDMARKS = 500
"""A picture is classified by a kernel of its visual words: what it shows is not linear in them."""
VIEWS = {"image": ("picture", "visual_word"), "text": ("topics", "tfidf", "word")}
POOLED = {"picture": Pooled(), "topics": Pooled(), "tfidf": Pooled(scale="all")}


def pairs(folder: str | Path | None = None, *, cache: str | Path | None = None) -> RetrievalData:
    """2,173 pairs for training, a tenth of which validate, and 693 to test on; right is what has the same category.

    Args:
        folder: with the files in either layout of :mod:`.official.wikipedia`; default
            ``$HETGRAPH_DATA/wiki_retrieval``.
        cache: nothing is encoded.

    Raises:
        HetgraphError: a file is missing or wrong.
    """
    files = read(data_folder("wiki_retrieval", folder))
    names = ["image", "text", *(["text_tfidf"] if files.layout == "npz" else [])]
    widths = {name: files.features(name, "train").shape[1] for name in names}
    schema = _schema(widths["image"], widths["text"], widths.get("text_tfidf"))
    train: list[Sample] = []
    valid: list[Sample] = []
    every = _samples(files, "train", names)
    held = _held_out(files.pairs("train"))
    for pair, sample in zip(files.pairs("train"), every, strict=True):
        (valid if _article(pair) in held else train).append(sample)
    known = set(schema.nodes)
    about = {
        f"{part}-{pair.row}": {"group": _article(pair), "title": f"{pair.category} {pair.text}"}
        for part in ("train", "test")
        for pair in files.pairs(part)
    }
    return RetrievalData(
        "wikipedia",
        schema,
        train,
        valid,
        _samples(files, "test", names),
        Classification(CATEGORIES),
        standardize=False,
        notes="hand-made features: SIFT words, LDA topics, tf-idf. Categories are labels of the training part and are "
        "learnt from. The validation part is a tenth of the training part, by article.",
        about=about,
        views={view: tuple(t for t in types if t in known) for view, types in VIEWS.items()},
        relevance="target",
        pooled={name: how for name, how in POOLED.items() if name in known},
        kernels={"image": min(LANDMARKS, len(train))},
    )


def _article(pair: Pair) -> str:
    """A text is called by its article and the number of its section."""
    return pair.text.rsplit("-", 1)[0]


def _held_out(pairs: tuple[Pair, ...]) -> set[str]:
    """Every tenth article of each category, in the order of their names, which are digests."""
    articles: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        articles[pair.category].add(_article(pair))
    return {name for names in articles.values() for name in sorted(names)[::HELD_OUT]}


def _schema(image: int, topics: int, tfidf: int | None) -> Schema:
    """One node for each description and one for each heavy word; words hear each other, and all hear across."""
    nodes = [
        NodeType("picture", image),
        NodeType("visual_word", 1, fields={"word": 0}, categories={"word": image}),
        NodeType("topics", topics),
    ]
    bags = [("picture", "visual_word")]
    if tfidf is not None:
        nodes += [NodeType("tfidf", tfidf), NodeType("word", 1, fields={"word": 0}, categories={"word": tfidf})]
        bags += [("tfidf", "word"), ("topics", "word")]
    edges = []
    for whole, part in bags:
        edges += [EdgeType(whole, "has", part), EdgeType(part, "of", whole)]
    for name in dict.fromkeys(part for _, part in bags):
        edges.append(EdgeType(name, "near", name, rule=rules.window(2, loops=False)))
    wholes = [node.name for node in nodes if not node.categories]
    edges += [EdgeType(a, "with", b) for a in wholes for b in wholes if a != b]
    edges += [EdgeType(a, "with", b) for a in ("visual_word",) for b in wholes if b != "picture"]
    return Schema(nodes, edges)


def _samples(files: Wikipedia, part: str, names: list[str]) -> list[Sample]:
    """Roots of the histograms (their inner product is the Bhattacharyya coefficient), centred to a common size."""
    features = {name: np.sqrt(np.abs(files.features(name, part))).astype(np.float32) for name in names}
    made = []
    for pair in files.pairs(part):
        image, topics = features["image"][pair.row], features["text"][pair.row]
        nodes: dict[str, Any] = {
            "picture": {"x": _row(image * len(image) ** 0.5)},
            "visual_word": _heaviest(image),
            "topics": {"x": _row(topics * len(topics) ** 0.5)},
        }
        if "text_tfidf" in features:
            words = features["text_tfidf"][pair.row]
            nodes |= {"tfidf": {"x": _row(words * 4)}, "word": _heaviest(words)}
        kept = {name: value for name, value in nodes.items() if len(value["x"])}
        made.append(Sample(id=f"{part}-{pair.row}", target=pair.category, nodes=kept))
    return made


def _row(value: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(value, np.float32))[None]


def _heaviest(value: np.ndarray) -> Mapping[str, torch.Tensor]:
    """The heaviest words as nodes, the heaviest first: their weight and their number."""
    order = np.argsort(-value, kind="stable")[:WORDS]
    order = order[value[order] > 0]
    weight = value[order].astype(np.float32)[:, None] * 4
    return {"x": torch.from_numpy(weight), "word": torch.from_numpy(order.astype(np.int64))}
