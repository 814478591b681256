"""The database files of WordNet, as ``wndb(5WN)`` and ``senseidx(5WN)`` describe them: one synset in a line.

A line of ``data.noun`` begins with the offset of its own first byte, which is the name of the synset. Builds of one
version differ in offsets (most of Debian's adjectives lie one byte after Princeton's); the keys of senses do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import KnowledgeError, ParseError
from .parsing import errors_of, lines_of, plain
from .streams import Limits

FOLDER = Path("/usr/share/wordnet")
"""Where Debian's ``wordnet-base`` puts them."""
FILES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
"""Part of speech in the names of files -> its letter in names of synsets."""
TYPES = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}
RELATIONS = {
    "!": "antonym",
    "@": "hypernym",
    "@i": "instance_hypernym",
    "~": "hyponym",
    "~i": "instance_hyponym",
    "#m": "member_holonym",
    "#s": "substance_holonym",
    "#p": "part_holonym",
    "%m": "member_meronym",
    "%s": "substance_meronym",
    "%p": "part_meronym",
    "=": "attribute",
    "+": "derivation",
    ";c": "domain_category",
    "-c": "domain_member_category",
    ";r": "domain_region",
    "-r": "domain_member_region",
    ";u": "domain_usage",
    "-u": "domain_member_usage",
    "*": "entails",
    ">": "causes",
    "^": "also_see",
    "$": "verb_group",
    "&": "similar_to",
    "<": "participle_of",
    "\\": "pertains_to",
}
"""The 26 symbols of pointers."""
LEXICAL_FILES = (
    *("adj.all", "adj.pert", "adv.all"),
    *(f"noun.{name}" for name in ("Tops", "act", "animal", "artifact", "attribute", "body", "cognition")),
    *(
        f"noun.{name}"
        for name in ("communication", "event", "feeling", "food", "group", "location", "motive", "object")
    ),
    *(f"noun.{name}" for name in ("person", "phenomenon", "plant", "possession", "process", "quantity", "relation")),
    *(f"noun.{name}" for name in ("shape", "state", "substance", "time")),
    *(f"verb.{name}" for name in ("body", "change", "cognition", "communication", "competition", "consumption")),
    *(f"verb.{name}" for name in ("contact", "creation", "emotion", "motion", "perception", "possession", "social")),
    *("verb.stative", "verb.weather", "adj.ppl"),
)
_MARKER = re.compile(r"\((?:a|p|ip)\)$")


@dataclass(frozen=True)
class Synset:
    """One line of a data file.

    Attributes:
        name: offset and part of speech, ``02084071-n``; satellites are adjectives (``a``).
        kind: n, v, a, r, or s for a satellite.
        file: number of the lexicographer's file.
        words: as they are written, with spaces; the first stands for all.
        ids: the number of each word in its lexicographer's file, part of its key.
        head: the first word as keys of satellites name it, with the marker of its place, ``asleep(p)``.
        pointers: relation and name of the other synset.
        gloss: definition and examples.
    """

    name: str
    kind: str
    file: int
    words: tuple[str, ...]
    ids: tuple[int, ...]
    head: str
    pointers: tuple[tuple[str, str], ...]
    gloss: str

    def definition(self) -> str:
        """The gloss without its examples."""
        return self.gloss.split('; "')[0].rstrip("; ")

    def examples(self) -> list[str]:
        """What stands in quotation marks after the definition."""
        return re.findall(r'"([^"]+)"', self.gloss[len(self.definition()) :])


def read_synsets(folder: str | Path | None = None, limits: Limits | None = None) -> list[Synset]:
    """All synsets of the four data files.

    Args:
        folder: holds ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``; ``None`` is where Debian has them.
        limits: ``literal`` bounds a line.

    Raises:
        ParseError: a malformed line, with file and number; KnowledgeError: a file is missing, a pointer leads nowhere.
    """
    folder = FOLDER if folder is None else Path(folder)
    if not (folder / "data.noun").exists():
        raise KnowledgeError(f"{folder}: no WordNet there (data.noun is missing); Debian has it in wordnet-base")
    found = [synset for kind in FILES for synset in _read(folder / f"data.{kind}", limits or Limits())]
    names = {synset.name for synset in found}
    for synset in found:
        for relation, other in synset.pointers:
            if other not in names:
                raise KnowledgeError(f"{folder}: {synset.name} has a pointer {relation} to {other}, which is not there")
    return found


def _read(path: Path, limits: Limits) -> Iterator[Synset]:
    with errors_of(str(path), limits), plain(path, limits) as stream:
        for number, line in enumerate(lines_of(stream, limits), 1):
            # the licence on top is indented
            if line.startswith("  ") or not line.strip():
                continue
            try:
                yield _synset(line)
            except (ValueError, IndexError, KeyError) as error:
                message = f"expected a synset, got {line[:60].rstrip()!r} ({error}) (line {number})"
                raise ParseError(message, number) from error


def _synset(line: str) -> Synset:
    head, bar, gloss = line.partition(" | ")
    if not bar:
        raise ValueError("no gloss")
    fields = head.split()
    offset, file, kind, count = fields[0], int(fields[1]), fields[2], int(fields[3], 16)
    if not re.fullmatch(r"\d{8}", offset) or kind not in TYPES or not 0 <= file < len(LEXICAL_FILES) or not count:
        raise ValueError("offset, file, type or number of words")
    end = 4 + 2 * count
    words = tuple(_MARKER.sub("", word).replace("_", " ") for word in fields[4:end:2])
    ids = tuple(int(number, 16) for number in fields[5:end:2])
    pointers = []
    for i in range(int(fields[end])):
        symbol, target, pos, _ = fields[end + 1 + 4 * i : end + 5 + 4 * i]
        pointers.append((RELATIONS[symbol], f"{target}-{'a' if pos == 's' else pos}"))
    name = f"{offset}-{'a' if kind == 's' else kind}"
    return Synset(name, kind, file, words, ids, fields[4].lower(), tuple(pointers), gloss.strip())


def sense_keys(synsets: list[Synset]) -> dict[str, tuple[str, ...]]:
    """Synset -> the key of each of its words, ``dog%1:05:00::``; the same in every build of a version."""
    by_name = {synset.name: synset for synset in synsets}
    found = {}
    for synset in synsets:
        end = "::"
        if synset.kind == "s":
            heads = [by_name[other] for relation, other in synset.pointers if relation == "similar_to"]
            if not heads:
                raise KnowledgeError(f"{synset.name}: a satellite without a head")
            end = f":{heads[0].head}:{heads[0].ids[0]:02}"
        found[synset.name] = tuple(
            f"{word.lower().replace(' ', '_')}%{TYPES[synset.kind]}:{synset.file:02}:{number:02}{end}"
            for word, number in zip(synset.words, synset.ids, strict=True)
        )
    return found


def read_senses(folder: str | Path | None = None, limits: Limits | None = None) -> dict[tuple[str, str], list[str]]:
    """Word (lower case, spaces) and part of speech -> its synsets, the most frequent sense first: the index files.

    Raises:
        ParseError, KnowledgeError: as :func:`read_synsets`.
    """
    folder, limits = FOLDER if folder is None else Path(folder), limits or Limits()
    found = {}
    for kind, letter in FILES.items():
        path = folder / f"index.{kind}"
        with errors_of(str(path), limits), plain(path, limits) as stream:
            for number, line in enumerate(lines_of(stream, limits), 1):
                if line.startswith("  ") or not line.strip():
                    continue
                fields = line.split()
                try:
                    offsets = fields[6 + int(fields[3]) :]
                    if len(offsets) != int(fields[2]) or not offsets:
                        raise ValueError(f"{len(offsets)} offsets")
                except (ValueError, IndexError) as error:
                    message = f"expected a word, got {line[:60].rstrip()!r} ({error}) (line {number})"
                    raise ParseError(message, number) from error
                found[fields[0].replace("_", " "), letter] = [f"{offset}-{letter}" for offset in offsets]
    return found
