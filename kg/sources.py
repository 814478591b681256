"""Knowledge graphs that are at hand: WordNet, with the polarity of words joined to it, and dumps of ConceptNet."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .csr import LABELS, KnowledgeGraph
from .errors import KnowledgeError, ParseError
from .load import Collected
from .parsing import Source, errors_of, lines_of, named, plain
from .polarity import Polarity
from .streams import Limits
from .wordnet import LEXICAL_FILES, Synset, read_senses, read_synsets, sense_keys

SYNSET = "http://wordnet-rdf.princeton.edu/wn30/"
ONTOLOGY = "http://wordnet-rdf.princeton.edu/ontology#"
DEFINITION, EXAMPLE = (f"http://www.w3.org/2004/02/skos/core#{name}" for name in ("definition", "example"))
POLARITY = "urn:hetgraph:polarity"
"""The relation from a synset or word to :data:`POSITIVE` or :data:`NEGATIVE`; ``POLARITY:LEXICON`` is the number."""
POSITIVE, NEGATIVE, WORD = "urn:hetgraph:positive", "urn:hetgraph:negative", "urn:hetgraph:word:"
_DOUBLE = "http://www.w3.org/2001/XMLSchema#double"


@dataclass(frozen=True)
class Joined:
    """How a lexicon fits WordNet.

    Attributes:
        synsets: name -> mean value of the entries that mean it, for each lexicon: ``{lexicon: {synset: value}}``.
        words: the same for words that WordNet does not have.
        moved: entries whose synset was found by word and gloss, because its offset is another one in this build.
        lost: entries whose synset is not in this build.
    """

    synsets: dict[str, dict[str, float]]
    words: dict[str, dict[str, float]]
    moved: int
    lost: int


def wordnet(
    folder: str | Path | None = None,
    *,
    polarity: Iterable[Polarity] = (),
    senses: int = 1,
    neutral: float = 0.05,
    limits: Limits | None = None,
) -> KnowledgeGraph:
    """WordNet as a graph of synsets.

    Entities are called ``http://wordnet-rdf.princeton.edu/wn30/02084071-n``. Pointers between words become arcs between
    their synsets. The first word is the preferred label, the others are alternative ones (English). Literals:
    definition, examples, part of speech, lexicographer's file, sense keys.

    Args:
        folder: with ``data.noun`` and so on; ``None`` is ``/usr/share/wordnet``, Debian's wordnet-base.
        polarity: entries of :func:`read_vader` and :func:`read_textblob`. A synset gets the mean of its entries as a
            literal for each lexicon, and, where the mean over lexicons is not neutral, an arc to :data:`POSITIVE` or
            :data:`NEGATIVE`. Words that WordNet does not have become entities of their own.
        senses: an entry without a sense counts for so many of the word's most frequent senses, per part of speech.
        neutral: up to this value, of 1, there is no arc; 0.05 is VADER's own bound.
        limits: ``literal`` bounds a line.

    Raises:
        ParseError: a malformed line; KnowledgeError: no WordNet there, or an argument out of range.
    """
    if senses < 1 or not 0 <= neutral < 1:
        raise KnowledgeError(f"senses must be at least 1 and neutral in [0, 1), got {senses} and {neutral}")
    synsets, given = read_synsets(folder, limits), list(polarity)
    keys = sense_keys(synsets)
    made = Collected()
    preferred, _, alternative = LABELS
    for synset in synsets:
        name = SYNSET + synset.name
        number = made.entities(name)
        for i, word in enumerate(dict.fromkeys(synset.words)):
            made.add_literal(number, alternative if i else preferred, "@en", word)
        made.add_literal(number, DEFINITION, "@en", synset.definition())
        for example in synset.examples():
            made.add_literal(number, EXAMPLE, "@en", example)
        made.add_literal(number, f"{ONTOLOGY}part_of_speech", "", synset.kind)
        made.add_literal(number, f"{ONTOLOGY}lexical_domain", "", LEXICAL_FILES[synset.file])
        for key in keys[synset.name]:
            made.add_literal(number, f"{ONTOLOGY}sense_key", "", key)
        made.add_rows((name, ONTOLOGY + relation, SYNSET + other) for relation, other in synset.pointers)
    if given:
        index = read_senses(folder, limits) if any(not entry.synset for entry in given) else {}
        _add_polarity(made, join_polarity(given, synsets, index, senses), neutral)
    return made.finish()


def join_polarity(
    entries: Iterable[Polarity], synsets: Sequence[Synset], index: dict[tuple[str, str], list[str]], senses: int = 1
) -> Joined:
    """Find the synsets that entries of lexicons mean.

    An entry with a synset means that one if it holds the word. Else it means the synset that holds the word and has the
    same gloss: builds of one version differ in their offsets.

    Args:
        entries: of any lexicons.
        synsets: of :func:`read_synsets`.
        index: of :func:`read_senses`; used for entries without a synset.
        senses: see :func:`wordnet`.
    """
    holders: dict[tuple[str, str], list[Synset]] = defaultdict(list)
    for synset in synsets:
        for word in synset.words:
            holders[word.lower(), synset.name[-1]].append(synset)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    words: dict[tuple[str, str], list[float]] = defaultdict(list)
    moved = lost = 0
    for entry in entries:
        word = entry.form.lower().replace("_", " ")
        if not entry.synset:
            meant = [name for letter in "nvar" for name in index.get((word, letter), [])[:senses]]
            for name in meant:
                found[entry.source, name].append(entry.value)
            if not meant:
                words[entry.source, entry.form].append(entry.value)
            continue
        near = holders.get((word, entry.synset[-1]), [])
        exact = [synset for synset in near if synset.name == entry.synset]
        alike = [synset for synset in near if entry.gloss and _plain(synset.gloss).startswith(_plain(entry.gloss))]
        if not exact and not alike:
            lost += 1
            continue
        moved += not exact
        found[entry.source, (exact or alike)[0].name].append(entry.value)
    return Joined(_means(found), _means(words), moved, lost)


def _plain(gloss: str) -> str:
    return gloss.replace("`", "'").casefold()


def _means(values: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (source, name), some in values.items():
        found[source][name] = sum(some) / len(some)
    return dict(found)


def _add_polarity(made: Collected, joined: Joined, neutral: float) -> None:
    together: dict[str, list[float]] = defaultdict(list)
    for prefix, table in ((SYNSET, joined.synsets), (WORD, joined.words)):
        for source, values in table.items():
            for key, value in values.items():
                name = prefix + (key if prefix == SYNSET else quote(key, safe=""))
                number = made.entities(name)
                if prefix == WORD:
                    made.add_literal(number, LABELS[0], "@en", key)
                made.add_literal(number, f"{POLARITY}:{source}", _DOUBLE, f"{value:.6g}")
                together[name].append(value)
    for name, every in together.items():
        mean = sum(every) / len(every)
        if abs(mean) > neutral:
            made.add_rows([(name, POLARITY, POSITIVE if mean > 0 else NEGATIVE)])


def conceptnet(
    source: Source,
    *,
    languages: Collection[str] | None = ("en",),
    relations: Collection[str] | None = None,
    min_weight: float = 0.0,
    senses: bool = False,
    on_error: str = "raise",
    limits: Limits | None = None,
) -> KnowledgeGraph:
    """A dump of ConceptNet, or one in its form: tab-separated assertions, read line by line and never held whole.

    A line holds the assertion's URI, the relation (``/r/IsA``), the start and the end (``/c/en/house_cat/n``), and JSON
    with a ``weight``. Only arcs between concepts are taken. A concept's text is its label, in its language.

    Args:
        source: a path, bytes or a binary file, gzipped or not.
        languages: both ends must be in one of them; ``None`` takes all.
        relations: only these, ``IsA`` or ``/r/IsA``; ``None`` takes all.
        min_weight: only assertions of this weight and more; a line without one weighs 1.
        senses: keep ``/c/en/cat/n/wn/animal`` apart from ``/c/en/cat``.
        on_error: "skip" leaves malformed lines out and counts them in ``report``.
        limits: what the source may hold.

    Raises:
        ParseError: a malformed line, with its number; KnowledgeError: the rest.
    """
    if on_error not in ("raise", "skip"):
        raise KnowledgeError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if isinstance(languages, str) or isinstance(relations, str):
        raise KnowledgeError(f"languages and relations must be lists, got {languages!r} and {relations!r}")
    limits = limits or Limits()
    wanted = None if relations is None else {f"/r/{name.removeprefix('/r/')}" for name in relations}
    spoken = None if languages is None else set(languages)
    made = Collected()
    with errors_of(named(source), limits), plain(source, limits) as stream:
        for number, line in enumerate(lines_of(stream, limits), 1):
            if not line.strip():
                continue
            try:
                arc = _assertion(line, wanted, spoken, min_weight, senses)
            except (ValueError, RecursionError) as error:
                message = f"expected an assertion, got {line[:60].rstrip()!r} ({error}) (line {number})"
                if on_error == "raise":
                    raise ParseError(message, number) from error
                made.skip(message)
                continue
            if arc is None:
                made.statements += 1
            else:
                made.add_rows([arc])
    for name, place in list(made.entities.ids.items()):
        _, _, language, text, *_ = name.split("/")
        made.add_literal(place, LABELS[1], f"@{language}", text.replace("_", " "))
    return made.finish()


def _assertion(
    line: str, relations: set[str] | None, languages: set[str] | None, min_weight: float, senses: bool
) -> tuple[str, str, str] | None:
    """Start, relation and end of a line; ``None`` if it is not wanted."""
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} columns")
    _, relation, start, end, details = fields
    if not relation.startswith("/r/"):
        raise ValueError(f"relation {relation[:40]!r}")
    if relations is not None and relation not in relations:
        return None
    ends = []
    for uri in (start, end):
        parts = uri.split("/")
        if parts[:2] != ["", "c"]:  # an address of another data set
            return None
        if len(parts) < 4 or not parts[2] or not parts[3]:
            raise ValueError(f"concept {uri[:40]!r}")
        if languages is not None and parts[2] not in languages:
            return None
        ends.append(uri if senses else "/".join(parts[:4]))
    if min_weight > 0 and not _weight(details) >= min_weight:
        return None
    return ends[0], relation, ends[1]


def _weight(details: str) -> float:
    found: Any = json.loads(details)
    weight = found.get("weight", 1.0) if isinstance(found, dict) else None
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise ValueError(f"weight {weight!r}")
    return float(weight)
