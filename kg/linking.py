"""Entity linking: finding the labels of a knowledge graph in a text.

Longest-match n-grams over a dictionary of case-folded labels: no model, some ten thousand texts a second, and
a mention always begins and ends where a word does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .triples import TripleGraph

# A word with its combining marks, or a single sign.
_TOKEN = re.compile(r"(?:\w[\u0300-\u036f]*)+|[^\w\s]")


def _fold(token: str) -> str:
    """One form for all ways to write a word: composed characters, no case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", token).casefold())


class Linker:
    """Finds the labels of a graph's entities in texts.

    Labels are compared word by word without regard to case, spacing and composition of accents. A label
    without a word or sign is never found.

    Args:
        graph: gives the labels.
    """

    def __init__(self, graph: TripleGraph) -> None:
        self._entities: dict[tuple[str, ...], list[int]] = {}
        self._longest: dict[str, int] = {}  # first word -> length of the longest label that begins so
        for entity in sorted(graph.labels):
            for label in graph.labels[entity]:
                key = tuple(_fold(token) for token in _TOKEN.findall(label))
                if not key:
                    continue
                known = self._entities.setdefault(key, [])
                if entity not in known:
                    known.append(entity)
                self._longest[key[0]] = max(len(key), self._longest.get(key[0], 0))

    def link(self, text: str) -> list[tuple[int, int, int]]:
        """Mentions in a text, from left to right: (start, end, entity) with ``text[start:end]`` the mention.

        At every word the longest label that begins there is taken, and the search goes on behind it, so
        mentions do not overlap. Entities that share the label all appear, in the order of the graph.
        """
        spans = [match.span() for match in _TOKEN.finditer(text)]
        found = self.link_words([text[start:end] for start, end in spans])
        return [(spans[first][0], spans[last - 1][1], entity) for first, last, entity in found]

    def link_words(self, words: Sequence[str]) -> list[tuple[int, int, int]]:
        """The same for a text that is cut into words already: (first, last + 1, entity) counted in words."""
        folded = [_fold(word) for word in words]
        found = []
        at = 0
        while at < len(folded):
            for length in range(min(self._longest.get(folded[at], 0), len(folded) - at), 0, -1):
                entities = self._entities.get(tuple(folded[at : at + length]))
                if entities:
                    found += [(at, at + length, entity) for entity in entities]
                    at += length
                    break
            else:
                at += 1
        return found
