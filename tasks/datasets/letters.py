"""How texts are spelt, as vectors: runs of letters, weighed by rarity and brought to few dimensions.

A network that knows what words mean does not say how they sound; between languages, and between text and speech,
spelling does.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ...errors import HetgraphError

LENGTHS = (2, 3, 4)


class Letters:
    """Latent semantic analysis (Deerwester et al., JASIS 1990) of the runs of letters in texts.

    Texts are brought to lower case without accents; what is neither a letter nor a digit is a space. A run counts
    ``(1 + log n) log(N / N_run)``, rows have length one, and the singular vectors of the training rows that say most
    are kept.

    Args:
        texts: of the training part.
        dim: numbers a text becomes, at most.
        least: training texts that must have a run for it to be known.

    Raises:
        HetgraphError: no run is in so many texts.
    """

    def __init__(self, texts: Sequence[str], dim: int = 256, least: int = 2) -> None:
        counts = Counter(run for text in texts for run in set(_runs(text)))
        kept = sorted(run for run, count in counts.items() if count >= least)
        if not kept:
            raise HetgraphError(f"no run of letters is in {least} of the {len(texts)} training texts")
        self.index = {run: i for i, run in enumerate(kept)}
        self.rarity = np.log(len(texts) / np.array([counts[run] for run in kept]))
        rows = self._rows(texts)
        self.mean = rows.mean(0)
        _, _, directions = np.linalg.svd(rows - self.mean, full_matrices=False)
        # a singular vector may point either way: the larger end is made positive, so that runs agree
        ends = directions[np.arange(len(directions)), np.abs(directions).argmax(1)]
        self.directions = (directions * np.sign(ends)[:, None])[:dim]

    @property
    def dim(self) -> int:
        return len(self.directions)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as float32 ``[N, dim]``; a text without any known run is the mean's mirror image, like an empty one."""
        return ((self._rows(texts) - self.mean) @ self.directions.T).astype(np.float32)

    def _rows(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), len(self.index)))
        for row, text in zip(rows, texts, strict=True):
            for run, count in Counter(_runs(text)).items():
                if run in self.index:
                    row[self.index[run]] = 1 + np.log(count)
        rows *= self.rarity
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(length > 0, length, 1)


def _runs(text: str) -> Iterable[str]:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    spaced = f" {re.sub(r'[^a-z0-9]+', ' ', plain).strip()} "
    return (spaced[i : i + size] for size in LENGTHS for i in range(len(spaced) - size + 1))
