"""What the data sets of questions about pictures share: words as features, the graph, and the validation part.

A question is there twice: as tokens of a pretrained language model, which know what words mean, and as one node that
counts the words and pairs of words it has, which a few thousand questions teach more from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ... import rules
from ...encoders import Encoder, default_text_encoder
from ...encoders.base import Nodes
from ...encoders.cache import Cached
from ...encoders.text import words
from ...errors import HetgraphError
from ...objectives import Answering
from ...sample import Sample
from ...schema import EdgeType, NodeType, Schema
from . import Dataset
from .facts import Facts
from .official.parts import Question
from .reading import CLIP, read_arrays
from .recall import Recall

T = TypeVar("T")
GRID = 3
SMOOTHING = 0.1
"""Of the answers: most questions have others that are nearly as right."""


class Phrases:
    """The words and pairs of neighbouring words that training questions have at least ``least`` times.

    Args:
        questions: of the training part.
        least: how often something has to occur to be known.

    Raises:
        HetgraphError: nothing occurs often enough.
    """

    def __init__(self, questions: Iterable[str], least: int = 2) -> None:
        counts = Counter(phrase for question in questions for phrase in _phrases(question))
        kept = sorted(phrase for phrase, count in counts.items() if count >= least)
        if not kept:
            raise HetgraphError(f"no word occurs {least} times in the training questions")
        self.index = {phrase: i for i, phrase in enumerate(kept)}

    def __len__(self) -> int:
        return len(self.index)

    def node(self, question: str) -> np.ndarray:
        """The question as one node, float32 ``[1, len(self)]``: 1 where it has the phrase."""
        row = np.zeros((1, len(self)), np.float32)
        row[0, [self.index[p] for p in _phrases(question) if p in self.index]] = 1.0
        return row


def _phrases(question: str) -> list[str]:
    found = [word for word, _, _ in words(question)]
    return found + [f"{a} {b}" for a, b in pairwise(found)]


def encoded(
    questions: Sequence[str], encoder: Encoder | None, cache: str | Path | None
) -> tuple[dict[str, Nodes], int, str]:
    """Every different question through a text encoder: its nodes, their width, and the name of the encoder."""
    chosen = encoder or default_text_encoder()
    different = list(dict.fromkeys(questions))
    nodes = (Cached(chosen, cache) if cache is not None else chosen)(different, different)
    return dict(zip(different, nodes, strict=True)), chosen.dim, str(chosen.config()["encoder"])


def grid_boxes(cells: int = GRID, whole: bool = False) -> np.ndarray:
    """The boxes of ``cells x cells`` regions row by row, float32 ``[N, 4]``; with ``whole`` the picture at the end."""
    steps = np.arange(cells) / cells
    y, x = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    boxes = np.stack([x, y, x + 1 / cells, y + 1 / cells], 1)
    return np.concatenate([boxes, [[0, 0, 1, 1]]] if whole else [boxes]).astype(np.float32)


def regions(title: str, path: Path, train: set[str]) -> dict[str, np.ndarray]:
    """Picture -> features of its regions, standardised on the training pictures and clipped.

    Args:
        path: an npz file with ``image [N]`` and ``regions [N, GRID ** 2 + 1, width]``, the last of the whole picture.
        train: the training pictures.

    Raises:
        HetgraphError: no file, or its arrays do not fit.
    """
    arrays = read_arrays(title, path, ("image", "regions"))
    names, value = [str(n) for n in arrays["image"]], arrays["regions"]
    if value.ndim != 3 or value.shape[:2] != (len(names), GRID**2 + 1) or value.dtype.kind != "f":
        raise HetgraphError(
            f"{title}: {path}: regions are floats [{len(names)}, {GRID**2 + 1}, width], got {value.dtype} "
            f"{list(value.shape)}"
        )
    value = value.astype(np.float32)
    known = value[[name in train for name in names]].reshape(-1, value.shape[2])
    if not len(known):
        raise HetgraphError(f"{title}: {path}: none of the training pictures")
    mean, std = known.mean(0), known.std(0)
    scaled = ((value - mean) / np.where(std > 0, std, 1)).clip(-CLIP, CLIP)
    return dict(zip(names, scaled, strict=True))


def schema(nodes: Sequence[NodeType]) -> Schema:
    """The graph of a question about a picture, of those types that ``nodes`` has.

    The whole question (``question``) is connected with everything, both ways; every token with every region, object
    and fact, every object with every region. Tokens hear the one before and two to either side, regions their four
    nearest, and objects which others lie to the left, to the right, above and below.
    """
    known = {node.name for node in nodes}
    sides = {"left_of": rules.left_of, "right_of": rules.right_of, "above": rules.above, "below": rules.below}
    edges = [
        EdgeType("token", "follows", "token", rule=rules.following),
        EdgeType("token", "near", "token", rule=rules.window(2)),
        EdgeType("region", "near", "region", rule=rules.nearest(4, "box")),
        *(EdgeType("object", side, "object", rule=rule) for side, rule in sides.items()),
    ]
    across = [("question", node.name) for node in nodes if node.name != "question"]
    across += [("token", "region"), ("token", "object"), ("token", "fact"), ("object", "region")]
    edges += [EdgeType(*ends, rule=rules.all_pairs) for a, b in across for ends in ((a, "with", b), (b, "with", a))]
    return Schema(nodes, [edge for edge in edges if {edge.src, edge.dst} <= known])


def dataset(
    name: str,
    title: str,
    parts: Sequence[Sequence[Question]],
    pictures: Mapping[str, np.ndarray],
    encoder: Encoder | None,
    cache: str | Path | None,
    *,
    answer: Callable[[Question], str],
    notes: Callable[[str], str],
    kind: Callable[[Question], str] = lambda question: "",
    types: Sequence[NodeType] = (),
    more: Callable[[Question], dict[str, Any]] = lambda question: {},
    facts: bool = False,
    objects: Mapping[str, np.ndarray] | None = None,
) -> Dataset:
    """Questions with the regions of their pictures as a data set: answers are those of the training part.

    Args:
        name, title: of the data set, and of its messages.
        parts: training, validation and test questions.
        pictures: picture -> its regions, the last of the whole picture.
        encoder, cache: see :func:`encoded`.
        answer: the answer that counts.
        notes: from the name of the encoder.
        kind: as which a question is scored apart.
        types, more: further node types, and their nodes.
        facts: what training says of the same picture is there as nodes, too (:class:`.facts.Facts`).
        objects: picture -> how many objects of each class it has, float32 ``[1, C]``. With it, what training says of
            like pictures and questions is there as nodes, too (:class:`.recall.Recall`).

    Raises:
        HetgraphError: a question's picture has no features, or no word occurs often enough.
    """
    for question in (q for part in parts for q in part):
        if question.image not in pictures:
            raise HetgraphError(f"{title}: question {question.id!r}: no features of picture {question.image!r}")
    phrases = Phrases(question.question for question in parts[0])
    tokens, width, used = encoded([q.question for part in parts for q in part], encoder, cache)
    boxes = grid_boxes(whole=True)
    words_of = {question: np.asarray(encoding["x"]) for question, encoding in tokens.items()}
    said = [answer(question) for question in parts[0]]
    known_answers = sorted(set(said))
    recalled: dict[str, dict[str, np.ndarray]] = {}
    if objects is not None:
        recall = Recall(parts[0], said, known_answers, phrases.node, words_of, pictures, objects)
        for part in parts:
            for question, row in zip(part, recall.answers(part), strict=True):
                recalled[question.id] = {"attribute": recall.attributes(question.image), "neighbour": row[None]}

    def sample(question: Question) -> Sample:
        nodes: dict[str, Any] = {
            "question": phrases.node(question.question),
            "token": tokens[question.question],
            "region": {"x": pictures[question.image], "box": boxes},
            **more(question),
            **recalled.get(question.id, {}),
        }
        return Sample(id=question.id, target=answer(question), nodes=nodes)

    learnt, validating, tested = _scaled([[sample(question) for question in part] for part in parts])
    nodes = [
        NodeType("question", len(phrases)),
        NodeType("token", width, optional={"span": 2}),
        NodeType("region", next(iter(pictures.values())).shape[1], fields={"box": 4}),
        *types,
    ]
    if objects is not None:
        nodes += [NodeType(name, len(known_answers)) for name in ("attribute", "neighbour")]
    if facts:
        known = Facts(parts[0], said, phrases.node, words_of)
        nodes.append(NodeType("fact", known.width))
        for part, samples in zip(parts, (learnt, validating, tested), strict=True):
            for question, one in zip(part, samples, strict=True):
                if (rows := known.of(question)) is not None:
                    # scaled already
                    one.nodes["fact"] = {"x": torch.from_numpy(rows)}
    return Dataset(
        name,
        schema(nodes),
        learnt,
        validating,
        tested,
        Answering(tuple(known_answers), smoothing=SMOOTHING),
        standardize=False,
        notes=notes(used),
        about={q.id: about(q, kind(q)) for part in parts for q in part},
    )


def _scaled(parts: Sequence[list[Sample]]) -> Sequence[list[Sample]]:
    """The features of every node type divided by one number: their root mean square in the first part.

    A few ones among thousands of zeros are otherwise so faint beside dense features that a model is slow to hear them.
    """
    total: dict[str, tuple[float, int]] = {}
    for sample in parts[0]:
        for name, nodes in sample.nodes.items():
            squares, count = total.get(name, (0.0, 0))
            total[name] = squares + float(nodes["x"].square().sum()), count + nodes["x"].numel()
    scale = {name: (squares / count) ** 0.5 or 1.0 for name, (squares, count) in total.items()}
    # what samples share they go on sharing
    done: dict[int, tuple[Tensor, Tensor]] = {}
    for sample in (sample for part in parts for sample in part):
        for name, nodes in sample.nodes.items():
            x = nodes["x"]
            if id(x) not in done:
                done[id(x)] = x, x / scale.get(name, 1.0)
            nodes["x"] = done[id(x)][1]
    return parts


def about(question: Question, kind: str = "", picture: Any = None) -> dict[str, Any]:
    """What :attr:`Dataset.about` says of a question."""
    return {
        "question": question.question,
        "image": question.image,
        "answers": question.answers,
        "kind": kind,
        "picture": question.file if picture is None else picture,
    }


def held_out(items: Sequence[T], key: Callable[[T], str], share: int) -> tuple[list[T], list[T]]:
    """Training and validation items: those go to validation whose key's SHA-256 is a multiple of ``share``.

    So items with the same key stay together, and which they are depends on nothing else.

    Raises:
        HetgraphError: one of the two is empty.
    """
    parts: tuple[list[T], list[T]] = ([], [])
    for item in items:
        parts[int.from_bytes(hashlib.sha256(key(item).encode()).digest(), "big") % share == 0].append(item)
    if not all(parts):
        raise HetgraphError(f"{len(items)} questions cannot be split for validation: too few pictures")
    return parts
