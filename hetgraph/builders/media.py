"""Schemas over image regions, text tokens, audio and video frames, table cells and entities.

Every function takes the feature width of each node type and gives a :class:`~hetgraph.Schema`.
Positions are optional fields: without them only the edges that need them are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

from .. import rules
from ..errors import HetgraphError
from ..schema import EdgeType, NodeType, Schema

WORDS_IN_REACH = 2
FRAMES_IN_REACH = 4
REGIONS_IN_REACH = 4


def _region(name: str, dim: int) -> list[NodeType | EdgeType]:
    sides = {"left_of": rules.left_of, "right_of": rules.right_of, "above": rules.above, "below": rules.below}
    return [
        NodeType(name, dim, optional={"box": 4}),
        EdgeType(name, "near", name, rule=rules.nearest(REGIONS_IN_REACH, "box")),
        *(EdgeType(name, side, name, rule=rule) for side, rule in sides.items()),
    ]


def _token(name: str, dim: int) -> list[NodeType | EdgeType]:
    return [
        NodeType(name, dim, optional={"span": 2, "time": 2}),
        EdgeType(name, "follows", name, rule=rules.following),
        EdgeType(name, "near", name, rule=rules.window(WORDS_IN_REACH)),
    ]


def _frame(name: str, dim: int) -> list[NodeType | EdgeType]:
    return [
        NodeType(name, dim, optional={"time": 2}),
        EdgeType(name, "follows", name, rule=rules.following),
        EdgeType(name, "near", name, rule=rules.window(FRAMES_IN_REACH)),
    ]


def _cell(name: str, dim: int) -> list[NodeType | EdgeType]:
    return [NodeType(name, dim, optional={"column": 0}), EdgeType(name, "with", name)]


def _across(*names: str, together: Iterable[Sequence[str]] = ()) -> list[EdgeType]:
    """Every node of one type to every node of each other type; to those of the same time between types ``together``."""
    same = {pair for group in together for pair in permutations(group, 2)}
    return [
        EdgeType(a, "during", b, rule=rules.during) if (a, b) in same else EdgeType(a, "with", b)
        for a, b in permutations(names, 2)
    ]


_KINDS = {"image": _region, "text": _token, "audio": _frame, "video": _frame, "table": _cell}
_TIMED = ("text", "audio", "video")


def media(*together: Sequence[str], **parts: tuple[str, int]) -> Schema:
    """Any mixture of media: node type -> (kind, feature width), all types connected with each other.

    ``media(photo=("image", 1280), speech=("audio", 80), noise=("audio", 80))``; the kinds are image, text,
    audio, video and table.

    Args:
        *together: node types on one clock, ``media(("speech", "word"), speech=("audio", 80), word=("text", 384))``:
            what is of the same time (field ``time``) is connected by ``during``, instead of everything by ``with``.

    Raises:
        HetgraphError: an unknown kind, or types together that are not there or have no times.
    """
    for name in (name for group in together for name in group):
        if name not in parts or parts[name][0] not in _TIMED:
            timed = [name for name, (kind, _) in parts.items() if kind in _TIMED]
            raise HetgraphError(f"expected node types with times together, some of {timed}, got {name!r}")
    inside: list[NodeType | EdgeType] = []
    for name, (kind, dim) in parts.items():
        if kind not in _KINDS:
            raise HetgraphError(f"node type {name!r}: unknown kind {kind!r}; known: {', '.join(_KINDS)}")
        inside += _KINDS[kind](name, dim)
    return _schema(*inside, *_across(*parts, together=together))


def image_text(region: int, token: int) -> Schema:
    """Image regions (field ``box``: x1, y1, x2, y2 in 0..1) and text tokens (``span``: characters)."""
    return media(region=("image", region), token=("text", token))


def audio_text(frame: int, token: int) -> Schema:
    """Audio frames (field ``time``: start, end in seconds) and text tokens."""
    return media(frame=("audio", frame), token=("text", token))


def image_text_audio(region: int, token: int, frame: int) -> Schema:
    """Image regions, text tokens and audio frames, connected within and across.

    Args:
        region, token, frame: feature width of each node type.
    """
    return media(region=("image", region), token=("text", token), frame=("audio", frame))


def video_text(frame: int, token: int, sound: int | None = None) -> Schema:
    """Video frames ``frame`` (field ``time``), tokens, and audio frames ``sound`` if their width is given.

    Frames and sounds that overlap in time are connected; tokens to everything.
    """
    if sound is None:
        return media(frame=("video", frame), token=("text", token))
    together = ("frame", "sound")
    return media(together, frame=("video", frame), token=("text", token), sound=("audio", sound))


def table(cell: int, **others: int) -> Schema:
    """Table cells (or rows) as nodes ``cell``, all connected, with any other types: ``table(cell=8, token=64)``."""
    known = {"region": _region, "token": _token, "frame": _frame}
    parts: list[NodeType | EdgeType] = _cell("cell", cell)
    for name, dim in others.items():
        parts += known[name](name, dim) if name in known else [NodeType(name, dim), EdgeType(name, "with", name)]
    return _schema(*parts, *_across("cell", *others))


def conversation(past: int = 5, future: int = 5, **modalities: int) -> Schema:
    """A conversation or monologue: one node per utterance and modality, Z per utterance.

    Every node has the field ``group``, the number of its utterance. Edges: the ``past`` and ``future``
    neighbours in time within a modality, and the same utterance across modalities.

    Args:
        past, future: how many utterances before and after are heard; 0: none, without that edge type.
        **modalities: name -> feature width, ``conversation(text=100, audio=73, video=100)``. Nodes of a
            modality must come in the order of time.
    """
    if past < 0 or future < 0:
        raise HetgraphError(f"conversation: past and future are at least 0, got past={past}, future={future}")
    parts: list[NodeType | EdgeType] = [NodeType(name, dim, fields={"group": 0}) for name, dim in modalities.items()]
    for name in modalities:
        if past:
            parts.append(EdgeType(name, "past", name, rule=rules.window(before=past, after=-1)))
        if future:
            parts.append(EdgeType(name, "future", name, rule=rules.window(before=-1, after=future)))
    parts += [EdgeType(a, "same", b, rule=rules.same("group")) for a, b in permutations(modalities, 2)]
    return _schema(*parts)


def _schema(*parts: NodeType | EdgeType) -> Schema:
    return Schema([p for p in parts if isinstance(p, NodeType)], [p for p in parts if isinstance(p, EdgeType)])
