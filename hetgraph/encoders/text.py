"""Texts to nodes without weights: one node per word, its vector a hash of the word."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .base import Encoder, Nodes, whole
from .media import Item, is_bytes, read_file

_PIECE = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


def words(text: str) -> list[tuple[str, int, int]]:
    """Words and punctuation marks of a text, as ``(word, start, end)`` with character offsets.

    A word is a run of letters, digits and underscores of any script, with its combining marks and inner
    apostrophes (``don't``); every other visible character is a word of its own. The word comes lower-cased,
    in Unicode normal form C and with the typewriter's apostrophe; ``text[start:end]`` is how it was written.
    """
    spans: list[tuple[int, int]] = []
    for match in _PIECE.finditer(text):
        start, end = match.span()
        # The regex breaks words at combining marks (accents of form D, vowel signs of Indic scripts).
        touches = bool(spans) and spans[-1][1] == start
        if touches and (_is_mark(text[start]) or (_is_mark(text[start - 1]) and text[start].isalnum())):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return [(_spelling(text[a:b]), a, b) for a, b in spans]


def _spelling(word: str) -> str:
    return unicodedata.normalize("NFC", word).lower().replace("\u2019", "'")


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


class TextEncoder(Encoder):
    """Base of the encoders of texts.

    Items are strings (the text itself), Path objects (a file in UTF-8, with or without byte order mark), or
    bytes (UTF-8). A text without a visible character is refused: leave the modality out instead.
    The field ``span [N, 2]`` holds start and end of each node as character offsets into the text.
    """

    def __init__(self) -> None:
        self.fields = {"span": 2}

    def path_of(self, value: Any) -> Path | None:
        return Path(value) if isinstance(value, PathLike) else None

    def read(self, item: Item) -> str:
        """The text of an item.

        Raises:
            MediaError: empty, not UTF-8, or not a text.
        """
        text = item.value
        path = self.path_of(text)
        if path is not None or is_bytes(text):
            data = bytes(text) if path is None else read_file(path, item)
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise item.error(f"expected UTF-8 text, got byte {data[error.start]:#04x} at {error.start}") from error
        if not isinstance(text, str):
            raise item.error(f"expected a string, a Path or UTF-8 bytes, got {type(text).__name__}")
        if not text.strip():
            raise item.error("text is empty")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise item.error(f"expected Unicode text, got a lone surrogate at {error.start}") from error
        return text


class HashWords(TextEncoder):
    """One node per word and punctuation mark (:func:`words`); no weights.

    Every word has a fixed pseudo-random vector: components uniform with mean 0 and variance 1, drawn from
    BLAKE2b of the lower-cased word. The same word has the same vector in every text, process and version of
    Python; different words are nearly orthogonal (the cosine's standard deviation is ``dim ** -0.5``).

    Args:
        dim: width of the vectors.

    Source: feature hashing (Weinberger et al., ICML 2009) with dense signs, that is, a random projection of
    one-hot words.
    """

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.dim = whole("HashWords", "dim", dim, 1, 65536)

    def settings(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        nodes: list[Nodes] = []
        for item in items:
            found = words(self.read(item))
            x = np.stack([hashed_vector(word, self.dim) for word, _, _ in found])
            span = torch.tensor([(start, end) for _, start, end in found], dtype=torch.float32)
            nodes.append({"x": torch.from_numpy(x), "span": span})
        return nodes


@lru_cache(maxsize=65536)
def hashed_vector(word: str, dim: int) -> np.ndarray:
    """The vector ``[dim]`` of :class:`HashWords` for a word; not to be written to, it is kept for the next time."""
    blocks = -(-dim // 16)  # one digest of 64 bytes is 16 numbers
    data = b"".join(
        hashlib.blake2b(word.encode(), digest_size=64, salt=block.to_bytes(16, "little")).digest()
        for block in range(blocks)
    )
    uniform = (np.frombuffer(data, dtype="<u4")[:dim].astype(np.float64) + 0.5) / 2**32
    return ((2.0 * uniform - 1.0) * 3.0**0.5).astype(np.float32)
