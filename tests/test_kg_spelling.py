"""All ways to write the same words have one spelling, and every word knows where it stands."""

# ruff: noqa: RUF001 (letters that look like others are what is tested)

from __future__ import annotations

import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetgraph.kg.spelling import Spelling

PLAIN, LOOSE = Spelling(), Spelling(accents=False)
TEXTS = st.text(max_size=12) | st.text(
    "aéÉßİıǅ\u0301\u0323ｶﾞ각ᄀ\u1161\u11a8한글ﬁ½…❤\ufe0f👩\u200d💻🏽 -_'", max_size=12
)


def reference(text: str) -> str:
    """NFKC_Casefold of the whole text (Unicode 15, D147), without what nobody sees."""
    unseen = {0xAD, 0x200C, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
    out = "".join(c for c in unicodedata.normalize("NFD", text) if ord(c) not in unseen)
    for _ in range(2):
        out = unicodedata.normalize("NFKC", out.casefold())
    return out.replace("\u200b", " ")


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_a_text_folded_in_pieces_is_the_text_folded_whole(text) -> None:
    words, spans = PLAIN.split(text)
    assert "".join(words) == "".join(reference(text).split())
    assert len(words) == len(spans)
    assert all(0 <= a < b <= len(text) for a, b in spans)
    assert all(word in PLAIN.split(text[a:b])[0] for word, (a, b) in zip(words, spans, strict=True))
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(spans))


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_composition_makes_no_difference_and_a_key_is_its_own_key(text, form) -> None:
    for spelling in (PLAIN, LOOSE):
        key = spelling.key(text)
        assert spelling.key(unicodedata.normalize(form, text)) == key
        assert spelling.key(key) == key


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_ascii_is_read_as_any_other_text(text) -> None:
    words, spans = PLAIN.split(text)
    longer, more = PLAIN.split(text + " é")
    assert (longer[:-1], more[:-1]) == (words, spans)
    assert [text[a:b].lower() for a, b in spans] == words


@pytest.mark.parametrize(
    ("one", "other", "spelling", "same"),
    [
        ("Straße", "STRASSE", PLAIN, True),
        ("ＴＯＫＹＯ　２０２０", "tokyo 2020", PLAIN, True),  # full-width letters, digits and space
        ("ﬁne", "FINE", PLAIN, True),
        ("ΣΊΣΥΦΟΣ", "σίσυφος", PLAIN, True),  # final sigma
        ("co\u00adoperate", "cooperate", PLAIN, True),
        ("ｶﾞｽ", "ガス", PLAIN, True),
        ("한국", unicodedata.normalize("NFD", "한국"), PLAIN, True),
        ("❤\ufe0f", "❤", PLAIN, True),
        ("DIYARBAKIR", "diyarbakir", PLAIN, True),  # I is i, in every language
        ("diyarbakır", "diyarbakir", PLAIN, False),
        ("İzmir", "izmir", PLAIN, False),
        ("diyarbakır", "DIYARBAKIR", LOOSE, True),
        ("İzmir", "IZMIR", LOOSE, True),
        ("café", "cafe", PLAIN, False),
        ("café", "CAFE", LOOSE, True),
        ("Đặng", "đang", LOOSE, True),
        ("हिन्दी", "हन्दी", LOOSE, False),  # a vowel, not an accent
        ("ガ", "カ", LOOSE, False),
    ],
)
def test_what_is_the_same_word(one, other, spelling, same) -> None:
    assert (spelling.key(one) == spelling.key(other)) == same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't C++", ["don", "'", "t", "c", "+", "+"]),
        ("北京 大学ab", ["北", "京", "大", "学", "ab"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("👩\u200d💻👍🏽🇩🇪🇫🇷1️⃣", ["👩\u200d💻", "👍🏽", "🇩🇪", "🇫🇷", "1⃣"]),
        ("wait… ½", ["wait", ".", ".", ".", "1", "\u2044", "2"]),
        ("a\u200bb", ["a", "b"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("", []),
    ],
)
def test_where_words_begin_and_end(text, words) -> None:
    found, spans = PLAIN.split(text)
    assert found == words
    for word, (start, end) in zip(found, spans, strict=True):
        assert word in PLAIN.split(text[start:end])[0]  # one character may be several words


def test_every_character_alone_is_what_unicode_says() -> None:
    for point in [*range(0x80, 0x3000), *range(0xF900, 0x10000), sys.maxunicode]:
        assert "".join(PLAIN.split(chr(point))[0]) == "".join(reference(chr(point)).split()), hex(point)
