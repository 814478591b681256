"""Edges that only the sample knows (``rule=rules.given``): from scene graphs, parses, timed words, and boxes.

Each function gives what ``Sample(edges={(src, relation, dst): ...})`` takes: ``index`` int64 ``[2, E]`` of places in
the sample and, for edge types with ``relations``, the relation of every edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import HetgraphError
from .rules_geometry import spatial_classes

Given = dict[str, Any]


def spatial_edges(box: Tensor, aspect: float = 1.0) -> Given:
    """The spatial relations of ReGAT as one edge type, ``relations=rules.SPATIAL``.

    Args:
        box: ``[N, 4]`` in 0..1 of the picture.
        aspect: width of the picture divided by its height.

    For what they are, and the source, see :func:`hetgraph.rules.spatial_classes`.
    """
    box = torch.as_tensor(box, dtype=torch.float32)
    if box.dim() != 2 or box.shape[1] != 4:
        raise HetgraphError(f"spatial_edges: expected boxes [N, 4], got {list(box.shape)}")
    classes = spatial_classes(box[None], box[None], (aspect**2 + 1) ** 0.5, aspect)[0]
    classes.fill_diagonal_(0)
    index = classes.nonzero().T
    return {"index": index, "relation": classes[index[0], index[1]] - 1}


def scene_edges(
    box: Tensor, objects: Tensor, facts: Iterable[tuple[int, str, int]], relations: Sequence[str], least: float = 0.5
) -> Given:
    """The facts of a scene graph (such as Visual Genome's) between the regions where its objects are.

    Every object is the region with which it has the largest intersection over union, the first of equals, if that is
    at least ``least``. Facts about objects without a region, and facts that the regions have already, are left out.

    Args:
        box: regions ``[N, 4]`` as x1, y1, x2, y2.
        objects: boxes of the objects ``[M, 4]``, in the same unit.
        facts: (object, relation, object).
        relations: names of the edge type's relations.
        least: overlap that makes an object a region's.

    Raises:
        HetgraphError: an unknown relation or an object that is not there.
    """
    box, objects = (torch.as_tensor(value, dtype=torch.float64).reshape(-1, 4) for value in (box, objects))
    region: list[int | None] = [None] * len(objects)
    if len(box) and len(objects):
        best, place = _overlap(objects, box).max(1)
        region = [int(p) if o >= least and o > 0 else None for o, p in zip(best.tolist(), place.tolist(), strict=True)]
    names = {name: i for i, name in enumerate(relations)}
    found: dict[tuple[int, int, int], None] = {}
    for fact in facts:
        subject, name, other = fact
        if name not in names:
            raise HetgraphError(f"scene graph: relation {name!r} is not one of {list(relations)[:8]}")
        for thing in (subject, other):
            if not 0 <= thing < len(objects):
                raise HetgraphError(f"scene graph: fact {fact} is about object {thing} of {len(objects)}")
        a, b = region[subject], region[other]
        if a is not None and b is not None:
            found[a, b, names[name]] = None
    return _edges(found)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union ``[M, N]`` of boxes ``[M, 4]`` and ``[N, 4]``; 0 where neither has an area."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1) - shared
    return torch.where(union > 0, shared / union, 0)


def dependency_edges(
    text: str, span: Tensor, parser: Callable[[str], Iterable[Any]], relations: Sequence[str] | None = None
) -> Given:
    """The syntactic dependencies of a text as edges from each word's head to the word.

    A word that the tokenizer has cut into several nodes is its first one; words without a node are left out.

    Args:
        text: what was parsed.
        span: first and last character of the nodes, ``[N, 2]``, as the encoders of texts give them.
        parser: gives the words of a text, objects like spaCy's tokens with ``idx``, ``text``, ``head``, ``dep_``; such
            as :func:`spacy_parser` makes.
        relations: names of the edge type's relations; None: the edges come without.

    Raises:
        HetgraphError: a dependency that is not one of the relations.
    """
    names = None if relations is None else {name: i for i, name in enumerate(relations)}
    node: dict[int, int] = {}
    words = list(parser(text))
    start, end = torch.as_tensor(span).reshape(-1, 2).T
    for word in words:
        over = (start < word.idx + len(word.text)) & (end > word.idx)
        if over.any():
            node[word.idx] = int(over.nonzero()[0])
    found: dict[tuple[int, int, int], None] = {}
    for word in words:
        head, own = node.get(word.head.idx), node.get(word.idx)
        # the root is its own head; words that share a node have no edge
        if head is None or own is None or head == own:
            continue
        if names is not None and word.dep_ not in names:
            raise HetgraphError(f"dependency {word.dep_!r} of {word.text!r} is not one of {list(names)[:8]}")
        found[head, own, 0 if names is None else names[word.dep_]] = None
    edges = _edges(found)
    return edges if names is not None else {"index": edges["index"]}


def spacy_parser(model: str = "en_core_web_sm") -> Callable[[str], Iterable[Any]]:
    """A spaCy pipeline that is installed.

    Raises:
        HetgraphError: spaCy or the model is not installed, or the model does not parse.
    """
    try:
        import spacy  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise HetgraphError("dependencies need spaCy: pip install spacy") from error
    try:
        parser = spacy.load(model)
    except OSError as error:
        raise HetgraphError(f"spaCy has no model {model!r}: python -m spacy download {model}") from error
    if "parser" not in parser.pipe_names:
        raise HetgraphError(f"the spaCy model {model!r} does not parse; it has {parser.pipe_names}")
    return parser


def word_times(span: Tensor, words: Sequence[tuple[int, int, float, float]]) -> Tensor:
    """When the nodes of a text are spoken: the field ``time`` float32 ``[N, 2]`` that :data:`hetgraph.rules.during`,
    ``before`` and ``after`` read.

    Args:
        span: first and last character of the nodes, ``[N, 2]``.
        words: (first character, last character, start, end) with times in seconds, such as a recogniser gives.

    Returns:
        From the start of the first to the end of the last word that a node touches; NaN for nodes that touch none.
    """
    out = torch.full((len(span), 2), torch.nan)
    for i, (first, last) in enumerate(torch.as_tensor(span).reshape(-1, 2).tolist()):
        touched = [(start, end) for a, b, start, end in words if a < last and b > first]
        if touched:
            out[i] = torch.tensor([min(start for start, _ in touched), max(end for _, end in touched)])
    return out


def _edges(found: Iterable[tuple[int, int, int]]) -> Given:
    rows = torch.tensor(list(found), dtype=torch.long).reshape(-1, 3).T
    return {"index": rows[:2], "relation": rows[2]}
