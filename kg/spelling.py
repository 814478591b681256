"""One spelling for all ways to write the same words, and where each word stands in the text as it was written."""

from __future__ import annotations

import re
import sys
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

Span = tuple[int, int]

# Up to here there are neither marks nor scripts without spaces nor emoji, and patterns can be short.
_BEYOND = re.compile("[^\x00-\u02ff]")
_SHORT_CLUSTER = re.compile("[^\x00-\x7f]")
_SHORT_WORD = re.compile(r"\w+|[^\w\s]")
# Written without spaces: Han, kana, Thai, Lao, Myanmar, Khmer. Every character is a word there.
_UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f\ua9e0-\ua9ff"
)
# Soft hyphen, zero-width non-joiner, word joiner, byte order mark, variation selectors: seen by nobody.
_UNSEEN = dict.fromkeys([0xAD, 0x200C, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
# Accents of Latin, Greek and Cyrillic, Hebrew points, Arabic vowels; the vowel signs of Indic scripts are no accents.
_ACCENT = re.compile(
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f\u0591-\u05bd\u05bf\u05c1-\u05c7"
    "\u064b-\u065f\u0670]"
)


class Read(NamedTuple):
    """The words of a text, and what is needed to say where they stand.

    Attributes:
        words: in one spelling.
        folded: the text that they were cut from.
        moved: pieces that folding made longer or shorter: their first and last + 1 character there, and in the text.
    """

    words: list[str]
    folded: str
    moved: list[tuple[int, int, int, int]]

    def edges(self) -> tuple[list[int], list[int]]:
        """The characters of the text at which the words begin, and those behind their ends."""
        starts, ends = [], []
        find, at = self.folded.find, 0
        for word in self.words:
            # between words there is nothing but space
            start = find(word, at)
            at = start + len(word)
            starts.append(start)
            ends.append(at)
        if self.moved:
            begins = [piece[0] for piece in self.moved]
            starts = [self._place(begins, start, 2) for start in starts]
            ends = [self._place(begins, end - 1, 3) for end in ends]
        return starts, ends

    def spans(self) -> list[Span]:
        """The characters of the text that each word covers."""
        return list(zip(*self.edges(), strict=True))

    def _place(self, begins: list[int], at: int, side: int) -> int:
        """Where in the text the character ``at`` begins (side 2) or ends (side 3)."""
        i = bisect_right(begins, at) - 1
        if i >= 0:
            piece = self.moved[i]
            if at < piece[1]:
                return piece[side]
            at += piece[3] - piece[1]
        return at + side - 2


@dataclass(frozen=True)
class Spelling:
    """How texts and names are compared: word by word, in Unicode's form for it (NFKC_Casefold).

    Case, composition, full-width and other compatibility forms, ligatures and characters that nobody sees make no
    difference. Case folding is Unicode's own and knows no language: ``ß`` is ``ss``, and of the four Turkish letters
    ``I`` and ``i`` are one, ``İ`` and ``ı`` two others.

    A word is a run of letters, digits and underscores with their marks; any other visible sign is a word by itself,
    an emoji with all that is joined to it. In scripts without spaces every character is a word.

    Args:
        accents: whether accents make a difference; ``ı`` is an ``i`` with an accent missing.
    """

    accents: bool = True

    def read(self, text: str) -> Read:
        """The words in this spelling."""
        if text.isascii():
            folded = text.lower()
            return Read(_SHORT_WORD.findall(folded), folded, [])
        parts: list[str] = []
        moved: list[tuple[int, int, int, int]] = []
        done = size = 0
        cluster = _cluster() if _BEYOND.search(text) else _SHORT_CLUSTER
        for match in cluster.finditer(text):
            start, end = match.span()
            piece = _folded(match[0], self.accents)
            parts += [text[done:start].lower(), piece]
            size += start - done
            if end - start > 1 or len(piece) != 1:
                moved.append((size, size + len(piece), start, end))
            size += len(piece)
            done = end
        folded = "".join((*parts, text[done:].lower()))
        word = _word() if _BEYOND.search(folded) else _SHORT_WORD
        return Read(word.findall(folded), folded, moved)

    def split(self, text: str) -> tuple[list[str], list[Span]]:
        """The words in this spelling, and the characters of the text that each of them covers."""
        found = self.read(text)
        return found.words, found.spans()

    def key(self, text: str) -> str:
        """The words with one space between them: equal for texts that are spelled alike."""
        return " ".join(self.read(text).words)


@lru_cache(maxsize=1 << 16)
def _folded(cluster: str, accents: bool) -> str:
    """A character with its marks, folded by itself: nothing outside of it has an influence.

    Unicode 15, section 3.13, definition D147.
    """
    out = unicodedata.normalize("NFD", cluster).translate(_UNSEEN)
    for _ in range(2):
        out = unicodedata.normalize("NFKC", out.casefold())
    if not accents:
        out = _ACCENT.sub("", unicodedata.normalize("NFD", out)).replace("\u0131", "i")
        out = unicodedata.normalize("NFC", out)
    return out.replace("\u200b", " ").translate(_UNSEEN)


@cache
def _joined() -> str:
    """The characters that belong to the one before: marks, the later parts of a Hangul syllable, halfwidth voicing."""
    points = [i for i in range(0x300, 0x20000) if unicodedata.category(chr(i)).startswith("M")]
    points += [*range(0x1160, 0x1200), *range(0xD7B0, 0xD800), 0xFF9E, 0xFF9F, *range(0xE0100, 0xE01F0)]
    out, first = [], 0
    ordered = [*sorted(set(points)), sys.maxunicode + 2]
    for i in range(1, len(ordered)):
        if ordered[i] != ordered[i - 1] + 1:
            out.append(f"\\U{ordered[first]:08x}-\\U{ordered[i - 1]:08x}")
            first = i
    return "".join(out)


@cache
def _cluster() -> re.Pattern[str]:
    """A character with its marks, unless it is ASCII without any."""
    return re.compile(rf"[^\x00-\x7f][{_joined()}]*|[\x00-\x7f][{_joined()}]+")


@cache
def _word() -> re.Pattern[str]:
    marks = _joined()
    letters = rf"(?:[0-9a-z_]++|[^\W{_UNSPACED}])[{marks}\u200d]*+"
    emoji = rf"[{marks}\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
    return re.compile(
        rf"(?:{letters})++|\w[{marks}]*|[\U0001f1e6-\U0001f1ff]{{2}}"
        rf"|[^\w\s]{emoji}*(?:\u200d[^\w\s]{emoji}*)*"
    )
