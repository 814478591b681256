"""Linking by vectors: the entities whose vectors are most like that of a word, a region or a sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .csr import KnowledgeGraph
from .errors import KnowledgeError
from .linking import Link, TextLinker, aliases, free_of
from .spelling import Span, Spelling

Encode = Callable[[list[str]], Iterable[Any]]
"""A text encoder of :mod:`hetgraph.encoders`: texts -> for each a mapping with ``x [N, D]``."""

AT_ONCE = 1 << 25
"""Similarities that are held at once: 128 MB."""


class DenseLinker(TextLinker):
    """Finds the entities with the most similar vectors, by the cosine; the score is the cosine, nothing below 0 links.

    Exact by one product of matrices, 2 ms a query for 100,000 vectors of 384 numbers. Beyond ``exact_up_to`` vectors
    approximately by usearch (HNSW: Malkov and Yashunin, TPAMI 2020), if it is installed; what it finds is scored
    exactly again.

    In a text every word that is free, and up to ``longest`` together, is a query; of overlapping ones the most similar
    counts, then the longest, then the first. That is for encoders that know what is alike; words without a letter
    are not asked for.

    Args:
        vectors: ``[A, D]``.
        entities: whole numbers ``[A]``, the entity of each vector; one with several counts by its best. Default:
            0 .. A-1.
        encoder: of texts, for :meth:`link`; the mean of its features is the vector.
        threshold: a candidate that scores less is no link (NIL).
        most: candidates of one mention at most.
        longest: words of a mention at most.
        index: ``"exact"``, ``"usearch"``, or ``"auto"`` by the number of vectors.
        exact_up_to: where ``"auto"`` changes from the one to the other.

    Raises:
        KnowledgeError: arrays that do not fit, numbers that are not finite, an unknown or missing index.
    """

    def __init__(
        self,
        vectors: ArrayLike | Tensor,
        entities: ArrayLike | None = None,
        *,
        encoder: Encode | None = None,
        threshold: float = 0.5,
        most: int | None = 1,
        longest: int = 1,
        index: str = "auto",
        exact_up_to: int = 200_000,
    ) -> None:
        super().__init__(threshold, most)
        self.encoder, self.longest = encoder, longest
        self.vectors = _unit(vectors, "vectors")
        count = len(self.vectors)
        numbers = np.arange(count) if entities is None else np.asarray(entities)
        if numbers.shape != (count,) or (count and (numbers.dtype.kind not in "iu" or numbers.min() < 0)):
            raise KnowledgeError(f"entities must be whole numbers [{count}], got {numbers.dtype} {list(numbers.shape)}")
        self.entities = torch.from_numpy(numbers.astype(np.int64))
        self._several = int(np.unique(numbers, return_counts=True)[1].max(initial=1))
        if index not in ("auto", "exact", "usearch"):
            raise KnowledgeError(f"index must be 'auto', 'exact' or 'usearch', got {index!r}")
        approximate = index == "usearch" or (index == "auto" and count > exact_up_to)
        self._index = _usearch(self.vectors, required=index == "usearch") if approximate else None

    @classmethod
    def of(
        cls,
        graph: KnowledgeGraph,
        encoder: Encode,
        *,
        languages: Sequence[str] | None = None,
        names: bool | None = None,
        batch: int = 256,
        **options: Any,
    ) -> DenseLinker:
        """With the vectors of all labels of a graph; ``languages`` and ``names`` as of ``AliasLinker``."""
        pairs = [(name, entity) for name, entity in aliases(graph, languages, names) if name.strip()]
        if not pairs:
            raise KnowledgeError("the graph has no label to make a vector of")
        parts = [_means(encoder, [name for name, _ in pairs[i : i + batch]]) for i in range(0, len(pairs), batch)]
        return cls(torch.cat(parts), [entity for _, entity in pairs], encoder=encoder, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None if self._index is None else bytes(self._index.save())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._index is not None:
            from usearch.index import Index

            self._index = Index.restore(self._index)

    @property
    def index(self) -> str:
        """What searches: ``"exact"`` or ``"usearch"``."""
        return "exact" if self._index is None else "usearch"

    def search(self, queries: ArrayLike | Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The most similar entities of each query.

        Args:
            queries: ``[Q, D]``.
            k: how many entities; where there are fewer, fewer.

        Returns:
            Entities int64 ``[Q, k]``, the most similar first, of equally similar ones the lower number, and their
            cosines ``[Q, k]``. What usearch does not find is -1 in both.

        Raises:
            KnowledgeError: another width, or numbers that are not finite.
        """
        asked = _unit(queries, "queries")
        if asked.shape[1] != self.vectors.shape[1]:
            raise KnowledgeError(f"queries must be [Q, {self.vectors.shape[1]}], got {list(asked.shape)}")
        wanted = min(k, len(torch.unique(self.entities)) if self._several > 1 else len(self.entities))
        rows = min(wanted * self._several, len(self.entities))
        size = max(1, AT_ONCE // max(1, len(self.vectors)))
        found = [self._best(part, rows, wanted) for part in asked.split(size)] if wanted else []
        if not found:
            return torch.zeros(len(asked), 0, dtype=torch.long), torch.zeros(len(asked), 0)
        return torch.cat([entities for entities, _ in found]), torch.cat([scores for _, scores in found])

    def link_nodes(self, x: ArrayLike | Tensor, type: str = "region") -> list[Link]:
        """Links of N nodes by their own vectors ``[N, D]``, which have to be of the same space as the entities'."""
        entities, scores = self.search(x, self.most or len(self.entities))
        found = []
        for node, candidates in enumerate(self._rows(entities, scores)):
            found += [Link(entity, score, "dense", type, (node, node + 1)) for entity, score in candidates]
        return found

    def link(self, text: str, type: str = "token", taken: Sequence[Span] = ()) -> list[Link]:
        if self.encoder is None:
            raise KnowledgeError("linking texts by vectors needs encoder=")
        words, spans = Spelling().split(text)
        free = free_of(taken, spans)
        ranges = [
            (at, end)
            for at in range(len(words))
            for end in range(at + 1, min(at + self.longest, len(words)) + 1)
            if all(free[at:end]) and any(any(map(str.isalpha, word)) for word in words[at:end])
        ]
        if not ranges:
            return []
        queries = _means(self.encoder, [text[spans[at][0] : spans[end - 1][1]] for at, end in ranges])
        rows = self._rows(*self.search(queries, self.most or len(self.entities)))
        order = sorted(
            (i for i, row in enumerate(rows) if row),
            key=lambda i: (-rows[i][0][1], ranges[i][0] - ranges[i][1], ranges[i][0]),
        )
        kept: list[int] = []
        used = [False] * len(words)
        for i in order:
            at, end = ranges[i]
            if not any(used[at:end]):
                used[at:end] = [True] * (end - at)
                kept.append(i)
        found = []
        for i in sorted(kept, key=lambda i: ranges[i]):
            span = (spans[ranges[i][0]][0], spans[ranges[i][1] - 1][1])
            found += [Link(entity, score, "dense", type, ranges[i], span) for entity, score in rows[i]]
        return found

    def _rows(self, entities: Tensor, scores: Tensor) -> list[tuple[tuple[int, float], ...]]:
        both = zip(entities.tolist(), scores.clamp(max=1.0).tolist(), strict=True)
        return [self._chosen(zip(found, cosines, strict=True)) for found, cosines in both]

    def _best(self, asked: Tensor, rows: int, wanted: int) -> tuple[Tensor, Tensor]:
        """Entities and cosines ``[Q, wanted]`` of unit queries."""
        if self._index is None:
            cosines = asked @ self.vectors.T
            least = cosines.topk(rows, 1).values[:, -1:]
            # all that are as good as the last one, so that a tie there is not decided by where a vector lies
            places = [row.nonzero().flatten() for row in cosines >= least]
            scored = [cosines[i, at] for i, at in enumerate(places)]
        else:
            places = [torch.as_tensor(keys.astype(np.int64)) for keys in _keys(self._index, asked, rows)]
            scored = [self.vectors[at] @ query for at, query in zip(places, asked, strict=True)]
        chosen = [
            _first(self.entities[at].numpy(), score.numpy(), wanted) for at, score in zip(places, scored, strict=True)
        ]
        return torch.from_numpy(np.stack([e for e, _ in chosen])), torch.from_numpy(np.stack([s for _, s in chosen]))


def _first(entities: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of each entity, by falling score, then by number."""
    order = np.lexsort((entities, -scores))
    _, first = np.unique(entities[order], return_index=True)
    kept = order[np.sort(first)[:count]]
    # an index may give fewer than there are
    missing = (0, count - len(kept))
    return np.pad(entities[kept], missing, constant_values=-1), np.pad(scores[kept], missing, constant_values=-1.0)


def _unit(vectors: ArrayLike | Tensor, what: str) -> Tensor:
    """Float32 ``[A, D]`` of length one; zeros stay zeros."""
    made = torch.as_tensor(vectors if isinstance(vectors, Tensor) else np.asarray(vectors)).detach()
    if made.dim() != 2 or made.is_complex() or not bool(torch.isfinite(made).all()):
        raise KnowledgeError(f"{what} must be finite numbers [A, D], got {made.dtype} {list(made.shape)}")
    return torch.nn.functional.normalize(made.to("cpu", torch.float32), dim=1)


def _means(encoder: Encode, texts: list[str]) -> Tensor:
    """The mean features of each text ``[A, D]``."""
    return torch.stack([torch.as_tensor(nodes["x"]).mean(0) for nodes in encoder(texts)])


def _usearch(vectors: Tensor, required: bool) -> Any:
    """An index of unit vectors; None if usearch is not installed and need not be."""
    try:
        from usearch.index import Index
    except ImportError as error:
        if required:
            raise KnowledgeError("index='usearch' needs usearch: pip install 'hetgraph[link]'") from error
        return None
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    # one thread: the order of insertion decides about the graph
    index.add(np.arange(len(vectors)), vectors.numpy(), threads=1)
    return index


def _keys(index: Any, asked: Tensor, rows: int) -> list[np.ndarray]:
    """The rows that usearch finds for each query."""
    found = index.search(asked.numpy(), rows)
    keys, counts = np.atleast_2d(found.keys), np.atleast_1d(found.counts) if len(asked) > 1 else [len(found.keys)]
    return [row[:count] for row, count in zip(keys, counts, strict=True)]
