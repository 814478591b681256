"""How good or bad words are, from two lexicons that are Python packages: VADER and the one of TextBlob.

VADER (Hutto and Gilbert 2014) rates words as they stand, emoticons and slang too. TextBlob's ``en-sentiment.xml`` (De
Smedt and Daelemans 2012) rates senses: an entry names a synset of WordNet 3.0.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .errors import KnowledgeError, ParseError
from .parsing import errors_of, lines_of, plain
from .streams import Limits, WithoutDoctype


@dataclass(frozen=True)
class Polarity:
    """One entry of a lexicon.

    Attributes:
        form: the word, as it is written.
        value: from -1 (bad) to 1 (good).
        source: the lexicon.
        synset: the sense that is meant, ``01625063-a``; empty where the lexicon does not tell senses apart.
        gloss: the beginning of that synset's gloss.
        subjectivity: from 0 to 1, where the lexicon has it.
    """

    form: str
    value: float
    source: str
    synset: str = ""
    gloss: str = ""
    subjectivity: float | None = None


def read_vader(path: str | Path | None = None) -> list[Polarity]:
    """The lexicon of VADER; its -4 .. 4 become -1 .. 1.

    Args:
        path: ``vader_lexicon.txt``; ``None`` takes the one of the package vaderSentiment, which is not imported.

    Raises:
        ParseError: a malformed line; KnowledgeError: no such file or package.
    """
    path = _installed("vaderSentiment", "vader_lexicon.txt") if path is None else Path(path)
    limits, found = Limits(), {}
    with errors_of(str(path), limits), plain(path, limits) as stream:
        for number, line in enumerate(lines_of(stream, limits), 1):
            if not line.strip():
                continue
            fields = line.rstrip("\r\n").split("\t")
            try:
                form, value = fields[0].strip(), float(fields[1])
                if not form or not -4 <= value <= 4:
                    raise ValueError(f"{value} is not in -4 .. 4")
            except (ValueError, IndexError) as error:
                message = f"expected a word and its valence, got {line[:60].rstrip()!r} ({error}) (line {number})"
                raise ParseError(message, number) from error
            # a few are there twice; VADER itself keeps the last
            found[form] = Polarity(form, value / 4, "vader")
    return list(found.values())


def read_textblob(path: str | Path | None = None) -> list[Polarity]:
    """TextBlob's lexicon; entries without a sense of WordNet are left out.

    Args:
        path: ``en-sentiment.xml``; ``None`` takes the one of the package textblob, which is not imported.

    Raises:
        UnsafeInputError: a document type definition, which could expand without end; ParseError: malformed;
            KnowledgeError: no such file or package.
    """
    path = _installed("textblob", "en/en-sentiment.xml") if path is None else Path(path)
    limits, found = Limits(), []
    with errors_of(str(path), limits), plain(path, limits) as stream:
        try:
            for _, element in ElementTree.iterparse(WithoutDoctype(stream)):
                if element.tag == "word" and element.get("wordnet_id"):
                    found.append(_sense(element))
                element.clear()
        except ElementTree.ParseError as error:
            raise ParseError(str(error), *error.position) from error
    return found


def _sense(element: ElementTree.Element) -> Polarity:
    form, named = element.get("form", ""), element.get("wordnet_id", "")
    letter, _, offset = named.partition("-")
    try:
        value, subjectivity = (float(element.get(name, "")) for name in ("polarity", "subjectivity"))
        if not form or letter not in "nvar" or not offset.isdecimal():
            raise ValueError("no form, or no id of WordNet")
        if not (-1 <= value <= 1 and math.isfinite(subjectivity)):
            raise ValueError(f"polarity {value} is not in -1 .. 1")
    except ValueError as error:
        raise ParseError(f"word {form[:40]!r}, {named[:40]!r}: {error}") from error
    return Polarity(form, value, "textblob", f"{int(offset):08}-{letter}", element.get("sense", ""), subjectivity)


def _installed(package: str, name: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise KnowledgeError(f"no {name}: pip install {package.lower()}, or give its path")
    return Path(next(iter(found.submodule_search_locations))) / name
