"""Texts to nodes by a table of word vectors: word2vec, GloVe, fastText."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from hetgraph.errors import HetgraphError

from .base import Nodes, whole
from .media import Item, open_file, read_block
from .text import TextEncoder, hashed_vector, words

UNKNOWN = ("hash", "zero")
MOST_DIM = 4096
_LONGEST_LINE = 1 << 17


class WordVectors(TextEncoder):
    """One node per word and punctuation mark (:func:`words`), its vector from a file.

    The file is the text form of word2vec (first line: how many words, how wide) or GloVe (no such line): a word
    and its numbers per line, with single spaces, UTF-8. A word is looked up as it is written, then in lower case.
    A word that the file lacks gets a pseudo-random vector of its own, of the mean length of the file's vectors
    (see :class:`HashWords`), or zeros; the attribute ``unknown_words`` counts them, since the encoder was made.

    Args:
        file: the vectors. Where it lies has no influence; ``weights`` is a hash of what was read of it.
        unknown: ``"hash"`` or ``"zero"``.
        max_words: only so many words from the beginning of the file are kept, usually the most frequent ones;
            each takes 4 * dim bytes.

    Raises:
        HetgraphError: no such file, a line that is no word with numbers (the message has its number), or a
            setting out of range.

    Source: Mikolov et al., NeurIPS 2013 (word2vec); Pennington et al., EMNLP 2014 (GloVe).
    """

    neutral = frozenset({"file"})

    def __init__(self, file: str | Path, unknown: str = "hash", max_words: int = 400_000) -> None:
        super().__init__()
        if unknown not in UNKNOWN:
            raise HetgraphError(f"WordVectors: unknown must be one of {', '.join(UNKNOWN)}, got {unknown!r}")
        if not isinstance(file, str | Path):
            raise HetgraphError(f"WordVectors: expected a path as file, got {type(file).__name__}")
        self.unknown = unknown
        self.max_words = whole("WordVectors", "max_words", max_words, 1, 10_000_000)
        self.file = str(Path(file).expanduser().resolve())
        item = Item(self.file, f"word vectors {self.file!r}")
        with open_file(Path(self.file), item) as source:
            self._places, self._table, self.weights = _read(source, item, self.max_words)
        self.dim = self._table.shape[1]
        self._length = float(np.linalg.norm(self._table, axis=1).mean())
        self.unknown_words = 0

    def settings(self) -> dict[str, Any]:
        return {"file": self.file, "unknown": self.unknown, "max_words": self.max_words}

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        nodes: list[Nodes] = []
        for item in items:
            text = self.read(item)
            found = words(text)
            x = np.stack([self._vector(text[start:end], word) for word, start, end in found])
            span = torch.tensor([(start, end) for _, start, end in found], dtype=torch.float32)
            nodes.append({"x": torch.from_numpy(x), "span": span})
        return nodes

    def _vector(self, written: str, word: str) -> np.ndarray:
        place = self._places.get(written, self._places.get(word))
        if place is not None:
            return self._table[place]
        self.unknown_words += 1
        if self.unknown == "zero":
            return np.zeros(self.dim, np.float32)
        return hashed_vector(word, self.dim) * np.float32(self._length / self.dim**0.5)


def _read(source: BinaryIO, item: Item, most: int) -> tuple[dict[str, int], np.ndarray, str]:
    """Word -> row, the rows ``[words, dim]``, and a hash of the lines that were read. Of a repeated word the first
    vector counts."""
    total = hashlib.sha256()
    places: dict[str, int] = {}
    blocks: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    dim = 0
    for number, line in _lines(source, item):
        total.update(line + b"\n")
        if number == 1 and len(parts := line.split()) == 2 and all(part.isdigit() for part in parts):
            dim = int(parts[1])
            if not 1 <= dim <= MOST_DIM:
                raise item.error(f"line 1: expected vectors of 1 to {MOST_DIM} numbers, got {dim}")
            continue
        dim = dim or line.rstrip().count(b" ")
        # from the right, because a few words of some files have spaces inside
        word, *values = line.rstrip().rsplit(b" ", dim) if 1 <= dim <= MOST_DIM else [line]
        try:
            name = word.decode("utf-8")
            with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused as such
                vector = np.array(values, dtype=np.float32)
        except ValueError as error:
            raise item.error(f"line {number}: expected a word and {dim} numbers: {error}") from error
        if not name or len(vector) != dim or not dim:
            raise item.error(f"line {number}: expected a word and {dim or 'some'} numbers, got {len(vector)}")
        if not np.isfinite(vector).all():
            raise item.error(f"line {number}: expected finite numbers for {name!r}")
        if name in places:
            continue
        places[name] = len(places)
        rows.append(vector)
        if len(rows) == 4096:
            blocks, rows = [*blocks, np.stack(rows)], []
        if len(places) == most:
            break
    if not places:
        raise item.error("expected a word and its numbers in every line, got no line")
    return places, np.concatenate([*blocks, np.stack(rows)] if rows else blocks), total.hexdigest()


def _lines(source: BinaryIO, item: Item) -> Iterator[tuple[int, bytes]]:
    """Lines without their end, counted from 1; blocks of bounded size are read at a time."""
    rest, number = b"", 0
    while block := read_block(source, item, _LONGEST_LINE):
        *whole_lines, rest = (rest + block).split(b"\n")
        for line in whole_lines:
            number += 1
            if line.strip():
                yield number, line.rstrip(b"\r")
        if len(rest) > _LONGEST_LINE:
            raise item.error(f"line {number + 1}: longer than {_LONGEST_LINE} bytes")
    if rest.strip():
        yield number + 1, rest.rstrip(b"\r")
