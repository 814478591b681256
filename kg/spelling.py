"""One spelling for all ways to write the same words, and where each word stands in the text as it was written."""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache

Span = tuple[int, int]

_ASCII_WORD = re.compile(r"\w+|[^\w\s]")
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

    def split(self, text: str) -> tuple[list[str], list[Span]]:
        """The words in this spelling, and the characters of the text that each of them covers."""
        if text.isascii():
            found = list(_ASCII_WORD.finditer(text.lower()))
            return [match[0] for match in found], [match.span() for match in found]
        folded, starts, ends = self._mapped(text)
        found = list(_word().finditer(folded))
        spans = [(starts[match.start()], ends[match.end() - 1]) for match in found]
        return [match[0] for match in found], spans

    def key(self, text: str) -> str:
        """The words with one space between them: equal for texts that are spelled alike."""
        return " ".join(self.split(text)[0])

    def _mapped(self, text: str) -> tuple[str, list[int], list[int]]:
        """The folded text, and for each of its characters the first and the last + 1 one of the text it came from."""
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for match in _cluster().finditer(text):
            piece, (start, end) = match[0], match.span()
            if piece.isascii():
                parts.append(piece.lower())
                starts += range(start, end)
                ends += range(start + 1, end + 1)
            else:
                folded = _folded(piece, self.accents)
                parts.append(folded)
                starts += [start] * len(folded)
                ends += [end] * len(folded)
        return "".join(parts), starts, ends


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
    return re.compile(rf"[\x00-\x7f]+(?![{_joined()}])|.[{_joined()}]*", re.DOTALL)


@cache
def _word() -> re.Pattern[str]:
    marks = _joined()
    letter = rf"[^\W{_UNSPACED}]"
    emoji = rf"[{marks}\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
    return re.compile(
        rf"(?:{letter}[{marks}\u200d]*)+|\w[{marks}]*|[\U0001f1e6-\U0001f1ff]{{2}}"
        rf"|[^\w\s]{emoji}*(?:\u200d[^\w\s]{emoji}*)*"
    )
