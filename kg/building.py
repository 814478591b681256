"""From statements in any order to the one graph that they make up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .csr import KnowledgeGraph, Literals, Report, Rows
from .strings import Numbering


@dataclass
class Raw:
    """Statements as numbers, in order of appearance and with repetitions, and what the numbers stand for.

    Attributes:
        arcs: integers ``[E, 3]``: head, relation, tail.
        literals: integers ``[L, 4]``: entity, attribute, tag, form.
    """

    entities: Numbering
    relations: Numbering
    arcs: NDArray[Any]
    literals: NDArray[Any] = field(default_factory=lambda: np.empty((0, 4), np.int32))
    attributes: Numbering = field(default_factory=Numbering)
    tags: Numbering = field(default_factory=Numbering)
    forms: Numbering = field(default_factory=Numbering)


def build(raw: Raw, report: Report | None = None) -> KnowledgeGraph:
    """A graph that does not know the order of its statements."""
    names, place = raw.entities.finish()
    relations, relation_place = raw.relations.finish()
    n = len(names)
    head, kind, tail = place[raw.arcs[:, 0]], relation_place[raw.arcs[:, 1]], place[raw.arcs[:, 2]]
    out, into = both_ways(head, kind, tail, n, len(relations))
    del head, tail, kind
    tables = [numbering.finish() for numbering in (raw.attributes, raw.tags, raw.forms)]
    columns = [place[raw.literals[:, 0]], *(t[1][raw.literals[:, i]] for i, t in enumerate(tables, 1))]
    owner, attribute, tag, form = _distinct(columns, (n, *(len(strings) for strings, _ in tables)))
    literals = Literals(
        _offsets(owner, n), _small(attribute), _small(tag), _small(form), kinds=tables[1][0], forms=tables[2][0]
    )
    return KnowledgeGraph(names, relations, tables[0][0], out, into, literals, report or Report())


def both_ways(head: NDArray[Any], kind: NDArray[Any], tail: NDArray[Any], n: int, relations: int) -> tuple[Rows, Rows]:
    """Arcs by head and by tail, each once, for integers ``[E]`` under ``n``, ``relations`` and ``n``."""
    sizes = (n, n, relations)
    head, tail, kind = _distinct((head, tail, kind), sizes)
    out = Rows(_offsets(head, n), _small(tail, n), _small(kind))
    tail, head, kind = _distinct((tail, head, kind), sizes)
    return out, Rows(_offsets(tail, n), _small(head, n), _small(kind))


def _distinct(columns: Sequence[NDArray[Any]], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Sorted distinct rows of columns; column i holds numbers under ``sizes[i]``."""
    if not len(columns[0]):
        return list(columns)
    if math.prod(sizes) >= 2**63:
        order = np.lexsort(columns[::-1])
        parts = [column[order] for column in columns]
        new = np.concatenate([[True], np.any([part[1:] != part[:-1] for part in parts], axis=0)])
        return [part[new] for part in parts]
    # one number for a row: sorting numbers is several times faster than sorting rows
    key = columns[0].astype(np.int64)
    for column, size in zip(columns[1:], sizes[1:], strict=True):
        key *= size
        key += column
    key.sort()
    key = key[np.concatenate([[True], key[1:] != key[:-1]])]
    found = []
    for size in sizes[:0:-1]:
        key, rest = np.divmod(key, size)
        found.append(rest)
    return [key, *found[::-1]]


def _offsets(owner: NDArray[np.int64], n: int) -> NDArray[Any]:
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=n), out=offsets[1:])
    return _small(offsets)


def _small(array: NDArray[Any], largest: int | None = None) -> NDArray[Any]:
    """As int32 where that suffices, and never to be written again."""
    most = int(array.max(initial=0)) if largest is None else largest
    array = np.ascontiguousarray(array, np.int32 if most < 2**31 else np.int64)
    array.flags.writeable = False
    return array
