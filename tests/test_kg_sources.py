"""WordNet in its own format, the polarity of words joined to it, and dumps in the form of ConceptNet."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from hetgraph.kg import (
    KnowledgeError,
    Limits,
    ParseError,
    Polarity,
    UnsafeInputError,
    conceptnet,
    read_textblob,
    read_vader,
    wordnet,
)
from hetgraph.kg.sources import DEFINITION, EXAMPLE, NEGATIVE, ONTOLOGY, POLARITY, POSITIVE, SYNSET, WORD, join_polarity
from hetgraph.kg.wordnet import FOLDER, RELATIONS, read_senses, read_synsets, sense_keys

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
# part of speech, number of the lexicographer's file, type, words, pointers (symbol, target), gloss
TINY = {
    "animal": ("noun", 3, "n", ["animal", "beast"], [("~", "dog")], "a living organism"),
    "dog": ("noun", 5, "n", ["dog", "Canis_familiaris"], [("@", "animal"), ("+", "bark")],
            'a barking animal; "the dog barked all night"; "a big dog"'),
    "bark": ("verb", 32, "v", ["bark"], [("+", "dog")], "make the sound of a dog"),
    "good": ("adj", 0, "a", ["good", "great(p)"], [("!", "bad"), ("&", "nice")], "having desirable qualities"),
    "nice": ("adj", 0, "s", ["nice"], [("&", "good")], "pleasant (often `very' pleasant)"),
    "bad": ("adj", 0, "a", ["bad"], [("!", "good")], "having undesirable qualities"),
    "well": ("adv", 2, "r", ["well"], [("\\", "good")], "in a good way"),
}  # fmt: skip
LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write_wordnet(folder: Path) -> dict[str, str]:
    """The tiny WordNet as grind(1WN) writes it: names are offsets of bytes. Gives key -> name."""

    def line(key: str, offsets: dict[str, int]) -> str:
        kind, file, letter, words, pointers, gloss = TINY[key]
        word = " ".join(f"{w} {i:x}" for i, w in enumerate(words))
        ends = "".join(f" {s} {offsets[t]:08} {LETTER[TINY[t][0]]} 0000" for s, t in pointers)
        frames = " 01 + 02 00" if kind == "verb" else ""
        head = f"{offsets[key]:08} {file:02} {letter} {len(words):02x} {word} {len(pointers):03}{ends}{frames}"
        return f"{head} | {gloss}  \n"

    offsets = dict.fromkeys(TINY, 0)
    for kind in LETTER:
        at = len(LICENCE)
        for key, synset in TINY.items():
            if synset[0] == kind:
                offsets[key] = at
                at += len(line(key, offsets).encode())
    for kind in LETTER:
        here = [key for key, synset in TINY.items() if synset[0] == kind]
        (folder / f"data.{kind}").write_text(LICENCE + "".join(line(key, offsets) for key in here))
        lemmas: dict[str, list[str]] = {}
        for key in here:
            for word in TINY[key][3]:
                lemmas.setdefault(word.split("(")[0].lower(), []).append(f"{offsets[key]:08}")
        rows = [f"{w} {LETTER[kind]} {len(o)} 1 @ {len(o)} 1 {' '.join(o)}  \n" for w, o in sorted(lemmas.items())]
        (folder / f"index.{kind}").write_text(LICENCE + "".join(rows))
    return {key: f"{offsets[key]:08}-{LETTER[TINY[key][0]]}" for key in TINY}


@pytest.fixture
def names(tmp_path: Path) -> dict[str, str]:
    return write_wordnet(tmp_path)


def test_wordnet_becomes_a_graph_of_synsets(tmp_path, names) -> None:
    kg = wordnet(tmp_path)
    expected = {
        (SYNSET + names[key], ONTOLOGY + RELATIONS[symbol], SYNSET + names[other])
        for key, synset in TINY.items()
        for symbol, other in synset[4]
    }
    assert set(kg.arcs()) == expected
    dog = SYNSET + names["dog"]
    assert kg.labels_of(dog, ["en"]) == ["dog", "Canis familiaris"]
    assert kg.labels_of(SYNSET + names["good"]) == ["good", "great"]
    values = {(v.attribute, v.text) for v in kg.values(dog)}
    assert (DEFINITION, "a barking animal") in values
    assert {text for name, text in values if name == EXAMPLE} == {"the dog barked all night", "a big dog"}
    assert {text for name, text in values if name == f"{ONTOLOGY}sense_key"} == {
        "dog%1:05:00::", "canis_familiaris%1:05:01::",
    }  # fmt: skip
    assert (f"{ONTOLOGY}lexical_domain", "noun.animal") in values


def test_the_key_of_a_satellite_names_its_head(tmp_path, names) -> None:
    keys = sense_keys(read_synsets(tmp_path))
    assert keys[names["nice"]] == ("nice%5:00:00:good:00",)


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ("00000075 03 n 01 cat 0 000\n", "no gloss"),
        ("75 03 n 01 cat 0 000 | a cat\n", "offset, file, type"),
        ("00000075 99 n 01 cat 0 000 | a cat\n", "offset, file, type"),
        ("00000075 03 n zz cat 0 000 | a cat\n", "zz"),
        ("00000075 03 n 01 cat 0 002 @ 00000001 n 0000 | a cat\n", "expected a synset"),
        ("00000075 03 n 01 cat 0 001 ? 00000001 n 0000 | a cat\n", r"\?"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, names, broken, match) -> None:
    path = tmp_path / "data.noun"
    path.write_text(LICENCE + broken)
    with pytest.raises(ParseError, match=match) as error:
        wordnet(tmp_path)
    assert error.value.line == 2
    assert str(path) in str(error.value)


def test_pointers_that_lead_nowhere_and_missing_files_are_errors(tmp_path, names) -> None:
    (tmp_path / "data.verb").write_text(LICENCE)
    with pytest.raises(KnowledgeError, match=f"{names['dog']} has a pointer derivation"):
        wordnet(tmp_path)
    with pytest.raises(KnowledgeError, match="no WordNet there"):
        wordnet(tmp_path / "elsewhere")
    (tmp_path / "data.noun").write_text("x" * 5000)
    with pytest.raises(KnowledgeError, match="longer than"):
        wordnet(tmp_path, limits=Limits(literal=1000))


def test_words_are_joined_to_their_most_frequent_sense_and_get_an_arc(tmp_path, names) -> None:
    entries = [
        Polarity("Good", 0.5, "vader"),
        Polarity("great", 1.0, "vader"),
        Polarity("bad", -0.6, "vader"),
        Polarity("dog", 0.01, "vader"),
        Polarity(":-(", -0.4, "vader"),
        Polarity("bad", -0.2, "textblob", names["bad"]),
    ]
    kg = wordnet(tmp_path, polarity=entries)
    arcs = {(h, t) for h, r, t in kg.arcs() if r == POLARITY}
    sad = f"{WORD}%3A-%28"
    # dog is neutral
    assert arcs == {(SYNSET + names["good"], POSITIVE), (SYNSET + names["bad"], NEGATIVE), (sad, NEGATIVE)}
    assert kg.label(sad) == ":-("
    found = {
        (name, v.attribute.rsplit(":", 1)[1]): float(v.text)
        for name in (SYNSET + names["good"], SYNSET + names["bad"], SYNSET + names["dog"])
        for v in kg.values(name)
        if v.attribute.startswith(POLARITY)
    }
    assert found == {
        (SYNSET + names["good"], "vader"): 0.75,  # the mean of its two words
        (SYNSET + names["bad"], "vader"): -0.6,
        (SYNSET + names["bad"], "textblob"): -0.2,
        (SYNSET + names["dog"], "vader"): 0.01,
    }
    assert wordnet(tmp_path, polarity=entries, neutral=0.5).relation_counts()[POLARITY] == 1
    with pytest.raises(KnowledgeError, match="senses must be"):
        wordnet(tmp_path, senses=0)


def test_senses_are_found_by_gloss_where_the_build_has_other_offsets(tmp_path, names) -> None:
    entries = [
        Polarity("nice", 0.6, "textblob", names["nice"]),
        Polarity("nice", 0.4, "textblob", "09999999-a", "pleasant (often 'very' pleasant)"),
        Polarity("nice", 0.9, "textblob", "09999999-a", "sharp"),
        # the offset of another synset, which does not hold the word
        Polarity("good", 0.7, "textblob", names["bad"], "having desirable"),
    ]
    joined = join_polarity(entries, read_synsets(tmp_path), {})
    assert joined.synsets == {"textblob": {names["nice"]: 0.5, names["good"]: 0.7}}
    assert (joined.moved, joined.lost) == (2, 1)


def test_lexicons_are_read_and_their_faults_named(tmp_path) -> None:
    vader = tmp_path / "vader.txt"
    vader.write_bytes(b":(\t-1.9\t1.1\t[-2, -2]\r\ngood\t1.9\t0.9\t[2]\r\ngood\t2.0\t0.9\t[2]\r\n")
    assert [(p.form, p.value) for p in read_vader(vader)] == [(":(", -0.475), ("good", 0.5)]
    for line in ("good\n", "good\tmuch\n", "good\t7\n", "good\tnan\n"):
        vader.write_text(line)
        with pytest.raises(ParseError, match=r"line 1\)"):
            read_vader(vader)
    blob = tmp_path / "blob.xml"
    entry = '<word form="bad" wordnet_id="{}" sense="of &lt;low&gt; quality" polarity="{}" subjectivity="0.6"/>'
    blob.write_text(f"<sentiment>{entry.format('a-1125429', -0.7)}<word form='x'/></sentiment>")
    (found,) = read_textblob(blob)
    assert found == Polarity("bad", -0.7, "textblob", "01125429-a", "of <low> quality", 0.6)
    for named, value in (("q-1", 0), ("a-x", 0), ("a-1", "nan"), ("a-1", 3), ("a-1", "")):
        blob.write_text(f"<sentiment>{entry.format(named, value)}</sentiment>")
        with pytest.raises(ParseError, match="word 'bad'"):
            read_textblob(blob)
    blob.write_text("<sentiment><word></sentiment>")
    with pytest.raises(ParseError, match="mismatched tag"):
        read_textblob(blob)


def test_xml_with_entities_is_refused(tmp_path) -> None:
    bomb = tmp_path / "bomb.xml"
    entities = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(9))
    bomb.write_text(f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a0 "ha">{entities}]><s>&a9;</s>')
    with pytest.raises(UnsafeInputError, match="DOCTYPE"):
        read_textblob(bomb)


LINES = [
    ("/r/IsA", "/c/en/house_cat/n", "/c/en/cat/n/wn/animal", {"weight": 2.0}),
    ("/r/IsA", "/c/en/cat", "/c/en/animal", {"weight": 0.5}),
    ("/r/Synonym", "/c/en/cat", "/c/de/katze", {"weight": 1.0}),
    ("/r/ExternalURL", "/c/en/cat", "http://dbpedia.org/resource/Cat", {}),
    ("/r/CapableOf", "/c/en/cat", "/c/en/hunt_mice", {}),
]


def dump(lines=LINES) -> bytes:
    return "".join(f"/a/[{r},{s},{e}]\t{r}\t{s}\t{e}\t{json.dumps(d)}\n" for r, s, e, d in lines).encode()


def test_assertions_become_arcs_between_concepts(tmp_path) -> None:
    kg = conceptnet(dump())
    assert set(kg.arcs()) == {
        ("/c/en/house_cat", "/r/IsA", "/c/en/cat"),
        ("/c/en/cat", "/r/IsA", "/c/en/animal"),
        ("/c/en/cat", "/r/CapableOf", "/c/en/hunt_mice"),
    }
    assert kg.labels_of("/c/en/house_cat", ["en"]) == ["house cat"]
    assert kg.report.statements == len(LINES)
    path = tmp_path / "dump.csv.gz"
    path.write_bytes(gzip.compress(dump()))
    assert set(conceptnet(path).arcs()) == set(kg.arcs())


def test_assertions_are_chosen_by_language_relation_weight_and_sense() -> None:
    everything = conceptnet(dump(), languages=None)
    assert ("/c/en/cat", "/r/Synonym", "/c/de/katze") in set(everything.arcs())
    assert everything.labels_of("/c/de/katze", ["de"]) == ["katze"]
    assert len(conceptnet(dump(), relations=["IsA"])) == 2
    assert set(conceptnet(dump(), min_weight=1.0).relation_counts()) == {"/r/IsA", "/r/CapableOf"}
    assert len(conceptnet(dump(), min_weight=1.0)) == 2
    assert "/c/en/cat/n/wn/animal" in conceptnet(dump(), senses=True).entities


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"/a/x\t/r/IsA\t/c/en/a\n", "3 columns"),
        (b"/a/x\tIsA\t/c/en/a\t/c/en/b\t{}\n", "relation 'IsA'"),
        (b"/a/x\t/r/IsA\t/c/en\t/c/en/b\t{}\n", "concept '/c/en'"),
        (b"/a/x\t/r/IsA\t/c/en/a\t/c/en/b\t{\n", "expected an assertion"),
        (b'/a/x\t/r/IsA\t/c/en/a\t/c/en/b\t{"weight": "1"}\n', "weight '1'"),
        (b"/a/x\t/r/IsA\t/c/en/a\t/c/en/b\t" + b"[" * 200_000 + b"\n", "expected an assertion"),
    ],
)
def test_malformed_assertions_are_named_or_counted(line, match) -> None:
    data = dump(LINES[:1]) + line
    with pytest.raises(ParseError, match=match) as error:
        conceptnet(data, min_weight=0.1)
    assert error.value.line == 2
    kg = conceptnet(data, min_weight=0.1, on_error="skip")
    assert (len(kg), kg.report.skipped) == (1, 1)


def test_a_dump_is_read_line_by_line(tmp_path) -> None:
    class Endless:
        """Gives the same line again and again, and counts."""

        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return b"" if self.given > 8_000_000 else (dump() * (size // len(dump()) + 1))[:size]

    import tracemalloc

    tracemalloc.start()
    conceptnet(Endless(), on_error="skip", relations=["nothing"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000
    with pytest.raises(KnowledgeError, match="unpacks to more than"):
        conceptnet(gzip.compress(dump() * 1000), limits=Limits(unpacked=10_000))
    for wrong in ({"on_error": "ignore"}, {"languages": "en"}, {"relations": "IsA"}):
        with pytest.raises(KnowledgeError, match="must be"):
            conceptnet(dump(), **wrong)


@pytest.fixture(scope="module")
def real() -> list:
    if not (FOLDER / "data.noun").exists():
        pytest.skip("Debian's wordnet-base is not installed")
    return read_synsets()


def test_the_real_wordnet_has_its_numbers(real) -> None:
    assert len(real) == 117_659
    assert sum(len(synset.words) for synset in real) == 206_978
    assert sum(len(synset.pointers) for synset in real) == 377_592
    assert {relation for synset in real for relation, _ in synset.pointers} == set(RELATIONS.values())
    assert len(RELATIONS) == 26
    counts = Counter(synset.name[-1] for synset in real)
    assert counts == {"n": 82_115, "v": 13_767, "a": 18_156, "r": 3_621}
    # the keys that are in the tagged corpora, which are older than the data by a few
    keys = {key for some in sense_keys(real).values() for key in some}
    tagged = {line.split()[0] for line in (FOLDER / "cntlist.rev").read_text().splitlines()}
    assert len(tagged & keys) / len(tagged) > 0.94
    assert {"dog%1:05:00::", "above%5:00:00:preceding(a):00"} <= tagged & keys
    assert sum("(" in key for key in tagged & keys) == 82  # satellites whose head has a marker
    assert read_senses()["dog", "n"][0] == "02084071-n"


def test_lexicons_fit_the_real_wordnet(real) -> None:
    for package in ("vaderSentiment", "textblob"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    vader, blob = read_vader(), read_textblob()
    assert len(vader) == 7_506
    joined = join_polarity([*vader, *blob], real, read_senses())
    assert joined.lost < 10
    kg = wordnet(polarity=[*vader, *blob])
    assert kg.relation_counts()[POLARITY] > 5_000
    # a word without a sense means its most frequent one
    bad = SYNSET + read_senses()["bad", "a"][0]
    assert any(v.attribute == f"{POLARITY}:vader" and float(v.text) < 0 for v in kg.values(bad))
