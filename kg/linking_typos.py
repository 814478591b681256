"""Names that are misspelled in a text, by edit distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import KnowledgeError
from .linking import AliasLinker, Link, TextLinker, free_of
from .spelling import Span


class TypoLinker(TextLinker):
    """Finds names that differ by a few letters from what is written: behind an :class:`AliasLinker` in a chain.

    Every word that is still free, alone and with those behind it, is compared with all names of about its length:
    milliseconds for each with 100,000 names, so this is for what nothing else matched. Alike are texts whose
    ``1 - edits / length of the longer`` is at least ``similarity``; edits are insertions, deletions, substitutions
    and swaps of neighbours (optimal string alignment). Of the most similar names the first in the alphabet counts.
    The score is the similarity times the candidate's score in the other linker.

    Args:
        linker: has the names.
        similarity: least similarity.
        shortest: letters of a name at least; short words are close to many others.
        longest: words of a mention at most.
        threshold, most: see :class:`TextLinker`.

    Raises:
        KnowledgeError: a setting out of range, or rapidfuzz is not installed.
    """

    def __init__(
        self,
        linker: AliasLinker,
        similarity: float = 0.8,
        shortest: int = 5,
        longest: int = 3,
        *,
        threshold: float = 0.0,
        most: int | None = None,
    ) -> None:
        super().__init__(threshold, most)
        if not 0.0 < similarity <= 1.0 or shortest < 1 or longest < 1:
            raise KnowledgeError(
                f"similarity must be in 0..1, shortest and longest positive, got {similarity}, {shortest}, {longest}"
            )
        self._process, self._scorer = _rapidfuzz()
        self.linker, self.similarity, self.shortest, self.longest = linker, similarity, shortest, longest
        self._names: dict[int, list[str]] = {}
        for name in sorted(linker.names):
            if len(name) >= shortest:
                self._names.setdefault(len(name), []).append(name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None, "_scorer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._process, self._scorer = _rapidfuzz()

    def link(self, text: str, type: str = "token", taken: Sequence[Span] = ()) -> list[Link]:
        words, spans = self.linker.spelling.split(text)
        free = free_of(taken, spans)
        found = []
        at = 0
        while at < len(words):
            last = at
            while last < len(words) and last - at < self.longest and free[last]:
                last += 1
            best: tuple[float, int, str] | None = None
            for end in range(last, at, -1):
                alike = self._nearest(" ".join(words[at:end]))
                if alike is not None and (best is None or alike[0] > best[0]):
                    best = (alike[0], end, alike[1])
            if best is None:
                at += 1
                continue
            similarity, end, name = best
            candidates = self._chosen((e, similarity * score) for e, score in self.linker.lookup(name))
            nodes, span = (at, end), (spans[at][0], spans[end - 1][1])
            found += [Link(entity, score, "typo", type, nodes, span) for entity, score in candidates]
            at = end
        return found

    def _nearest(self, said: str) -> tuple[float, str] | None:
        """The most similar name and how similar it is."""
        if len(said) < self.shortest or not any(map(str.isalpha, said)):
            return None
        best: tuple[float, str] | None = None
        for length, names in self._names.items():
            longer = max(length, len(said))
            # whole edits, so that rounding decides nothing
            most = int((1 - self.similarity) * longer + 1e-9)
            if abs(length - len(said)) > most:
                continue
            for name, edits, _ in self._process.extract(
                said, names, scorer=self._scorer, score_cutoff=most, limit=None
            ):
                similarity = 1 - edits / longer
                if best is None or (-similarity, name) < (-best[0], best[1]):
                    best = (similarity, name)
        return best


def _rapidfuzz() -> tuple[Any, Any]:
    try:
        from rapidfuzz import process
        from rapidfuzz.distance import OSA
    except ImportError as error:
        raise KnowledgeError("finding misspelled names needs rapidfuzz: pip install 'hetgraph[link]'") from error
    return process, OSA.distance
