"""WUPS: how near the given words are to the right ones in a taxonomy (Malinowski and Fritz, NIPS 2014).

The taxonomy is any graph of "is a kind of"; the field uses the nouns of WordNet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from ...errors import HetgraphError
from ...kg.wordnet import read_senses, read_synsets

BELOW = 0.1
"""What a similarity under the threshold is multiplied by."""


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """Senses, what they are a kind of, and the words for them.

    Args:
        hypernyms: sense -> the more general senses directly above it; roots have none. A sense that is only named as
            one above another is a root.
        senses: word -> its senses. Words are looked up in lower case, with ``_`` for spaces.

    Raises:
        HetgraphError: the senses above one another go round in a circle.
    """

    hypernyms: Mapping[str, Sequence[str]]
    senses: Mapping[str, Sequence[str]]
    _above: dict[str, dict[str, int]] = field(default_factory=dict, init=False, repr=False)
    _depths: dict[str, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)
    _words: dict[tuple[str, str], float] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_wordnet(cls, folder: str | Path | None = None) -> Taxonomy:
        """The nouns of WordNet, as the field uses them.

        Args:
            folder: as for :func:`hetgraph.kg.wordnet.read_synsets`.

        Raises:
            KnowledgeError, ParseError: no WordNet there, or a malformed line.
        """
        nouns = [synset for synset in read_synsets(folder) if synset.kind == "n"]
        kinds = ("hypernym", "instance_hypernym")
        hypernyms = {synset.name: [other for kind, other in synset.pointers if kind in kinds] for synset in nouns}
        senses = {word.replace(" ", "_"): own for (word, part), own in read_senses(folder).items() if part == "n"}
        return cls(hypernyms, senses)

    def senses_of(self, word: str) -> Sequence[str]:
        """The senses of a word; none if it is not known."""
        return self.senses.get("_".join(word.lower().split()), ())

    def distances(self, sense: str) -> dict[str, int]:
        """Every sense that lies above one, itself included: its fewest steps up."""
        if sense not in self._above:
            found = {sense: 0}
            row = [sense]
            while row:
                row = [up for low in row for up in self.hypernyms.get(low, ()) if up not in found]
                row = list(dict.fromkeys(row))
                steps = max(found.values()) + 1
                found.update(dict.fromkeys(row, steps))
            self._above[sense] = found
        return self._above[sense]

    def depths(self, sense: str) -> tuple[int, int]:
        """Fewest and most steps from a root down to a sense."""
        waiting, open_ = [sense], set()
        while waiting:
            own = waiting[-1]
            above = list(self.hypernyms.get(own, ()))
            missing = [up for up in above if up not in self._depths]
            if own in self._depths or not missing:
                low = [self._depths[up] for up in above]
                self._depths.setdefault(
                    own, (1 + min(d for d, _ in low), 1 + max(d for _, d in low)) if low else (0, 0)
                )
                waiting.pop()
                open_.discard(own)
                continue
            if own in open_:
                raise HetgraphError(f"taxonomy: {own!r} lies above itself")
            open_.add(own)
            waiting += missing
        return self._depths[sense]

    def similarity(self, a: str, b: str) -> float:
        """Of two senses, as NLTK computes it: ``2 d / (l_a + l_b + 2 d)``, 0 if nothing lies above both.

        Of the senses above both, s is one that is farthest down counted by its shortest way to a root, the first by
        name of several; d counts the senses on its longest way to a root, and l_a, l_b are the fewest steps from the
        two to s (Wu and Palmer, ACL 1994).
        """
        up_a, up_b = self.distances(a), self.distances(b)
        common = up_a.keys() & up_b.keys()
        if not common:
            return 0.0
        lowest = max(self.depths(sense)[0] for sense in common)
        ties = sorted(sense for sense in common if self.depths(sense)[0] == lowest)
        nearest = a if a in ties else ties[0]
        depth = self.depths(nearest)[1] + 1
        steps = sum(_steps(up, self.distances(nearest)) for up in (up_a, up_b))
        return 2.0 * depth / (steps + 2.0 * depth)

    def word_similarity(self, a: str, b: str) -> float:
        """The best over all senses of two words; 1 for the same word, 0 for a word that is not known."""
        if a == b:
            return 1.0
        if (a, b) not in self._words:
            pairs = ((x, y) for x in self.senses_of(a) for y in self.senses_of(b))
            self._words[a, b] = max((self.similarity(x, y) for x, y in pairs), default=0.0)
        return self._words[a, b]


def _steps(a: Mapping[str, int], b: Mapping[str, int]) -> int:
    """Fewest steps from one sense to another over a sense above both (which need not be the other one)."""
    return min(a[sense] + b[sense] for sense in a.keys() & b.keys())


def wups(answers: Iterable[str], right: Iterable[str], taxonomy: Taxonomy, threshold: float) -> float:
    """The score of a question that may have several words as answer (equation 7 of the paper).

    ``min(prod_{a in A} max_{t in T} m(a, t), prod_{t in T} max_{a in A} m(a, t))``, where m is the similarity of two
    words, times ``BELOW`` if it is under the threshold.

    Raises:
        HetgraphError: no word on one side.
    """
    given, wanted = set(answers), set(right)
    if not given or not wanted:
        raise HetgraphError(f"wups: needs words on both sides, got {sorted(given)} and {sorted(wanted)}")

    def thresholded(a: str, t: str) -> float:
        value = taxonomy.word_similarity(a, t)
        return value if value >= threshold else BELOW * value

    return min(
        prod(max(thresholded(a, t) for t in wanted) for a in given),
        prod(max(thresholded(a, t) for a in given) for t in wanted),
    )
