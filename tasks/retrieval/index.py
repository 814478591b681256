"""An index of vectors: add, delete, search by inner product, save and load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ...errors import CheckpointError, HetgraphError
from ...files import write_atomically

KINDS = ("auto", "exact", "usearch")
EXACT_UP_TO = 50_000
AT_ONCE = 1 << 24
"""Scores that are in memory together."""


class Index:
    """Vectors by id, found by the largest inner product.

    Exact, by one product of matrices, up to ``exact_up_to`` vectors. Beyond it approximate, by usearch (HNSW: Malkov
    and Yashunin, TPAMI 2020; extra ``link``); what that finds is scored exactly again.

    Args:
        dim: width of the vectors.
        kind: ``"exact"``, ``"usearch"``, or ``"auto"`` by the number of vectors; without usearch ``"auto"`` is exact.
        exact_up_to: where ``"auto"`` changes.
        expansion: how many candidates usearch looks at besides; more is slower and misses less.

    Raises:
        HetgraphError: an impossible width or kind, or usearch is asked for and not installed.
    """

    def __init__(self, dim: int, *, kind: str = "auto", exact_up_to: int = EXACT_UP_TO, expansion: int = 128) -> None:
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise HetgraphError(f"index: dim must be a positive whole number, got {dim!r}")
        if kind not in KINDS:
            raise HetgraphError(f"index: kind must be one of {KINDS}, got {kind!r}")
        self.dim, self.kind, self.exact_up_to, self.expansion = dim, kind, exact_up_to, expansion
        self._rows = torch.zeros(0, dim)
        self._ids: list[str] = []
        self._place: dict[str, int] = {}
        self._graph: Any = None
        if kind == "usearch":
            self._new_graph()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, name: object) -> bool:
        return name in self._place

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._ids)

    @property
    def approximate(self) -> bool:
        """Whether a search now goes through usearch."""
        large = self.kind == "usearch" or (self.kind == "auto" and len(self) > self.exact_up_to)
        return large and (self.kind == "usearch" or _usearch() is not None)

    def add(self, ids: Sequence[str], vectors: Tensor) -> None:
        """Take in vectors ``[N, dim]``.

        Raises:
            HetgraphError: an id is there already or twice, another width, or numbers that are not finite; the index
                is then as it was.
        """
        names = [str(name) for name in ids]
        rows = vectors.detach().float().cpu()
        if rows.shape != (len(names), self.dim):
            raise HetgraphError(f"index: vectors must be [{len(names)}, {self.dim}], got {list(rows.shape)}")
        seen: set[str] = set()
        for name, fine in zip(names, rows.isfinite().all(1).tolist(), strict=True):
            if name in self._place or name in seen:
                raise HetgraphError(f"index: id {name!r} is there already")
            if not fine:
                raise HetgraphError(f"index: the vector of {name!r} is not finite")
            seen.add(name)
        self._place |= {name: len(self._ids) + i for i, name in enumerate(names)}
        self._ids += names
        self._rows = torch.cat([self._rows, rows])
        self._graph = None

    def delete(self, ids: Sequence[str]) -> None:
        """Take vectors out.

        Raises:
            HetgraphError: an id is not there; nothing is deleted then.
        """
        gone = {str(name) for name in ids}
        if missing := sorted(gone - set(self._place)):
            raise HetgraphError(f"index: no id {missing[0]!r}")
        kept = [i for i, name in enumerate(self._ids) if name not in gone]
        self._rows = self._rows[kept]
        self._ids = [self._ids[i] for i in kept]
        self._place = {name: i for i, name in enumerate(self._ids)}
        self._graph = None

    def search(self, queries: Tensor, k: int = 10) -> list[list[tuple[str, float]]]:
        """The best k of each query ``[Q, dim]`` with their scores, the best first, of equal ones the first added.

        Raises:
            HetgraphError: another width, numbers that are not finite, or k below 1.
        """
        asked = queries.detach().float().cpu()
        if asked.dim() != 2 or asked.shape[1] != self.dim or not bool(asked.isfinite().all()):
            raise HetgraphError(f"index: queries must be finite [Q, {self.dim}], got {list(asked.shape)}")
        if k < 1:
            raise HetgraphError(f"index: k must be at least 1, got {k}")
        if not len(self) or not len(asked):
            return [[] for _ in asked]
        if self.approximate:
            return [self._near(row, k) for row in asked]
        out = []
        for part in asked.split(max(1, AT_ONCE // len(self))):
            scores = part @ self._rows.T
            order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
            out += [
                [(self._ids[i], float(row[i])) for i in places.tolist()]
                for row, places in zip(scores, order, strict=True)
            ]
        return out

    def _near(self, row: Tensor, k: int) -> list[tuple[str, float]]:
        if self._graph is None:
            self._new_graph()
        # more than asked for, because the order is made anew by exact scores
        wanted = min(len(self), max(2 * k, k + 8))
        keys = np.asarray(self._graph.search(row.numpy(), wanted).keys).reshape(-1).astype(np.int64)
        places = torch.from_numpy(np.sort(keys))
        scores = self._rows[places] @ row
        order = scores.argsort(descending=True, stable=True)[:k].tolist()
        return [(self._ids[int(places[i])], float(scores[i])) for i in order]

    def _new_graph(self) -> None:
        made = _usearch()
        if made is None:
            raise HetgraphError("an index of kind 'usearch' needs usearch: pip install 'hetgraph[link]'")
        self._graph = made(ndim=self.dim, metric="ip", dtype="f32", expansion_search=self.expansion)
        if len(self):
            # one thread: the order of insertion decides about the graph
            self._graph.add(np.arange(len(self)), self._rows.numpy(), threads=1)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with the ids in its header; usearch's graph is made anew when it is needed."""
        head = {name: getattr(self, name) for name in ("dim", "kind", "exact_up_to", "expansion")}
        about = json.dumps({**head, "ids": self._ids})
        write_atomically(Path(path), safetensors.torch.save({"vectors": self._rows}, {"index": about}))

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: no such file, damaged, or of something else.
        """
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                about = json.loads((file.metadata() or {})["index"])
                rows = file.get_tensor("vectors")
            ids = about.pop("ids")
            index = cls(**about)
            index.add(ids, rows)
        except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} holds no index that can be read: {error}") from error
        return index


def _usearch() -> Any:
    """usearch's class of an index; None if it is not installed."""
    try:
        from usearch.index import Index as Made
    except ImportError:
        return None
    return Made
