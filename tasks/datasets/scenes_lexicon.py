"""The knowledge of the scenes: invented words, and a small RDF graph that alone says what they mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .scenes_media import COLOURS, SHAPES

NAMESPACE = "urn:hetgraph:scenes:"
LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
SPLITS = ("train", "valid", "test")
RELATIONS = ("denotes", "confusedWith", "broader")
CONCEPTS = {"kind": SHAPES, "colour": tuple(COLOURS)}
FAMILIES = {
    "round thing": ("circle", "ring"),
    "cornered thing": ("triangle", "cross"),
    "warm colour": ("red", "yellow"),
    "cool colour": ("green", "blue"),
}
WORDS = {"train": 2016, "valid": 64, "test": 120}  # multiples of 8: every concept gets equally many

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_CLUSTERS = ("bl", "br", "dr", "fl", "gl", "kl", "kr", "pl", "sk", "sn", "tr", "zw")
_MIDDLES = ("b", "d", "l", "m", "n", "p", "r", "v")
_ENDS = ("b", "g", "lk", "mp", "nk", "rb", "rp", "x", "zz")  # few English words of this form end so


@dataclass(frozen=True)
class Word:
    """An invented word. ``sort`` is "kind" or "colour"; ``confused`` is a false friend of the same sort."""

    text: str
    split: str
    sort: str
    denotes: str
    confused: str

    @property
    def iri(self) -> str:
        return iri("word", self.text)


def iri(sort: str, label: str) -> str:
    """The name of an entity: ``urn:hetgraph:scenes:kind/circle``."""
    return f"{NAMESPACE}{sort}/{label.replace(' ', '-')}"


def invent(rng: np.random.Generator) -> tuple[Word, ...]:
    """The words of all splits, no text twice, the same number for each of the eight concepts in a split.

    What a word denotes is drawn without regard to its spelling.
    """
    texts: dict[str, None] = {}
    first = _ONSETS + _CLUSTERS
    while len(texts) < sum(WORDS.values()):
        parts = (first, "aeiou", _MIDDLES, "aeiou", _ENDS)
        texts["".join(part[rng.integers(len(part))] for part in parts)] = None
    concepts = [(sort, name) for sort, names in CONCEPTS.items() for name in names]
    unused = iter(texts)
    words = []
    for split in SPLITS:
        for i in range(WORDS[split]):
            sort, name = concepts[i % len(concepts)]
            others = [c for c in CONCEPTS[sort] if c != name]
            words.append(Word(next(unused), split, sort, name, others[rng.integers(len(others))]))
    return tuple(words)


def statements(words: tuple[Word, ...]) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """The whole graph: (entity, label) pairs and (head, relation name, tail) facts, entities by IRI."""
    labels = [(iri(sort, name), name) for sort, names in CONCEPTS.items() for name in names]
    labels += [(iri("family", name), name) for name in FAMILIES]
    labels += [(word.iri, word.text) for word in words]
    sort_of = {name: sort for sort, names in CONCEPTS.items() for name in names}
    facts = [
        (iri(sort_of[name], name), "broader", iri("family", family))
        for family, names in FAMILIES.items()
        for name in names
    ]
    for word in words:
        facts.append((word.iri, "denotes", iri(word.sort, word.denotes)))
        facts.append((word.iri, "confusedWith", iri(word.sort, word.confused)))
    return labels, facts


def ntriples(words: tuple[Word, ...]) -> str:
    """The whole graph in N-Triples."""
    labels, facts = statements(words)
    lines = [f'<{entity}> <{LABEL}> "{label}" .' for entity, label in labels]
    lines += [f"<{head}> <{NAMESPACE}{relation}> <{tail}> ." for head, relation, tail in facts]
    return "\n".join(lines) + "\n"
