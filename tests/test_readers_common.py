"""What all readers of official files share: JSON by record, checked fields, parts, the checker and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from readers import put

from hetgraph.errors import HetgraphError
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets import VARIABLE, official
from hetgraph.tasks.datasets import __main__ as command
from hetgraph.tasks.datasets.official import READERS, json_records
from hetgraph.tasks.datasets.official.json_records import records
from hetgraph.tasks.datasets.official.layout import ANSWER, ID, LIST, NUMBER, OBJECT, TEXT, WHOLE, lines, table, take
from hetgraph.tasks.datasets.official.parts import IMAGES, Caption, Media, Parts, Question

DOCUMENT = Path(__file__).parents[1] / "docs" / "datasets.md"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
documents = st.lists(values, max_size=6) | st.dictionaries(st.text(max_size=5), values, max_size=5)


def expected(document: list | dict) -> list[tuple]:
    """The records by hand, of the whole document."""
    if isinstance(document, list):
        return [(None, i, value) for i, value in enumerate(document, 1)]
    out = []
    for key, value in document.items():
        out += [(key, i, v) for i, v in enumerate(value, 1)] if isinstance(value, list) else [(key, 1, value)]
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("json") / "records.json"


@given(document=documents, indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans(), chunk=st.integers(1, 40))
def test_json_by_record_is_the_document_wherever_the_chunks_end(place, document, indent, ascii_only, chunk) -> None:
    place.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "CHUNK", chunk)
        assert list(records("X", place)) == expected(document)


@given(document=documents, data=st.data())
def test_json_that_breaks_off_is_refused_wherever_it_does(place, document, data) -> None:
    text = json.dumps(document)
    place.write_text(text[: data.draw(st.integers(0, len(text) - 1))], encoding="utf-8")
    with pytest.raises(HetgraphError, match=r"X: .*records\.json"):
        list(records("X", place))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a list or an object, got ''"),
        ("17", "expected a list or an object, got '1'"),
        ('{"a": [1, 2] "b": 3}', "expected ',', got '\"' at character 13"),
        ('{"a": [1, {"b": tru}]}', "record 2 of 'a' is damaged: Expecting value"),
        ("[1, 2,]", "a comma before ']' at character 6"),
        ("[1] [2]", r"expected the end, got '\['"),
        ("[1, NaN]", "record 2 is damaged: NaN is no JSON"),
        ('{"a": 1, 2: 3}', "expected a name, got 2"),
        ("[" + "[" * 100_000, "record 1 is damaged: .*recursion"),
    ],
)
def test_damaged_json_is_refused_with_the_record(place, text, message) -> None:
    place.write_text(text, encoding="utf-8")
    with pytest.raises(HetgraphError, match=message):
        list(records("X", place))


def test_json_in_another_encoding_or_missing_is_named(tmp_path) -> None:
    (tmp_path / "a.json").write_bytes('["é"]'.encode("latin1"))
    with pytest.raises(HetgraphError, match=r"a\.json cannot be read: .*utf-8"):
        list(records("X", tmp_path / "a.json"))
    with pytest.raises(HetgraphError, match=r"X: no file .*b\.json"):
        list(records("X", tmp_path / "b.json"))
    (tmp_path / "c.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert list(records("X", tmp_path / "c.json")) == [(None, 1, 1)]


def test_a_large_file_is_never_held_whole(tmp_path) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps({"a": [{"number": i, "text": "x" * 500} for i in range(30_000)]}), encoding="utf-8")
    tracemalloc.start()
    total = sum(value["number"] for _, _, value in records("X", path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 30_000 * 29_999 // 2
    assert peak < path.stat().st_size / 2


def test_a_record_without_end_is_given_up(place, monkeypatch) -> None:
    monkeypatch.setattr(json_records, "CHUNK", 16)
    monkeypatch.setattr(json_records, "LONGEST", 64)
    place.write_text('["' + "x" * 10_000, encoding="utf-8")
    read = []
    real = json_records._Text.more
    monkeypatch.setattr(json_records._Text, "more", lambda text: (read.append(1), real(text))[1])
    with pytest.raises(HetgraphError, match="record 1 is damaged: Unterminated string"):
        list(records("X", place))
    assert len(read) < 8


RECORD = {"text": "a", "whole": 1, "number": 1.5, "list": [], "object": {}, "true": True, "none": None, "empty": ""}
FITS = {
    TEXT: {"text", "empty"},
    WHOLE: {"whole"},
    NUMBER: {"whole", "number"},
    LIST: {"list"},
    OBJECT: {"object"},
    ID: {"text", "whole"},
    ANSWER: {"text", "whole", "number"},
}


@pytest.mark.parametrize("kind", FITS)
def test_a_field_is_of_its_kind_or_refused(kind) -> None:
    for name, value in RECORD.items():
        if name in FITS[kind]:
            assert take(RECORD, name, kind, "here") == value
        else:
            with pytest.raises(
                HetgraphError, match=f"here: field {name!r} must be {kind}, got {re.escape(repr(value))}"
            ):
                take(RECORD, name, kind, "here")
    with pytest.raises(HetgraphError, match=r"here: field 'x' is missing; there are \['empty'"):
        take(RECORD, "x", kind, "here")
    with pytest.raises(HetgraphError, match=r"here must be an object, got \[\]"):
        take([], "x", kind, "here")


def test_tables_say_the_line_and_lines_are_utf8(tmp_path) -> None:
    put(
        tmp_path,
        {"a.csv": 'x,y\n1,"two\nlines"\n3,4\n', "b.csv": "x,y\n1,2\n3\n", "c.csv": "x\n1\n", "d.csv": 'x\n"1\n'},
    )
    assert list(table("X", tmp_path / "a.csv", ("y",))) == [
        (3, {"x": "1", "y": "two\nlines"}),
        (4, {"x": "3", "y": "4"}),
    ]
    for name, message in (
        ("b.csv", "line 3: expected 2 cells, got 1"),
        ("c.csv", r"lacks the columns \['y'\]"),
        ("d.csv", r"lacks the columns \['y'\]"),
    ):
        with pytest.raises(HetgraphError, match=message):
            list(table("X", tmp_path / name, ("y",)))
    with pytest.raises(HetgraphError, match="line 3 cannot be read: unexpected end of data"):
        list(table("X", tmp_path / "d.csv", ("x",)))
    (tmp_path / "e.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(HetgraphError, match=r"e\.txt cannot be read"):
        list(lines("X", tmp_path / "e.txt"))


# parts


def parts_of(asked: list[str], media: Media | None = None) -> Parts[Caption]:
    def loader(part: str, clips: str):
        def load() -> list[Caption]:
            asked.append(part)
            return [Caption(clip, f"{part} {clip}", part, file=media.find(clip) if media else None) for clip in clips]

        return load

    return Parts("X", {"train": loader("train", "aab"), "test": loader("test", "bc")}, "captions", "clips", media)


def test_a_part_is_read_when_it_is_asked_for_and_once() -> None:
    asked: list[str] = []
    parts = parts_of(asked)
    assert (parts.parts, asked) == (("train", "test"), [])
    assert [c.caption for c in parts.part("test")] == ["test b", "test c"]
    assert asked == ["test"]
    assert len(parts) == 5
    assert [c.clip for c in parts] == list("aabbc")
    assert parts[3].caption == "test b"
    assert parts[-1] is parts.part("test")[1]
    assert [c.clip for c in parts[1:3]] == ["a", "b"]
    assert asked == ["test", "train"]
    assert parts.items == ("a", "b", "c")
    assert [c.split for c in parts.of("b")] == ["train", "test"]
    assert parts.counts() == {"train": {"captions": 3, "clips": 2}, "test": {"captions": 2, "clips": 2}}


def test_unknown_parts_and_clips_are_named() -> None:
    parts = parts_of([])
    with pytest.raises(HetgraphError, match="X: unknown part 'dev'; known: train, test"):
        parts.part("dev")
    with pytest.raises(HetgraphError, match="X: no captions of 'z'"):
        parts.of("z")
    with pytest.raises(HetgraphError, match=r"X: no folder with the clips or pictures was given"):
        parts.unfound()


def test_files_are_found_below_the_folder_or_reported(tmp_path) -> None:
    put(tmp_path, {"film/a.jpg": "", "b.PNG": "", "c.txt": ""})
    parts = parts_of([], Media("X", tmp_path, IMAGES))
    assert parts.part("train")[0].file == tmp_path / "film" / "a.jpg"
    assert parts.of("b")[0].file == tmp_path / "b.PNG"
    assert parts.unfound() == ("c",)
    put(tmp_path, {"other/a.jpg": ""})
    with pytest.raises(HetgraphError, match=r"X: 'a' is .*film/a\.jpg, but also .*other/a\.jpg"):
        parts_of([], Media("X", tmp_path, IMAGES)).part("train")
    with pytest.raises(HetgraphError, match=r"X: no folder .*nowhere"):
        Media("X", tmp_path / "nowhere", IMAGES)


def test_a_question_is_in_one_part() -> None:
    question = Question("7", "a", "why", ("so",), "train")
    parts = Parts("X", {"train": lambda: [question], "test": lambda: [question]}, "questions", "images")
    assert len(parts.part("test")) == 1
    with pytest.raises(HetgraphError, match="question '7' is there twice"):
        len(parts)


# the registry and the command


@pytest.mark.parametrize("name", READERS)
def test_every_reader_says_what_it_needs_and_reports_an_empty_folder(name, tmp_path) -> None:
    reader = READERS[name]
    files = next(iter(reader.layouts.values()))
    assert reader.title
    assert reader.homepage.startswith("http")
    found = datasets.official.missing(name, tmp_path)
    assert [finding.file for finding in found] == [file.name for file in files if file.needed]
    assert {finding.fault for finding in found} == {"missing"}
    with pytest.raises(HetgraphError, match=r"no file|no \.csd file"):
        datasets.open(name, tmp_path).counts()


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_anything_else_is_damaged(name, tmp_path) -> None:
    for layout in READERS[name].layouts.values():
        for file in layout:
            put(tmp_path, {file.name: "\x00\x01 nothing of the kind"})
            if file.unit in ("questions", "expressions") and file.name.endswith((".query", ".query_str.txt")):
                continue  # any text is a question
            with pytest.raises(HetgraphError, match=re.escape(file.name)):
                file.read(tmp_path / file.name)
    assert "damaged" in {finding.fault for finding in official.missing(name, tmp_path)}


def test_unknown_readers_and_missing_folders_are_named(tmp_path, monkeypatch) -> None:
    for call in (official.missing, datasets.open):
        with pytest.raises(HetgraphError, match=r"unknown reader 'imagenet'; known: mosi_csd, .*, gqa"):
            call("imagenet", tmp_path)
        with pytest.raises(HetgraphError, match=r"no folder .*nowhere"):
            call("msvd", tmp_path / "nowhere")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "daquar").mkdir()
    assert [finding.fault for finding in official.missing("daquar")] == ["missing", "missing"]


def test_the_document_names_every_reader_and_file() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").split("## Official file formats")[1]
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert list(rows)[2:] == list(READERS)
    for name, reader in READERS.items():
        assert reader.homepage.split(" ")[0].rstrip(",") in rows[name]
        # "v2_..._{train2014,val2014}_questions.json" and the like stand for several files
        assert all(file.name.split(".")[-1] in rows[name] for files in reader.layouts.values() for file in files)


def test_the_registry_imports_no_reader() -> None:
    code = (
        "import sys, hetgraph.tasks.datasets.official as o\n"
        "print(*sorted(m for m in sys.modules if m.startswith(o.__name__ + '.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hetgraph.tasks.datasets.official.layout"]


def type_in(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["datasets", *map(str, words)])
    code = command.main()
    out, err = capsys.readouterr()
    return code, out, err


RAW = "what is on the desk in the image3 ?\nbook, cup\n"


def test_the_command_prints_findings_and_counts(tmp_path, monkeypatch, capsys) -> None:
    put(tmp_path, {"qa.894.raw.train.txt": RAW})
    code, out, _ = type_in(monkeypatch, capsys, "daquar", tmp_path)
    assert code == 1
    assert re.search(r"train\.txt +size +expected 6,795 questions, got 1", out)
    assert re.search(r"test\.txt +missing +expected 5,673 questions", out)
    assert "not read together: DAQUAR: no file" in out
    put(tmp_path, {"qa.894.raw.test.txt": RAW * 2})
    code, out, _ = type_in(monkeypatch, capsys, "daquar", tmp_path)
    assert code == 0
    assert re.search(r"train +1 +1 +\n", out)
    assert re.search(r"test +2 +1 +\n", out)
    put(tmp_path, {"qa.894.raw.test.txt": RAW + "what now ?"})
    code, out, _ = type_in(monkeypatch, capsys, "daquar", tmp_path)
    assert code == 1
    assert re.search(r"test\.txt +damaged", out)


def test_the_command_lists_readers_and_says_what_it_cannot_do(tmp_path, monkeypatch, capsys) -> None:
    code, out, _ = type_in(monkeypatch, capsys)
    assert code == 0
    assert all(name in out for name in READERS)
    code, out, err = type_in(monkeypatch, capsys, "imagenet", tmp_path)
    assert (code, out) == (1, "")
    assert "unknown reader 'imagenet'" in err
