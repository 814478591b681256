"""Triples to learn from and triples to be asked for: the splits of link prediction, and how to read them.

Shapes: N entities, R relations, T triples.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .csr import KnowledgeGraph
from .errors import KnowledgeError
from .parsing import rows
from .strings import Numbering

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """A knowledge graph in three parts.

    Args:
        entities: N names.
        relations: R names.
        train, valid, test: int64 ``[T, 3]``: head, relation and tail as places in the names. Repeated rows are dropped.

    Raises:
        KnowledgeError: another shape, numbers without a name, no triple to train on.
    """

    entities: Sequence[str]
    relations: Sequence[str]
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]

    def __post_init__(self) -> None:
        sizes = np.array([len(self.entities), len(self.relations), len(self.entities)])
        for name in PARTS:
            part = np.asarray(getattr(self, name))
            if part.ndim != 2 or part.shape[1] != 3 or part.dtype.kind not in "iu":
                raise KnowledgeError(f"{name}: expected integers [T, 3], got {part.dtype} {list(part.shape)}")
            if part.size and ((part < 0) | (part >= sizes)).any():
                raise KnowledgeError(
                    f"{name}: numbers up to {part.max(axis=0).tolist()} where there are {sizes.tolist()} names"
                )
            # a repeated triple would be asked for twice, and weigh twice
            object.__setattr__(self, name, _distinct(part.astype(np.int64)))
        if not len(self.train):
            raise KnowledgeError("train: no triple to learn from")

    @classmethod
    def of(cls, kg: KnowledgeGraph, *, valid: float = 0.0, test: float = 0.0, seed: int = 0) -> Splits:
        """Split the arcs of a graph at random.

        Args:
            kg: its entities and relations keep their places.
            valid, test: the shares of these parts.
            seed: of the draw.

        Raises:
            KnowledgeError: shares that are negative or leave nothing to train on.
        """
        if not (valid >= 0 and test >= 0 and valid + test < 1):
            raise KnowledgeError(f"valid and test must be shares that leave a train part, got {valid} and {test}")
        arcs = np.stack([kg.heads, kg.out.types, kg.out.nodes], axis=1).astype(np.int64)
        order = np.random.default_rng(seed).permutation(len(arcs))
        ends = np.cumsum([round(valid * len(arcs)), round(test * len(arcs))])
        chosen = [np.sort(part) for part in np.split(order, ends)]
        return cls(kg.entities, kg.relations, arcs[chosen[2]], arcs[chosen[0]], arcs[chosen[1]])

    def graph(self) -> KnowledgeGraph:
        """The train part as a graph: what a model may look at. Its names are sorted, so that places may differ."""
        heads, relations, tails = self.train.T
        return KnowledgeGraph.from_arcs(heads, relations, tails, list(self.entities), list(self.relations))

    @cached_property
    def known(self) -> NDArray[np.int64]:
        """All triples of all parts ``[T, 3]``: what a filtered rank leaves out."""
        return np.concatenate([self.train, self.valid, self.test])

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """Which entities are in a triple of train ``[N]``."""
        found = np.zeros(len(self.entities), bool)
        found[self.train[:, [0, 2]]] = True
        return found

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in PARTS)
        return f"Splits({len(self.entities):,} entities, {len(self.relations):,} relations, {sizes})"


def load_splits(folder: str | Path, name: str | None = None) -> Splits:
    """Read the splits in a folder.

    Args:
        folder: holds either ``NAME.npz`` (integers ``train``, ``valid``, ``test`` ``[T, 3]``) beside
            ``NAME_entity.txt`` and ``NAME_relation.txt`` (a name in each line), or tables of head, relation and tail:
            ``NAME_train.tsv`` and so on, ``train.tsv`` or ``train.txt`` without a name. A part but train may be absent.
        name: of the data set, where there are several.

    Raises:
        KnowledgeError: nothing of the kind is there, several are and no name is given, or a file is malformed.
    """
    folder = Path(folder)
    if name is None:
        found = sorted({p.stem for p in folder.glob("*.npz")} | {p.stem[:-6] for p in folder.glob("*_train.tsv")})
        if len(found) > 1:
            raise KnowledgeError(f"{folder}: name= must be one of {', '.join(found)}")
        name = found[0] if found else ""
    if name and (folder / f"{name}.npz").exists():
        return _from_arrays(folder, name)
    stem = f"{name}_" if name else ""
    tables = {part: folder / f"{stem}{part}.tsv" for part in PARTS}
    tables = {part: path if path.exists() else path.with_suffix(".txt") for part, path in tables.items()}
    if not tables["train"].exists():
        raise KnowledgeError(f"{folder}: neither {name or 'NAME'}.npz nor {tables['train'].name}")
    return _from_tables(tables)


def _from_arrays(folder: Path, name: str) -> Splits:
    names = []
    for kind in ("entity", "relation"):
        path = folder / f"{name}_{kind}.txt"
        try:
            names.append(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise KnowledgeError(f"{path}: {error}") from error
    path = folder / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = {part: arrays[part] for part in PARTS if part in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise KnowledgeError(f"{path}: {error}") from error
    try:
        return Splits(names[0], names[1], **{part: parts.get(part, np.empty((0, 3), np.int64)) for part in PARTS})
    except KnowledgeError as error:
        raise KnowledgeError(f"{path}: {error}") from error


def _from_tables(tables: dict[str, Path]) -> Splits:
    entities, relations = Numbering(), Numbering()
    numbered = {}
    for part, path in tables.items():
        triples = rows(path, format="tsv") if path.exists() else iter(())
        found = [(entities(head), relations(relation), entities(tail)) for head, relation, tail in triples]
        numbered[part] = np.array(found, np.int64).reshape(-1, 3)
    (names, place), (kinds, kind_place) = entities.finish(), relations.finish()
    for part, table in numbered.items():
        numbered[part] = np.stack([place[table[:, 0]], kind_place[table[:, 1]], place[table[:, 2]]], axis=1)
    return Splits(names, kinds, **numbered)


def _distinct(triples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows without repetitions, in the order of their first appearance."""
    _, first = np.unique(triples, axis=0, return_index=True)
    return triples[np.sort(first)]
